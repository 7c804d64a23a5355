"""Replay policy original: the gaps between stored messages are kept, whoever reads and however."""

import asyncio

import pytest

from headrace import embedded
from headrace.core.errors import UnsupportedError
from headrace.streams.config import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    OrderedConsumerConfig,
    ReplayPolicy,
    StreamConfig,
)
from headrace.streams.errors import ConsumerCreateError
from headrace.streams.options import PullOptions, StreamMessage
from headrace.streams.session import SessionOptions
from headrace.testing.virtual import virtual_time
from tests.unit.embedded.reading import deliveries, pull, reader, seqs, state, stream_of

ORIGINAL = ReplayPolicy.ORIGINAL
GAPS = (0, 0.3, 0.5, 0.1, 0.7)


async def played(streams, gaps=GAPS, subjects=("s.a",)):
    for place, gap in enumerate(gaps):
        await asyncio.sleep(gap)
        await streams.publish(subjects[place % len(subjects)])


async def times(session, count, wait=30.0):
    """Sequence and time, from the first pull on, of what comes one by one."""
    loop, found = asyncio.get_running_loop(), []
    begun = loop.time()
    while len(found) < count and (messages := await session.pull(count - len(found), wait)):
        found += [(message.metadata.sequence.stream, round(loop.time() - begun, 2)) for message in messages]
    return found


@virtual_time
async def test_gaps_are_kept():
    async with stream_of() as (streams, stream):
        await played(streams)
        await asyncio.sleep(100)
        consumer, session = await reader(stream, replay_policy=ORIGINAL)
        assert await times(session, 5) == [(1, 0), (2, 0.3), (3, 0.8), (4, 0.9), (5, 1.6)]
        assert (await state(consumer))[0] == (5, 5)


@virtual_time
async def test_a_gap_counts_from_the_delivery_before():
    async with stream_of() as (streams, stream):
        await played(streams, (0, 10, 10, 10))
        _, session = await reader(stream, replay_policy=ORIGINAL, ack_wait=3600)
        assert seqs(await pull(session, 9)) == [1]
        assert await pull(session, 9, 9) == []
        await asyncio.sleep(0.5)
        assert await times(session, 1) == [(2, 0.5)]
        await asyncio.sleep(60)
        assert await times(session, 2) == [(3, 0), (4, 10)], "late, and then in rhythm again: no burst"


@virtual_time
async def test_what_was_stored_together_comes_together():
    async with stream_of() as (streams, stream):
        for _ in range(2):
            await streams.publish_many([StreamMessage("s.a")] * 100)
            await asyncio.sleep(5)
        _, session = await reader(stream, replay_policy=ORIGINAL)
        counts, loop = {}, asyncio.get_running_loop()
        begun = loop.time()
        while sum(counts.values()) < 200:
            when = round(loop.time() - begun, 2)
            counts[when] = counts.get(when, 0) + len(await pull(session, 30 if when else 200, 0))
            await asyncio.sleep(0 if counts[when] % 100 else 1)
        assert counts[0.0] == 100
        assert counts[5.0] == 100


@virtual_time
async def test_filters_deletions_and_starts():
    async with stream_of() as (streams, stream):
        await played(streams, (0, 0.4, 0.4, 0.2, 0.3), ("s.a", "s.b"))
        _, only = await reader(stream, durable="only", replay_policy=ORIGINAL, filter_subject="s.a")
        assert await times(only, 3) == [(1, 0), (3, 0.8), (5, 1.3)]
        await stream.delete_msg(3)
        _, rest = await reader(stream, durable="rest", replay_policy=ORIGINAL)
        assert await times(rest, 4) == [(1, 0), (2, 0.4), (4, 1.0), (5, 1.3)]
        start = {"deliver_policy": DeliverPolicy.BY_START_SEQUENCE, "start_sequence": 2}
        _, late = await reader(stream, durable="late", replay_policy=ORIGINAL, **start)
        assert await times(late, 3) == [(2, 0), (4, 0.6), (5, 0.9)]
        newest = {"deliver_policy": DeliverPolicy.LAST_PER_SUBJECT, "filter_subject": ">"}
        _, last = await reader(stream, durable="last", replay_policy=ORIGINAL, **newest)
        assert await times(last, 2) == [(4, 0), (5, 0.3)]


