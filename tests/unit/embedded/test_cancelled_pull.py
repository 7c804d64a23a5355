"""A pull that was cancelled while its claim was on its way: the next one gets what that brought, and at once."""

import asyncio

from headrace import embedded
from headrace.streams.config import ConsumerConfig, StreamConfig
from headrace.streams.session import SessionOptions
from headrace.testing.virtual import virtual_time


@virtual_time
async def test_the_next_pull_does_not_wait_beside_a_full_buffer():
    async with embedded.open(":memory:") as streams:
        stream = await streams.create_stream(StreamConfig(name="S"))
        session = (await stream.create_consumer(ConsumerConfig(durable="c"))).session(SessionOptions())
        for number in range(3):
            await streams.publish("S", b"%d" % number)
        cancelled = asyncio.create_task(session.pull(3, 10))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        began = asyncio.get_running_loop().time()
        assert [msg.data for msg in await session.pull(3, 100)] == [b"0", b"1", b"2"]
        assert asyncio.get_running_loop().time() == began
