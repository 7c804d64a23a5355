"""A consumer in memory lives until the last process closes the store (`memory_storage`)."""

import asyncio

from headrace import embedded
from headrace.streams.config import ConsumerConfig, RetentionPolicy, StreamConfig
from headrace.streams.session import SessionOptions
from headrace.testing.virtual import virtual_time

IN_MEMORY = ConsumerConfig(durable="memory", memory_storage=True)


async def names(streams):
    return [name async for name in (await streams.stream("S")).consumer_names()]


@virtual_time
async def test_dropped_with_the_last_member(tmp_path):
    path = tmp_path / "store"
    async with embedded.open(path) as one:
        stream = await one.create_stream(StreamConfig(name="S", retention=RetentionPolicy.INTEREST))
        await stream.create_consumer(ConsumerConfig(durable="kept"))
        memory = await stream.create_consumer(IN_MEMORY)
        await one.publish("S", b"x")
        session = (await stream.consumer("kept")).session(SessionOptions())
        for msg in await session.pull(1, 1):
            await msg.double_ack()
        assert (await memory.info()).config.memory_storage
        two = await embedded.opened(path)
    async with two:
        assert await names(two) == ["kept", "memory"]
        async with embedded.open(path) as three:
            assert await names(three) == ["kept", "memory"]
    await asyncio.sleep(1)
    async with embedded.open(path) as one:
        assert await names(one) == ["kept"]
        assert (await (await one.stream("S")).info()).state.messages == 0
