"""JSON of a stranger: whatever is in a body, decoding gives a value or a CodecError without the body's text (3.5.4)."""

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.codec import BytesCodec, JsonCodec, TextCodec
from headrace.core.errors import CodecError, ConfigError


class Order(msgspec.Struct):
    id: int


DIGITS = b"9" * 1_000_000
HOSTILE = {
    "deep list": b"[" * 100_000,
    "deep list, closed": b"[" * 100_000 + b"]" * 100_000,
    "deep object": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "huge integer": DIGITS,
    "huge integer in a field": b'{"id":' + DIGITS + b"}",
    "huge exponent": b'{"id":1e1000000}',
    "bad UTF-8": b'{"id":"\xff"}',
    "bad UTF-8 alone": b"\xff\xfe",
    "overlong UTF-8": b'"\xc0\xaf"',
    "UTF-8 of a surrogate": b'"\xed\xa0\x80"',
    "BOM": b'\xef\xbb\xbf{"id":1}',
    "lone surrogate": b'"\\ud800"',
    "half a pair": b'{"id":"\\ud83d"}',
    "truncated": b'{"id":1',
    "junk behind": b'{"id":1}x',
    "empty": b"",
    "NaN": b'{"id":NaN}',
    "NUL": b"\x00",
}


@pytest.mark.parametrize("type_", [Order, int, dict, list, str, Any])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_json(name, type_):
    with pytest.raises(CodecError) as caught:
        JsonCodec(type_).decode(HOSTILE[name])
    assert len(str(caught.value)) < 300, "the body is in the error"
    assert caught.value.__suppress_context__


@given(st.binary(max_size=60) | st.text("[]{}:,\"'0123456789.eE+-trufalsn \\ud8", max_size=60).map(str.encode))
def test_any_bytes_are_a_value_or_a_codec_error(body):
    for codec in (JsonCodec(Order), JsonCodec(Any), TextCodec()):
        with suppress(CodecError):
            codec.decode(body)
    assert BytesCodec().decode(body) == body


def test_sizes_and_types_are_checked_before_reading():
    with pytest.raises(CodecError, match="at most 4"):
        JsonCodec(int, max_size=4).decode(b"12345")
    with pytest.raises(ConfigError):
        JsonCodec(object())


@pytest.mark.parametrize("value", [object(), {1: {2}}.keys, float, {object(): 1}])
def test_what_cannot_be_encoded_names_the_type_only(value):
    with pytest.raises(CodecError) as caught:
        JsonCodec(Any).encode(value)
    assert type(value).__name__ in str(caught.value)


def test_what_encodes_itself_for_ever():
    endless = []
    endless.append(endless)
    with pytest.raises(CodecError):
        JsonCodec(Any).encode(endless)


def test_lone_surrogates_do_not_leave():
    for codec in (TextCodec(), JsonCodec(Any)):
        with pytest.raises(CodecError):
            codec.encode("\ud800")


def test_bytes_and_text_take_nothing_else():
    for codec, wrong in ((BytesCodec(), "x"), (BytesCodec(), bytearray(b"x")), (TextCodec(), b"x")):
        with pytest.raises(CodecError, match=type(wrong).__name__):
            codec.encode(wrong)
    assert TextCodec().decode("é".encode()) == "é"
    with pytest.raises(CodecError, match="byte 1"):
        TextCodec().decode(b"a\xff")
