"""Stored messages in the two forms in which a server hands them out."""

from datetime import UTC, datetime

import pytest

from headrace.core.headers import Headers
from headrace.jetstream.stored.messages import direct_of, stored_of, transport_of
from headrace.streams.errors import StreamError

TAIL = b"Nats-Stream: S\r\nNats-Subject: s.x\r\nNats-Sequence: 7\r\nNats-Time-Stamp: 2026-01-01T00:00:00.123456789Z\r\n"
BATCH = b"Nats-Num-Pending: 3\r\nNats-Last-Sequence: 5\r\n"
REPUBLISHED = TAIL.replace(b": 7", b": 99") + b"Nats-Last-Sequence: 98\r\n"
AT = datetime(2026, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)


def block(*lines):
    return b"NATS/1.0\r\n" + b"".join(lines) + b"\r\n"


@pytest.mark.parametrize("batch", [b"", BATCH])
@pytest.mark.parametrize(
    "own", [b"", b"A: b\r\n", b"A: b\r\na:  c \r\nEmpty:\r\n", REPUBLISHED, b"X: 1\r\n" + REPUBLISHED]
)
def test_own_headers_stay_and_the_servers_go(own, batch):
    found = direct_of(block(own, TAIL, batch), b"body", "here")
    message = found.message
    assert (message.subject, message.sequence, message.data, message.time) == ("s.x", 7, b"body", AT)
    assert message.headers.items() == Headers.from_block(own).items()
    assert found.previous == (5 if batch else None)


def test_a_status_is_no_message():
    assert direct_of(b"NATS/1.0 404 Message Not Found\r\n\r\n", b"", "here") is None
    end = b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 0\r\nNats-Last-Sequence: 9\r\nNats-UpTo-Sequence: 9\r\n\r\n"
    assert direct_of(end, b"", "here") is None
    assert transport_of(end)[0] == {
        "Nats-Num-Pending": "0",
        "Nats-Last-Sequence": "9",
        "Nats-UpTo-Sequence": "9",
    }


def test_an_empty_or_cut_block():
    assert transport_of(b"") == ({}, b"")
    assert transport_of(b"NATS/1.0\r\n\r\n") == ({}, b"")
    assert direct_of(b"", b"x", "here") is None


@pytest.mark.parametrize(
    "tail",
    [
        TAIL.replace(b"Sequence: 7", b"Sequence: seven"),
        TAIL.replace(b"Sequence: 7", b"Sequence: -7"),
        TAIL.replace(b"Sequence: 7", b"Sequence: " + b"7" * 50),
        TAIL.replace(b"Sequence: 7", "Sequence: ٧".encode()),
        TAIL.replace(b"2026-", b"????-"),
        TAIL.replace(b"Nats-Subject: s.x\r\n", b""),
        b"Nats-Sequence: 7\r\n",
        TAIL + b"Nats-Last-Sequence: x\r\n",
    ],
)
def test_nonsense_is_a_stream_error(tail):
    with pytest.raises(StreamError, match="here"):
        direct_of(block(tail), b"", "here")


def test_the_json_form():
    given = {"subject": "s", "seq": 2, "time": "2026-01-01T00:00:00.123456789Z"}
    message = stored_of(given, "here")
    assert (message.subject, message.sequence, message.time, message.data, len(message.headers)) == ("s", 2, AT, b"", 0)
    message = stored_of({**given, "data": "eDE=", "hdrs": "TkFUUy8xLjANCks6IHYNCg0K"}, "here")
    assert (message.data, message.headers.items()) == (b"x1", (("K", "v"),))
    for bad in (
        {"seq": "2"},
        {"time": None},
        {"time": "0001-01-01T00:00:00Z"},
        {"data": "ä"},
        {"hdrs": "="},
        {"data": 5},
    ):
        with pytest.raises(StreamError):
            stored_of({**given, **bad}, "here")
