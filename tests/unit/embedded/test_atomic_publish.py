"""Atomic publish: all messages or none, with the codes seen on a nats-server."""

import asyncio

import pytest

from headrace import embedded
from headrace.core.errors import ConfigError, Fault
from headrace.streams.config import DiscardPolicy, RetentionPolicy, StreamConfig, StreamMessage
from headrace.streams.errors import (
    AtomicBatchError,
    InvalidSubjectError,
    MessageTooLargeError,
    NoStreamResponseError,
    StreamFullError,
    StreamSealedError,
)
from headrace.testing.virtual import virtual_time
from tests.unit.embedded.reading import pull, reader, seqs, stream_of


def several(*subjects, **fields):
    return [StreamMessage(subject, b"%d" % place, **fields) for place, subject in enumerate(subjects, 1)]


def with_ids(*ids):
    return [StreamMessage("s.a", b"", msg_id=each) for each in ids]


async def refused(streams, messages, code, kind=AtomicBatchError):
    with pytest.raises(kind) as error:
        await streams.publish_atomic(messages)
    assert error.value.err_code == code
    return error.value


async def count(stream):
    info = (await stream.info()).state
    return info.messages, info.last_sequence


@virtual_time
async def test_all_are_stored_and_the_last_one_answers():
    async with stream_of(1, allow_atomic=True) as (streams, stream):
        ack = await streams.publish_atomic(several("s.a", "s.b", "s.a", headers={"A": "b"}))
        assert (ack.stream, ack.sequence, ack.duplicate, ack.batch_size) == ("S", 4, False, 3)
        assert 0 < len(ack.batch_id) <= 64
        found = await stream.read(start=2)
        assert [(each.subject, each.data) for each in found] == [("s.a", b"1"), ("s.b", b"2"), ("s.a", b"3")]
        assert len({each.time for each in found}) == 1
        lines = [[each.headers.get(f"Nats-Batch-{name}") for name in ("Id", "Sequence", "Commit")] for each in found]
        assert lines == [[ack.batch_id, "1", None], [ack.batch_id, "2", None], [ack.batch_id, "3", "1"]]
        assert all(each.headers.get("A") == "b" for each in found)
        one = await streams.publish_atomic(several("s.c"))
        assert (one.sequence, one.batch_size) == (5, 1)
        assert one.batch_id != ack.batch_id
        assert (await streams.verify()).ok


@virtual_time
async def test_the_stream_must_allow_it():
    async with stream_of() as (streams, stream):
        await refused(streams, several("s.a", "s.b"), 10174)
        await streams.update_stream(StreamConfig(name="S", subjects=["s.>"], sealed=True))
        await refused(streams, several("s.a"), 10109, StreamSealedError)
        assert await count(stream) == (0, 0)


@virtual_time
async def test_one_stream_takes_all():
    async with stream_of(allow_atomic=True) as (streams, stream):
        other = await streams.create_stream(StreamConfig(name="T", allow_atomic=True))
        await refused(streams, several("s.a", "T", "s.a"), 10176)
        with pytest.raises(NoStreamResponseError) as error:
            await streams.publish_atomic(several("s.a", "nobody"))
        assert error.value.fault is Fault.UNAVAILABLE
        assert (await count(stream), await count(other)) == ((0, 0), (0, 0))


@virtual_time
async def test_the_stream_may_come_while_it_is_tried():
    async with embedded.open(":memory:") as streams:
        publishing = asyncio.create_task(streams.publish_atomic(several("s.a", "s.b")))
        await asyncio.sleep(0.1)
        await streams.create_stream(StreamConfig(name="S", subjects=["s.>"], allow_atomic=True))
        assert (await publishing).sequence == 2


@virtual_time
async def test_an_id_that_was_there_refuses_all():
    async with stream_of(allow_atomic=True) as (streams, stream):
        await streams.publish("s.a", msg_id="one")
        for ids in (("two", "one", None), ("two", "one"), ("two", "two"), (None, "three", "three", None)):
            await refused(streams, with_ids(*ids), 10201)
        assert await count(stream) == (1, 1)
        ack = await streams.publish_atomic(with_ids("two", "three"))
        assert (ack.sequence, ack.batch_size) == (3, 2)
        again = [await streams.publish("s.a", msg_id=each) for each in ("two", "three")]
        assert [(each.sequence, each.duplicate) for each in again] == [(2, True), (3, True)]


