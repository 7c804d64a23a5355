"""What a server answers to a publish."""

import pytest

from headrace.core.errors import Fault, PublishError
from headrace.jetstream.publishing.answers import answer_of
from headrace.streams.errors import (
    ERROR_CLASSES,
    AtomicBatchError,
    InvalidAckError,
    NoStreamResponseError,
    PublishRefusedError,
    StreamFullError,
    WrongLastSequenceError,
)
from headrace.streams.info import PubAck


def answer(data, header=b""):
    return answer_of("orders.new", "id-1", header, data)


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b'{"stream":"S","seq":7}', PubAck("S", 7)),
        (b' { "stream" : "S", "seq": 7 }\n', PubAck("S", 7)),
        (b'{"stream":"S","domain":"hub","seq":7,"duplicate":true}', PubAck("S", 7, duplicate=True, domain="hub")),
        (b'{"stream":"S","seq":9,"batch":"b","count":3}', PubAck("S", 9, batch_id="b", batch_size=3)),
        (b'{"stream":"S","seq":9,"val":"12","new":{"x":[1]}}', PubAck("S", 9)),
        (b'{"stream":"S","seq":18446744073709551615}', PubAck("S", 2**64 - 1)),
    ],
)
def test_acks(data, wanted):
    assert answer(data) == wanted


def test_an_ack_with_headers_is_an_ack():
    assert answer(b'{"stream":"S","seq":7}', b"NATS/1.0\r\nA: b\r\n\r\n") == PubAck("S", 7)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"null", b"[]", b"{", b"\xff", b'{"stream":"S"}', b'{"seq":7}', b'{"stream":"","seq":7}',
        b'{"stream":"S","seq":0}', b'{"stream":"S","seq":-1}', b'{"stream":"S","seq":"7"}', b'{"stream":3,"seq":7}',
        b'{"stream":"S","seq":NaN}', b'{"stream":"S","seq":1e3}', b'{"stream":"\xff","seq":1}', b'{"error":"x"}',
        b'{"x":' + b"[" * 100_000, b'{"error":{"code":"x"}}',
    ],
)  # fmt: skip
def test_what_makes_no_sense(data):
    error = answer(data)
    assert type(error) is InvalidAckError
    assert error.fault is Fault.UNKNOWN
    assert error.message_id == "id-1"


def test_nobody_there():
    error = answer(b"", b"NATS/1.0 503\r\nNats-Subject: orders.new\r\n\r\n")
    assert type(error) is NoStreamResponseError
    assert error.fault is Fault.UNAVAILABLE
    assert "orders.new" in str(error)


@pytest.mark.parametrize(
    "header", [b"NATS/1.0 408 Request Timeout\r\n\r\n", b"NATS/1.0\r\nA: b\r\n\r\n", b"NATS/1.0 x"]
)
def test_other_statuses_make_no_sense(header):
    assert type(answer(b"", header)) is InvalidAckError


def test_a_status_with_a_body_is_an_answer():
    assert answer(b'{"stream":"S","seq":7}', b"NATS/1.0 503\r\n\r\n") == PubAck("S", 7)


@pytest.mark.parametrize(
    ("data", "kind", "fault"),
    [
        (b'{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 3"},"stream":"S","seq":0}',
         WrongLastSequenceError, Fault.REJECTED),
        (b'{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"},"stream":"S","seq":0}',
         StreamFullError, Fault.UNAVAILABLE),
        (b'{"error":{"code":503,"err_code":10077,"description":"disk"}}', PublishRefusedError, Fault.UNAVAILABLE),
        (b'{"error":{"code":400,"err_code":10174,"description":"disabled"}}', AtomicBatchError, Fault.REJECTED),
        (b'{"error":{"code":500,"err_code":99999}}', PublishRefusedError, Fault.REJECTED),
        (b'{"error":{"code":503}}', PublishRefusedError, Fault.UNAVAILABLE),
        (b'{"error":{}}', PublishRefusedError, Fault.REJECTED),
    ],
)  # fmt: skip
def test_refusals(data, kind, fault):
    error = answer(data)
    assert type(error) is kind
    assert error.fault is fault
    assert error.message_id == "id-1"


@pytest.mark.parametrize("err_code", sorted(ERROR_CLASSES))
def test_every_error_is_a_publish_error_with_its_code(err_code):
    error = answer(b'{"error":{"code":400,"err_code":%d,"description":"maximum"}}' % err_code)
    assert isinstance(error, PublishError)
    assert error.err_code == err_code