@virtual_time
async def test_what_comes_while_it_waits_comes_at_once():
    async with stream_of() as (streams, stream):
        loop = asyncio.get_running_loop()
        _, session = await reader(stream, replay_policy=ORIGINAL)
        await played(streams, (0,))
        await asyncio.sleep(50)
        assert seqs(await pull(session)) == [1]
        loop.call_later(1, lambda: asyncio.ensure_future(played(streams, (0, 3))))
        assert await times(session, 2) == [(2, 1), (3, 4)]


@virtual_time
async def test_redelivery_keeps_its_own_time():
    async with stream_of() as (streams, stream):
        await played(streams, (0, 10))
        _, session = await reader(stream, replay_policy=ORIGINAL, ack_wait=4)
        (first,) = await pull(session)
        await first.nak()
        assert deliveries(await pull(session)) == [(1, 2)]
        assert await times(session, 3) == [(1, 4), (1, 8), (2, 10)]


@virtual_time
async def test_two_readers_share_one_rhythm():
    async with stream_of() as (streams, stream):
        await played(streams, (0, 1, 2, 3))
        consumer, session = await reader(stream, replay_policy=ORIGINAL, ack_policy=AckPolicy.NONE)
        other = consumer.session(SessionOptions())
        both = await asyncio.gather(times(session, 2), times(other, 2))
        assert sorted([*both[0], *both[1]]) == [(1, 0), (2, 1), (3, 3), (4, 6)]


@virtual_time
async def test_bounds_hold_and_the_rhythm_goes_on():
    async with stream_of() as (streams, stream):
        await played(streams, (0, 1, 1))
        _, session = await reader(stream, replay_policy=ORIGINAL, max_ack_pending=1)
        (first,) = await pull(session, 5)
        assert await pull(session, 5, 3) == []
        await first.ack()
        assert await times(session, 1) == [(2, 0)]


@virtual_time
async def test_all_ways_to_read():
    async with stream_of() as (streams, stream):
        await played(streams)
        loop = asyncio.get_running_loop()
        consumer, _ = await reader(stream, replay_policy=ORIGINAL)
        begun = loop.time()
        assert seqs(await consumer.fetch(2, max_wait=5)) == [1, 2]
        async with consumer.messages(PullOptions(stop_after=3)) as messages:
            assert seqs([message async for message in messages]) == [3, 4, 5]
        assert loop.time() - begun == pytest.approx(1.6, abs=0.01)
        begun = loop.time()
        ordered = await stream.ordered_consumer(OrderedConsumerConfig(replay_policy=ORIGINAL))
        assert seqs(await ordered.fetch(5, max_wait=5)) == [1, 2, 3, 4, 5]
        assert loop.time() - begun == pytest.approx(1.6, abs=0.01)


@virtual_time
async def test_no_wait_gives_what_is_due():
    async with stream_of() as (streams, stream):
        await played(streams, (0, 1))
        consumer, _ = await reader(stream, replay_policy=ORIGINAL)
        assert seqs(await consumer.fetch_no_wait(5)) == [1]
        assert seqs(await consumer.fetch_no_wait(5)) == []
        await asyncio.sleep(1)
        assert seqs(await consumer.fetch_no_wait(5)) == [2]


@virtual_time
async def test_survives_reopening(tmp_path):
    async with stream_of(path=tmp_path / "d") as (streams, stream):
        await played(streams, (0, 20))
        _, session = await reader(stream, replay_policy=ORIGINAL)
        (first,) = await pull(session)
        await first.double_ack()
    async with stream_of(path=tmp_path / "d") as (_, stream):
        session = (await stream.consumer("c")).session(SessionOptions())
        assert await pull(session, 1, 15) == []
        assert seqs(await pull(session, 1, 10)) == [2]


@virtual_time
async def test_it_is_for_good_and_leaves_nothing(tmp_path):
    async with embedded.open(tmp_path / "d") as streams:
        stream = await streams.create_stream(StreamConfig(name="S"))
        await streams.publish("S")
        consumer, session = await reader(stream, replay_policy=ORIGINAL)
        with pytest.raises(ConsumerCreateError):
            await stream.update_consumer(ConsumerConfig(durable="c"))
        await pull(session)
        await stream.delete_consumer("c")
        left = streams._store.glance(lambda connection: connection.execute("SELECT * FROM replay").fetchall())
        assert left == []
        with pytest.raises(UnsupportedError):
            await consumer.unpin("g")
