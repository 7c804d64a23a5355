"""The header block that is published: ours first, then the user's; what the wire cannot carry is refused."""

from datetime import timedelta

import pytest

from headrace.core.broker import Expect
from headrace.core.delivery import Position
from headrace.core.errors import ConfigError
from headrace.core.headers import NO_HEADERS, Headers
from headrace.streams.config import Rollup, StreamPublishOptions
from headrace.streams.lines import block_of
from headrace.streams.names import WireBlock


def lines(headers=None, msg_id=None, **options):
    block = block_of(headers, msg_id, StreamPublishOptions(**options) if options else None)
    return block.decode().split("\r\n")[:-1]


def test_nothing_is_nothing():
    assert block_of(None, None, None) == block_of(NO_HEADERS, None, None) == block_of({}, None, None) == b""
    assert block_of(None, None, StreamPublishOptions()) == b""


def test_ours_stand_first():
    given = Headers([("A", "1"), ("a", "2"), ("B", "ü")])
    assert lines(given, "x y", expect_stream="S") == [
        "Nats-Msg-Id: x y", "Nats-Expected-Stream: S", "A: 1", "a: 2", "B: ü",
    ]  # fmt: skip


def test_a_wire_block_goes_out_as_it_is():
    block = WireBlock(b"Nats-Msg-Id: 1@a\r\nHeadrace-Time: 5\r\n")
    assert block_of(block, "ignored", None) is block
    assert block_of(block, None, StreamPublishOptions(ttl=5)) == b"Nats-TTL: 5s\r\n" + block


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"expect": Expect(last=0)}, ["Nats-Expected-Last-Sequence: 0"]),
        ({"expect": Expect(last=Position("S", 7))}, ["Nats-Expected-Last-Sequence: 7"]),
        ({"expect": Expect(last_for_topic=3)}, ["Nats-Expected-Last-Subject-Sequence: 3"]),
        ({"expect": Expect(last_id="é")}, ["Nats-Expected-Last-Msg-Id: é"]),
        (
            {"expect": Expect(last_for_topic=3), "expect_subject": "a.b"},
            ["Nats-Expected-Last-Subject-Sequence: 3", "Nats-Expected-Last-Subject-Sequence-Subject: a.b"],
        ),
        ({"rollup": Rollup.SUBJECT}, ["Nats-Rollup: sub"]),
        ({"rollup": Rollup.ALL}, ["Nats-Rollup: all"]),
        ({"ttl": 60}, ["Nats-TTL: 60s"]),
        ({"ttl": timedelta(days=3_650)}, ["Nats-TTL: 315360000s"]),
        ({"ttl": timedelta.max}, ["Nats-TTL: never"]),
        ({"timeout": 1, "stall_wait": 0, "retry_attempts": 0}, []),
    ],
)
def test_options(options, wanted):
    assert lines(**options) == wanted


@pytest.mark.parametrize("bad", ["", " x", "x ", "a\r\nb", "a\nb", "a\0b", "\ud800", "\t", 3, b"x"])
def test_ids_that_are_refused(bad):
    with pytest.raises(ConfigError, match="msg_id"):
        block_of(None, bad, None)


@pytest.mark.parametrize("bad", ["a\r\nb", " x", "\0"])
def test_texts_in_options_that_are_refused(bad):
    with pytest.raises(ConfigError, match="Nats-Expected"):
        block_of(None, None, StreamPublishOptions(expect_stream=bad))
    with pytest.raises(ConfigError, match="Nats-Expected"):
        block_of(None, None, StreamPublishOptions(expect=Expect(last_id=bad)))


@pytest.mark.parametrize("bad", [{"Nats-Msg-Id": "1"}, {"nats-anything": "1"}, {"A": "x\r\ny"}, {"A b": "1"}])
def test_user_headers_that_are_refused(bad):
    with pytest.raises(ConfigError):
        block_of(bad, None, None)


def test_the_callers_object_is_not_changed():
    given = {"A": ["1", "2"]}
    assert lines(given, "id") == ["Nats-Msg-Id: id", "A: 1", "A: 2"]
    assert given == {"A": ["1", "2"]}
