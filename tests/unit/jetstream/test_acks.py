"""Acknowledgement subjects of both versions, and of neither; what is published to them."""

from datetime import UTC, datetime

import pytest

from headrace.core.delivery import ACK, RELEASE, Nak, Reject
from headrace.jetstream.consumers.acks import body_of, facts_in, is_ack_subject, metadata_in, order_in, probe_of
from headrace.streams.errors import NotStreamMessageError
from headrace.streams.msg import SequencePair

V1 = b"$JS.ACK.S.C.2.31.47.1795290198135344835.5"
V2 = b"$JS.ACK.hub.Aab12.S.C.2.31.47.1795290198135344835.5"


@pytest.mark.parametrize(
    ("reply", "domain"),
    [
        (V1, ""),
        (V2, "hub"),
        (V2.replace(b".hub.", b"._."), ""),
        (V2 + b".token", "hub"),
        (V2 + b".more.and.more", "hub"),
    ],
)
def test_both_versions_are_read(reply, domain):
    assert is_ack_subject(reply)
    assert facts_in(reply) == (31, 2, 1795290198135344835)
    assert order_in(reply) == 47
    read = metadata_in(reply)
    assert read.sequence == SequencePair(31, 47)
    assert (read.num_delivered, read.num_pending, read.stream, read.consumer) == (2, 5, "S", "C")
    assert read.domain == domain
    assert read.timestamp == datetime(2026, 11, 21, 19, 43, 18, 135344, tzinfo=UTC)


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"_INBOX.abc.1",
        b"$JS.ACK",
        b"$JS.ACK.",
        V1.removesuffix(b".5"),
        V1 + b".6",
        V1.replace(b"$JS", b"$JX"),
        V1.replace(b".ACK.", b".NAK."),
        V1.replace(b".31.", b".x31."),
        V1.replace(b".31.", b".-31."),
        V1.replace(b".31.", b".3_1."),
        V1.replace(b".31.", b".."),
        V1.replace(b".2.31.47.", b"...."),
        V1.replace(b".31.", ".٣.".encode()),
        V2.replace(b".47.", b". 47."),
    ],
)
def test_what_is_neither_is_refused(reply):
    for read in (facts_in, metadata_in):
        with pytest.raises(NotStreamMessageError):
            read(reply)


@pytest.mark.parametrize(
    "reply", [b"", b"_INBOX.abc.1", V1 + b".6", V1.replace(b".47.", b".x."), V1.replace(b".47.", b"..")]
)
def test_the_order_is_read_alone(reply):
    with pytest.raises(NotStreamMessageError):
        order_in(reply)


def test_a_number_too_long():
    for read, number in ((order_in, b"47"), (metadata_in, b"1795290198135344835")):
        with pytest.raises(NotStreamMessageError):
            read(V1.replace(number, b"9" * 21))
    assert metadata_in(V1.replace(b"1795290198135344835", b"9" * 20)).timestamp.year == 5138


@pytest.mark.parametrize("reply", [b"", b"_INBOX.abc.1", V1 + b".6", V1.removesuffix(b".5")])
def test_nothing_is_published_to_what_is_neither(reply):
    assert not is_ack_subject(reply)


@pytest.mark.parametrize(
    ("outcome", "body"),
    [
        (ACK, b"+ACK"),
        (Nak(), b"-NAK"),
        (RELEASE, b"-NAK"),
        (Nak(1.5), b'-NAK {"delay": 1500000000}'),
        (Nak(1e-9), b'-NAK {"delay": 1}'),
        (Nak(1e30), b'-NAK {"delay": 9223372036854775807}'),
        (Reject(), b"+TERM"),
        (Reject("bad order"), b"+TERM bad order"),
        (Reject("two\r\nlines\0"), b"+TERM two lines "),
        (Reject("lone \ud800"), b"+TERM lone ?"),
        (Reject("x" * 10_000), b"+TERM " + b"x" * 4096),
    ],
)
def test_bodies(outcome, body):
    assert body_of(outcome) == body


@pytest.mark.parametrize("reply", [V1, V2, V2 + b".token"])
def test_a_probe_stands_for_no_message(reply):
    probe = probe_of(reply)
    assert is_ack_subject(probe)
    assert probe.split(b".")[:4] == reply.split(b".")[:4]
    assert facts_in(probe)[0] == 10**18
