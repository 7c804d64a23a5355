"""What comes again, and in which order (3.6.8, 3.6.9)."""

import asyncio

from headrace.core.delivery import RELEASE
from headrace.streams.session import SessionOptions
from headrace.testing.virtual import virtual_time
from tests.unit.embedded.reading import deliveries, fill, pull, reader, seqs, state, stream_of


@virtual_time
async def test_ack_wait_before_new_by_sequence():
    async with stream_of(6) as (_, stream):
        _, session = await reader(stream, ack_wait=10)
        messages = await pull(session, 4)
        await messages[1].ack()
        await asyncio.sleep(9.9)
        assert seqs(await pull(session, 1)) == [5]
        await asyncio.sleep(0.11)
        assert deliveries(await pull(session)) == [(1, 2), (3, 2), (4, 2), (6, 1)]


@virtual_time
async def test_naks_in_their_order():
    async with stream_of(5) as (_, stream):
        _, session = await reader(stream)
        messages = await pull(session, 4)
        for place in (2, 0, 3):
            await messages[place].nak()
        assert deliveries(await pull(session)) == [(3, 2), (1, 2), (4, 2), (5, 1)]


@virtual_time
async def test_redelivery_at_max_ack_pending():
    async with stream_of(5) as (_, stream):
        _, session = await reader(stream, max_ack_pending=2)
        messages = await pull(session)
        assert seqs(messages) == [1, 2]
        assert await pull(session) == []
        await messages[1].nak()
        assert seqs(await pull(session)) == [2]
        await messages[0].ack()
        assert seqs(await pull(session)) == [3]


@virtual_time
async def test_parked_pull_gets_what_falls_due():
    async with stream_of(1) as (_, stream):
        loop = asyncio.get_running_loop()
        _, session = await reader(stream, ack_wait=7)
        begun = loop.time()
        await pull(session)
        (message,) = await pull(session, 1, 60)
        assert 7 <= loop.time() - begun <= 7.05
        assert message.metadata.num_delivered == 2


@virtual_time
async def test_in_progress_and_keep():
    async with stream_of(3) as (_, stream):
        _, session = await reader(stream, ack_wait=10)
        one, two, three = await pull(session)
        await asyncio.sleep(8)
        await two.in_progress()
        await asyncio.sleep(3)
        assert [session.alive(each) for each in (one, two, three)] == [False, True, False]
        assert seqs(await pull(session)) == [1, 3]
        await asyncio.sleep(6)
        session.keep()
        await asyncio.sleep(8)
        assert await pull(session) == []
        await asyncio.sleep(3)
        assert sorted(seqs(await pull(session))) == [1, 2, 3]


@virtual_time
async def test_hand_back_comes_first_and_in_order():
    async with stream_of(6) as (_, stream):
        consumer, first = await reader(stream)
        await first.aclose()
        greedy = consumer.session(SessionOptions(prefetch=3))
        (message,) = await greedy.pull(1, 0)
        await greedy.aclose()
        second = consumer.session(SessionOptions())
        assert deliveries(await pull(second)) == [(2, 2), (3, 2), (4, 2), (5, 1), (6, 1)]
        assert greedy.late_settles == 0
        message.settle(RELEASE)
        await asyncio.sleep(0.1)
        assert deliveries(await pull(second)) == [(1, 2)]


@virtual_time
async def test_cancelled_pull_loses_nothing():
    async with stream_of(0) as (streams, stream):
        consumer, session = await reader(stream)
        for delay in range(8):
            task = asyncio.create_task(session.pull(10, 60))
            for _ in range(delay):
                await asyncio.sleep(0)
            publishing = asyncio.create_task(fill(streams, 2))
            for _ in range(delay):
                await asyncio.sleep(0)
            task.cancel()
            got = await asyncio.gather(task, return_exceptions=True)
            await publishing
            if not isinstance(got[0], BaseException):
                for message in got[0]:
                    await message.ack()
            while messages := await pull(session):
                for message in messages:
                    await message.ack()
        assert await state(consumer) == ((16, 16), (16, 16), 0, 0, 0)
