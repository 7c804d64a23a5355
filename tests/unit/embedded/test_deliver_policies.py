"""Where a consumer begins (3.6.2, 3.6.3)."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from headrace.streams.config import ConsumerConfig, DeliverPolicy, PurgeOptions
from headrace.streams.errors import ConsumerConfigError
from headrace.streams.msg import time_of_ns
from headrace.testing.virtual import virtual_time
from tests.unit.embedded.reading import fill, pull, reader, seqs, state, stream_of


@virtual_time
async def test_all_new_last():
    async with stream_of(5) as (streams, stream):
        for policy, wanted, first in (
            (DeliverPolicy.ALL, [1, 2, 3, 4, 5, 6], 1),
            (DeliverPolicy.NEW, [6], 6),
            (DeliverPolicy.LAST, [5, 6], 5),
        ):
            consumer, session = await reader(stream, durable=policy.value, deliver_policy=policy)
            assert (await state(consumer))[:2] == ((0, first - 1), (0, first - 1))
            if policy is DeliverPolicy.ALL:
                await fill(streams, 0)
            await session.aclose()
            assert (await state(consumer))[4] == len(wanted) - 1
        await fill(streams, 1)
        for policy, wanted in (
            (DeliverPolicy.ALL, [1, 2, 3, 4, 5, 6]),
            (DeliverPolicy.NEW, [6]),
            (DeliverPolicy.LAST, [5, 6]),
        ):
            _, session = await reader(stream, durable=policy.value, deliver_policy=policy)
            assert seqs(await pull(session)) == wanted


@virtual_time
async def test_by_sequence_and_past_the_end():
    async with stream_of(5) as (streams, stream):
        policy = DeliverPolicy.BY_START_SEQUENCE
        _, session = await reader(stream, deliver_policy=policy, start_sequence=3)
        assert seqs(await pull(session)) == [3, 4, 5]
        consumer, session = await reader(stream, durable="far", deliver_policy=policy, start_sequence=9)
        assert (await state(consumer))[:2] == ((0, 8), (0, 8))
        await fill(streams, 6)
        assert seqs(await pull(session)) == [9, 10, 11]


@virtual_time
async def test_by_time():
    async with stream_of() as (streams, stream):
        for _ in range(4):
            await fill(streams, 1)
            await asyncio.sleep(10)
        start = time_of_ns(streams.clock.now_ns()) - timedelta(seconds=25)
        _, session = await reader(stream, deliver_policy=DeliverPolicy.BY_START_TIME, start_time=start)
        assert seqs(await pull(session)) == [3, 4]


@virtual_time
async def test_last_per_subject_is_frozen():
    async with stream_of() as (streams, stream):
        for subject in ("s.a", "s.b", "s.a", "s.c", "t"):
            if subject != "t":
                await streams.publish(subject, b"")
        consumer, session = await reader(stream, deliver_policy=DeliverPolicy.LAST_PER_SUBJECT, filter_subject="s.>")
        assert (await consumer.info()).num_pending == 3
        await streams.publish("s.b", b"")
        assert seqs(await pull(session, 2)) == [2, 3]
        assert (await consumer.info()).num_pending == 2
        assert seqs(await pull(session)) == [4, 5]
        with pytest.raises(ConsumerConfigError) as refused:
            await reader(stream, durable="d", deliver_policy=DeliverPolicy.LAST_PER_SUBJECT)
        assert refused.value.err_code == 10094


@virtual_time
async def test_filters():
    async with stream_of() as (streams, stream):
        for subject in ("s.a", "s.b", "s.c", "s.a", "s.b.x"):
            await streams.publish(subject, b"")
        consumer, session = await reader(stream, filter_subjects=["s.a", "s.b.*"])
        assert (await consumer.info()).num_pending == 3
        messages = await pull(session)
        assert seqs(messages) == [1, 4, 5]
        assert [message.metadata.num_pending for message in messages] == [2, 1, 0]
        for message in messages:
            await message.ack()
        assert await state(consumer) == ((3, 5), (3, 5), 0, 0, 0)
        consumer, session = await reader(stream, durable="none", filter_subject="elsewhere")
        assert await pull(session) == []
        assert (await consumer.info()).num_pending == 0


@virtual_time
async def test_last_per_subject_counts_what_it_chose():
    async with stream_of() as (streams, stream):
        for subject in ("s.a", "s.b", "s.c", "s.b"):
            await streams.publish(subject, b"")
        lasts = {"deliver_policy": DeliverPolicy.LAST_PER_SUBJECT, "filter_subject": "s.>"}
        consumer, session = await reader(stream, **lasts)
        (first,) = await pull(session, 1)
        assert (first.metadata.sequence.stream, first.metadata.num_pending) == (1, 2)
        await stream.delete_msg(3)
        await stream.delete_msg(4)
        assert (await state(consumer))[4] == 0
        assert await pull(session) == []
        assert (await state(consumer))[4] == 0, "passed over by the snapshot, so not before the consumer any more"
        await streams.publish("s.a", b"")
        assert (await state(consumer))[4] == 1
        (new,) = await pull(session)
        assert (new.metadata.sequence.stream, new.metadata.num_pending) == (5, 0)


@virtual_time
async def test_nothing_matches_yet():
    async with stream_of(5) as (streams, stream):
        for policy, begins in ((DeliverPolicy.LAST, 0), (DeliverPolicy.LAST_PER_SUBJECT, 5)):
            consumer, session = await reader(stream, durable=policy.value, deliver_policy=policy, filter_subject="s.b")
            assert (await state(consumer))[:2] == ((0, begins), (0, begins)), policy
            await streams.publish("s.b", b"")
            assert len(await pull(session)) == 1
            await stream.purge(PurgeOptions(subject="s.b"))


@virtual_time
async def test_what_last_per_subject_chose_stays_chosen_under_another_filter():
    """As nats-server 2.15.1 does (seen): what was chosen at creation is delivered, whatever the filter is now."""
    async with stream_of() as (streams, stream):
        for subject in ("s.a", "s.b") * 2:
            await streams.publish(subject)
        chosen = ConsumerConfig(durable="c", deliver_policy=DeliverPolicy.LAST_PER_SUBJECT, filter_subject="s.a")
        await stream.create_consumer(chosen)
        consumer = await stream.update_consumer(replace(chosen, filter_subject="s.b"))
        assert consumer.cached_info.num_pending == 1
        assert seqs(await consumer.fetch(5, max_wait=0.1)) == [3]
