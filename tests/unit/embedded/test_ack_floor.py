"""The floor is a pair, and moves over settled messages (3.6.6, 3.6.7)."""

import asyncio

from headrace.streams.config import PurgeOptions
from headrace.testing.virtual import virtual_time
from tests.unit.embedded.reading import pull, reader, seqs, state, stream_of


@virtual_time
async def test_out_of_order():
    async with stream_of(5) as (_, stream):
        consumer, session = await reader(stream)
        messages = await pull(session, 4)
        assert await state(consumer) == ((4, 4), (0, 0), 4, 0, 1)
        await messages[2].ack()
        assert (await state(consumer))[1:3] == ((0, 0), 3)
        await messages[0].ack()
        assert (await state(consumer))[1:3] == ((1, 1), 2)
        await messages[1].term("no")
        assert (await state(consumer))[1:3] == ((3, 3), 1)
        await messages[3].ack()
        assert await state(consumer) == ((4, 4), (4, 4), 0, 0, 1)


@virtual_time
async def test_first_delivery_counts():
    async with stream_of(3) as (_, stream):
        consumer, session = await reader(stream)
        one, two = await pull(session, 2)
        await one.nak()
        again, three = await pull(session, 2)
        assert seqs([again, three]) == [1, 3]
        assert again.metadata.sequence.consumer == 3
        await again.ack()
        assert (await state(consumer))[:2] == ((4, 3), (1, 1))
        await two.ack()
        assert (await state(consumer))[:2] == ((4, 3), (3, 2))
        await three.ack()
        assert (await state(consumer))[:2] == ((4, 3), (4, 3))


@virtual_time
async def test_deleted_messages_leave():
    async with stream_of(5) as (_, stream):
        consumer, session = await reader(stream)
        messages = await pull(session, 3)
        await stream.delete_msg(1)
        await stream.delete_msg(4)
        assert await state(consumer) == ((3, 3), (1, 1), 2, 0, 1)
        await stream.purge(PurgeOptions())
        assert await state(consumer) == ((3, 3), (3, 3), 0, 0, 0)
        for message in messages:
            await message.ack()
        assert (await state(consumer))[2:] == (0, 0, 0)


@virtual_time
async def test_late_ack_settles_while_it_is_pending():
    async with stream_of(2) as (_, stream):
        consumer, session = await reader(stream)
        first, _ = await pull(session, 2)
        await first.nak()
        await pull(session, 1)
        late = session.late_settles
        second_view = first
        second_view.outcome = None
        await second_view.ack()
        assert (await state(consumer))[2] == 1
        assert session.late_settles == late


@virtual_time
async def test_survives_reopening(tmp_path):
    async with stream_of(4, path=tmp_path / "d") as (_, stream):
        consumer, session = await reader(stream)
        messages = await pull(session, 3)
        await messages[0].ack()
        await messages[2].ack()
        before = await state(consumer)
    async with stream_of(0, path=tmp_path / "d") as (_, stream):
        consumer, session = await reader(stream)
        assert await state(consumer) == before == ((3, 3), (1, 1), 1, 0, 1)
        assert seqs(await pull(session)) == [4]


@virtual_time
async def test_exhausted_messages_hold_the_floor_only_in_front_of_them():
    async with stream_of(5) as (_, stream):
        consumer, session = await reader(stream, max_deliver=1, ack_wait=10)
        one, two, three = await pull(session, 3)
        await two.nak()
        assert seqs(await pull(session, 1)) == [4]
        await one.ack()
        assert (await state(consumer))[1:3] == ((2, 2), 2), "over the exhausted one, to what is pending"
        two.outcome = None  # another view of the same delivery
        await two.ack()
        assert (await state(consumer))[1:3] == ((2, 2), 2)
        await three.ack()
        assert (await state(consumer))[1:3] == ((3, 3), 1)


@virtual_time
async def test_messages_are_exhausted_when_their_last_wait_ends():
    async with stream_of(3) as (_, stream):
        consumer, session = await reader(stream, max_deliver=2, ack_wait=10, max_ack_pending=3)
        one, two = await pull(session, 2)
        await two.nak()
        (again,) = await pull(session, 1)
        assert (await state(consumer))[1:3] == ((0, 0), 2)
        await asyncio.sleep(11)
        assert (await state(consumer))[1:3] == ((0, 0), 1), "the other one comes once more"
        await one.ack()
        assert (await state(consumer))[1:3] == ((3, 2), 0)
        await again.ack()
        assert (await state(consumer))[1:4] == ((3, 2), 0, 0)


@virtual_time
async def test_late_acks_before_the_next_pull_move_nothing():
    async with stream_of(2) as (_, stream):
        consumer, session = await reader(stream, max_deliver=1, ack_wait=10)
        messages = await pull(session)
        await asyncio.sleep(11)
        assert (await state(consumer))[:3] == ((2, 2), (0, 0), 0)
        for message in messages:
            await message.ack()
        assert (await state(consumer))[:3] == ((2, 2), (0, 0), 0)


@virtual_time
async def test_acks_in_time_move_the_floor_even_if_they_are_written_late():
    async with stream_of(2) as (_, stream):
        consumer, session = await reader(stream, max_deliver=1, ack_wait=10)
        messages = await pull(session)
        await asyncio.sleep(9.99)
        for message in messages:
            await message.ack()
        await asyncio.sleep(0.02)
        assert (await state(consumer))[:3] == ((2, 2), (2, 2), 0)


@virtual_time
async def test_late_outcomes_of_exhausted_messages_move_nothing():
    async with stream_of(2) as (_, stream):
        consumer, session = await reader(stream, max_deliver=1, ack_wait=10)
        one, two = await pull(session)
        await asyncio.sleep(11)
        assert await pull(session) == []
        await one.nak()
        await two.ack()
        assert (await state(consumer))[:3] == ((2, 2), (0, 0), 0)
