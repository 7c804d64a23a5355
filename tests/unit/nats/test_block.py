"""Header blocks: statuses, lines, fields, and what may go into one."""

import pytest

from headrace.core.errors import ConfigError
from headrace.nats.block import build, fields_of, lines_of, status_of

STATUSES = {
    b"NATS/1.0 503\r\n\r\n": (503, ""),
    b"NATS/1.0 503\r\nNats-Subject: none\r\n\r\n": (503, ""),
    b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Stream: 3\r\n\r\n": (100, "Idle Heartbeat"),
    b"NATS/1.0 409 Message Size Exceeds MaxBytes\r\n\r\n": (409, "Message Size Exceeds MaxBytes"),
    b"NATS/1.0  404  No Messages \r\n\r\n": (404, "No Messages"),
    b"NATS/1.0\r\n\r\n": None,
    b"NATS/1.0 \r\nA: 1\r\n\r\n": None,
    b"NATS/1.0 abc\r\n\r\n": None,
    b"NATS/1.0 5030\r\n\r\n": None,
    b"NATS/1.0\r\n 503: 1\r\n\r\n": None,
    b"": None,
    b"NATS": None,
}


@pytest.mark.parametrize(("header", "status"), STATUSES.items())
def test_status_without_description(header, status):
    assert status_of(header) == status


def test_lines_are_what_stands_between_version_and_blank_line():
    assert lines_of(b"NATS/1.0\r\nA: 1\r\nB:2\r\n\r\n") == b"A: 1\r\nB:2\r\n"
    assert lines_of(b"NATS/1.0\r\n\r\n") == b""
    assert lines_of(b"NATS/1.0 503\r\nNats-Subject: x\r\n\r\n") == b"Nats-Subject: x\r\n"
    assert lines_of(b"NATS/1.0 503\r\n\r\n") == b""
    assert lines_of(b"") == b""


def test_headers_multi_value_case():
    header = b"NATS/1.0 200 fine\r\nA: 1\r\na:2\r\nA:  two words \r\nEmpty:\r\nno colon\r\nT\xc3\xa9l: \xff\r\n\r\n"
    fields = fields_of(header)
    assert list(fields.items())[:3] == [("A", ["1", "two words"]), ("a", ["2"]), ("Empty", [""])]
    assert fields["Tél"] == ["\udcff"]


def test_what_is_built_is_read_back():
    pairs = [("A", "1"), ("b", "é 𝄞"), ("A", ""), ("Nats-Msg-Id", "x:y")]
    lines = build(pairs)
    assert lines == "A: 1\r\nb: é 𝄞\r\nA: \r\nNats-Msg-Id: x:y\r\n".encode()
    assert fields_of(b"NATS/1.0\r\n" + lines + b"\r\n") == {"A": ["1", ""], "b": ["é 𝄞"], "Nats-Msg-Id": ["x:y"]}


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\r\nb", "é", "a\x00", "a\x7f", "\ttab", None, b"A"])
def test_names_that_would_break_the_block_are_refused(name):
    with pytest.raises(ConfigError, match="header name"):
        build([(name, "1")])


@pytest.mark.parametrize("value", ["a\r\nB: 2", "a\n", "\r", "a\x00", "\ud800", None, b"x"])
def test_values_that_would_break_the_block_are_refused(value):
    with pytest.raises(ConfigError, match="header A"):
        build([("A", value)])
