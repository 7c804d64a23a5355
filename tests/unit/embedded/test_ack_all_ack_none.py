"""Ack all settles everything below; ack none has nothing pending (3.6.1, 3.6.7)."""

import asyncio

from headrace.streams.config import AckPolicy, RetentionPolicy
from headrace.testing.virtual import virtual_time
from tests.unit.embedded.reading import deliveries, pull, reader, seqs, state, stream_of


@virtual_time
async def test_ack_all():
    async with stream_of(8) as (_, stream):
        consumer, session = await reader(stream, ack_policy=AckPolicy.ALL, ack_wait=10)
        first = await pull(session, 3)
        second = await pull(session, 3)
        await second[1].ack()
        assert await state(consumer) == ((6, 6), (5, 5), 1, 0, 2)
        await first[2].ack()
        assert await state(consumer) == ((6, 6), (5, 5), 1, 0, 2)
        await asyncio.sleep(11)
        assert deliveries(await pull(session)) == [(6, 2), (7, 1), (8, 1)]


@virtual_time
async def test_ack_all_with_redeliveries():
    async with stream_of(4) as (_, stream):
        consumer, session = await reader(stream, ack_policy=AckPolicy.ALL, ack_wait=10)
        messages = await pull(session, 3)
        await messages[1].nak()
        (again,) = await pull(session, 1)
        assert deliveries([again]) == [(2, 2)]
        await again.ack()
        assert (await state(consumer))[:3] == ((4, 3), (4, 2), 1)


@virtual_time
async def test_ack_none():
    async with stream_of(3) as (_, stream):
        consumer, session = await reader(stream, ack_policy=AckPolicy.NONE)
        messages = await pull(session, 2)
        assert await state(consumer) == ((2, 2), (2, 2), 0, 0, 1)
        await messages[0].ack()
        await messages[1].nak()
        await asyncio.sleep(60)
        assert seqs(await pull(session)) == [3]
        assert session.held == 0


@virtual_time
async def test_ack_none_counts_what_it_deleted_by_its_delivery():
    async with stream_of(retention=RetentionPolicy.INTEREST) as (streams, stream):
        _, session = await reader(stream, ack_policy=AckPolicy.NONE, filter_subject="s.a")
        await reader(stream, durable="other", filter_subject="s.b")
        for subject in ("s.a", "s.b", "s.a", "s.a", "s.a"):
            await streams.publish(subject, b"")
        messages = await pull(session, 3)
        assert (await stream.info()).state.messages == 2, "one is the other's, and one is still to come"
        assert [message.metadata.num_pending for message in messages] == [3, 2, 1]


@virtual_time
async def test_ack_none_counts_its_deliveries_over_gaps():
    async with stream_of() as (streams, stream):
        for subject in ("s.a", "s.b", "s.b", "s.a"):
            await streams.publish(subject, b"")
        _, session = await reader(stream, ack_policy=AckPolicy.NONE, filter_subject="s.a")
        messages = await pull(session)
        assert [(each.metadata.sequence.stream, each.metadata.sequence.consumer) for each in messages] == [
            (1, 1),
            (4, 2),
        ]


@virtual_time
async def test_ack_all_floor_is_what_was_acknowledged():
    async with stream_of() as (streams, stream):
        for subject in ("s.a", "s.b", "s.a"):
            await streams.publish(subject, b"")
        consumer, session = await reader(stream, ack_policy=AckPolicy.ALL, filter_subject="s.a")
        (first,) = await pull(session, 1)
        await first.nak()
        again, last = await pull(session)
        assert (await state(consumer))[:2] == ((3, 3), (0, 0))
        await again.ack()
        assert (await state(consumer))[1] == (2, 1)
        await last.ack()
        assert (await state(consumer))[1] == (3, 3)
