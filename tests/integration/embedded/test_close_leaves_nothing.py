"""After closing no thread, task or descriptor is left, and what was accepted is there (see conftest.nothing_left)."""

import asyncio

import pytest

from headrace import connect, embedded
from headrace.core.errors import StoreError
from headrace.core.message import Message
from headrace.streams.config import ConsumerConfig, StreamConfig
from headrace.streams.session import SessionOptions


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


def test_each_session_hands_back_though_one_could_not_be_written(tmp_path):
    async def run():
        failing = []
        with pytest.raises(StoreError):
            async with embedded.open(tmp_path / "d") as streams:
                stream = await streams.create_stream(StreamConfig(name="S"))
                consumer = await stream.create_consumer(ConsumerConfig(durable="c", ack_wait=60))
                for number in range(4):
                    await streams.publish("S", b"%d" % number)
                for _ in range(2):
                    await consumer.session(SessionOptions(prefetch=1)).pull(1, 1)
                await streams._store.consumers.call(
                    lambda connection: connection.set_commit_hook(lambda: bool(failing and failing.pop()))
                )
                failing.append(True)
        async with embedded.open(tmp_path / "d") as streams:
            consumer = await (await streams.stream("S")).consumer("c")
            assert [message.data for message in await consumer.fetch(4, max_wait=1)] == [b"1", b"3"]

    asyncio.run(run())