@virtual_time
async def test_how_many():
    async with stream_of(allow_atomic=True) as (streams, stream):
        error = await refused(streams, several(*["s.a"] * 1001), 10199)
        assert error.code == 400
        with pytest.raises(ConfigError, match="messages"):
            await streams.publish_atomic([])
        assert (await streams.publish_atomic(several(*["s.a"] * 1000))).batch_size == 1000
        assert await count(stream) == (1000, 1000)


@virtual_time
async def test_limits_count_what_comes_before_in_the_batch():
    limits = {"allow_atomic": True, "max_messages": 3, "discard": DiscardPolicy.NEW}
    async with stream_of(1, **limits) as (streams, stream):
        await refused(streams, several("s.a", "s.a", "s.a"), 10077, StreamFullError)
        assert await count(stream) == (1, 1)
        assert (await streams.publish_atomic(several("s.a", "s.a"))).sequence == 3
    async with stream_of(allow_atomic=True, max_messages=2, max_messages_per_subject=1) as (streams, stream):
        assert (await streams.publish_atomic(several("s.a", "s.a", "s.b", "s.c"))).sequence == 4
        assert seqs_of(await stream.read()) == [3, 4]


def seqs_of(messages):
    return [each.sequence for each in messages]


@virtual_time
async def test_sizes_count_the_headers_of_the_batch():
    async with stream_of(allow_atomic=True, max_message_size=150) as (streams, stream):
        long = [StreamMessage("s.a"), StreamMessage("s.a", bytes(120))]
        await refused(streams, long, 10054, MessageTooLargeError)
        ids = [StreamMessage("s.a", msg_id="one"), StreamMessage("s.a", msg_id="one"), *long]
        await refused(streams, ids, 10054, MessageTooLargeError)
        assert await count(stream) == (0, 0)
    async with embedded.open(":memory:", options=embedded.EmbeddedOptions(max_payload=150)) as streams:
        with pytest.raises(MessageTooLargeError) as error:
            await streams.publish_atomic(long)
        assert error.value.limit == 150


@virtual_time
async def test_misuse_raises_before_anything_is_queued():
    async with stream_of(allow_atomic=True) as (streams, stream):
        with pytest.raises(InvalidSubjectError):
            await streams.publish_atomic(several("s.a", "s.*"))
        with pytest.raises(ConfigError):
            await streams.publish_atomic([StreamMessage("s.a", headers={"Nats-Batch-Id": "mine"})])
        assert await count(stream) == (0, 0)


@virtual_time
async def test_interest_uses_the_sequences_of_what_nobody_wants():
    async with stream_of(allow_atomic=True, retention=RetentionPolicy.INTEREST) as (streams, stream):
        _, session = await reader(stream, filter_subject="s.b")
        ack = await streams.publish_atomic(several("s.b", "s.a"))
        assert (ack.sequence, ack.batch_size) == (2, 2)
        assert (await streams.publish_atomic(several("s.a", "s.b"))).sequence == 4
        assert seqs(await pull(session)) == [1, 4]


@virtual_time
async def test_what_failed_disturbs_nobody_beside_it():
    async with stream_of(allow_atomic=True) as (streams, stream):
        _, session = await reader(stream, filter_subject="s.new.*")
        await streams.publish("s.a", msg_id="one")
        results = await asyncio.gather(
            streams.publish("s.new.x", b"before"),
            streams.publish_atomic([StreamMessage("s.new.y"), StreamMessage("s.a", msg_id="one")]),
            streams.publish("s.new.z", b"behind"),
            streams.publish_atomic(several("s.new.y", "s.new.x")),
            return_exceptions=True,
        )
        assert isinstance(results[1], AtomicBatchError)
        assert [results[place].sequence for place in (0, 2, 3)] == [2, 3, 5]
        found = await pull(session)
        assert [(each.subject, each.data) for each in found] == [
            ("s.new.x", b"before"), ("s.new.z", b"behind"), ("s.new.y", b"1"), ("s.new.x", b"2"),
        ]  # fmt: skip
        assert (await streams.verify()).ok


@virtual_time
async def test_cancelled_before_its_turn_none_is_stored():
    async with stream_of(allow_atomic=True) as (streams, stream):
        publishing = asyncio.create_task(streams.publish_atomic(several("s.a", "s.b")))
        await asyncio.sleep(0)
        publishing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await publishing
        messages, last = await count(stream)
        assert messages == last
        assert last in {0, 2}
