"""After closing no thread, task or descriptor is left, and what was accepted is there (see conftest.nothing_left)."""

import asyncio

from headrace import connect, embedded
from headrace.core.message import Message
from headrace.streams.config import StreamConfig


def test_what_was_accepted_is_stored(tmp_path):
    async def run():
        async with embedded.open(tmp_path / "store") as streams:
            await streams.create_stream(StreamConfig(name="S"))
            tasks = [asyncio.create_task(streams.publish("S", b"%d" % at)) for at in range(10)]
            await asyncio.sleep(0)
        acks = await asyncio.gather(*tasks)
        assert [ack.sequence for ack in acks] == list(range(1, 11))
        assert not list((tmp_path / "store").glob("*-wal"))

    asyncio.run(run())


def test_cancelled_publishes_leave_nothing_hanging(tmp_path):
    async def run():
        async with embedded.open(tmp_path / "store") as streams:
            stream = await streams.create_stream(StreamConfig(name="S"))
            tasks = [asyncio.create_task(streams.publish("S", b"%d" % at)) for at in range(100)]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            stored = {message.data for message in await stream.read()}
            assert {b"%d" % at for at in range(1, 100, 2)} <= stored
            assert sum(isinstance(result, asyncio.CancelledError) for result in results) == 50
            assert len(stored) == 50
            assert streams.stats().pending_bytes == 0

    asyncio.run(run())


def test_connect_closes_the_engine(tmp_path):
    async def run():
        async with connect(tmp_path / "store") as broker:
            assert (await broker.publish(Message(topic="orders.new", body=b"{}"))).position.value == 1
        broker = await connect(str(tmp_path / "store"))
        assert (await broker.publish(Message(topic="orders.new", body=b"{}"))).position.value == 2
        await broker.aclose()
        await broker.aclose()

    asyncio.run(run())
