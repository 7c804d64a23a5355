"""After n deliveries the advisory comes once, when a pull would make one more (3.6.11)."""

import asyncio

from headrace.embedded.advisories import MaxDeliveriesReached, MessageNaked, MessageTerminated
from headrace.testing.virtual import virtual_time
from tests.unit.embedded.reading import pull, reader, seqs, state, stream_of


@virtual_time
async def test_once_and_only_on_a_pull():
    seen = []
    async with stream_of(2, on_advisory=seen.append) as (_, stream):
        consumer, session = await reader(stream, ack_wait=1, max_deliver=2)
        first = await pull(session, 1)
        await asyncio.sleep(2)
        assert seqs(await pull(session, 1)) == [1]
        await asyncio.sleep(5)
        assert seen == []
        assert seqs(await pull(session)) == [2]
        (advisory,) = seen
        assert isinstance(advisory, MaxDeliveriesReached)
        assert (advisory.stream, advisory.consumer, advisory.stream_sequence, advisory.deliveries) == ("S", "c", 1, 2)
        assert await state(consumer) == ((3, 2), (0, 0), 1, 1, 0)
        await pull(session)
        assert len(seen) == 1
        await first[0].ack()
        assert (await state(consumer))[3] == 0


@virtual_time
async def test_a_parked_pull_counts():
    seen = []
    async with stream_of(1, on_advisory=seen.append) as (_, stream):
        _, session = await reader(stream, max_deliver=1)
        (message,) = await pull(session)
        parked = asyncio.create_task(pull(session, 1, 5))
        await asyncio.sleep(0.1)
        await message.nak()
        assert await parked == []
        assert [type(each) for each in seen] == [MessageNaked, MaxDeliveriesReached]


@virtual_time
async def test_term():
    seen = []
    async with stream_of(1, on_advisory=seen.append) as (_, stream):
        consumer, session = await reader(stream)
        (message,) = await pull(session)
        await message.term("poison")
        (advisory,) = seen
        assert isinstance(advisory, MessageTerminated)
        assert (advisory.reason, advisory.stream_sequence, advisory.consumer_sequence) == ("poison", 1, 1)
        assert await state(consumer) == ((1, 1), (1, 1), 0, 0, 0)
