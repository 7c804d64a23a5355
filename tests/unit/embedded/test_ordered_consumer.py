"""Everything once, in order; a deleted consumer is made anew and nothing is lost (jetstream.md 3.7)."""

import asyncio

from headrace.streams.config import OrderedConsumerConfig
from headrace.testing.virtual import virtual_time
from tests.unit.embedded.reading import fill, seqs, stream_of


@virtual_time
async def test_survives_the_loss_of_its_consumer():
    async with stream_of(4) as (streams, stream):
        consumer = await stream.ordered_consumer(OrderedConsumerConfig())
        seen = []
        async with consumer.messages() as messages:
            async for message in messages:
                seen += seqs([message])
                if len(seen) == 2:
                    await stream.delete_consumer(consumer.name)
                    await fill(streams, 2)
                if len(seen) == 6:
                    break
        assert seen == [1, 2, 3, 4, 5, 6]


@virtual_time
async def test_goes_on_behind_the_last_one():
    async with stream_of(5) as (_, stream):
        consumer = await stream.ordered_consumer(OrderedConsumerConfig(filter_subjects=["s.a"]))
        assert seqs(await consumer.fetch(2, max_wait=1)) == [1, 2]
        await asyncio.sleep(1000)
        assert seqs(await consumer.fetch(5, max_wait=1)) == [3, 4, 5]


@virtual_time
async def test_drained_left_and_read_on():
    async with stream_of(5) as (_, stream):
        consumer = await stream.ordered_consumer(OrderedConsumerConfig())
        async with consumer.messages() as messages:
            assert seqs([await messages.next(timeout=1)]) == [1]
            await messages.drain()
        assert seqs(await consumer.fetch(5, max_wait=1)) == [2, 3, 4, 5]
