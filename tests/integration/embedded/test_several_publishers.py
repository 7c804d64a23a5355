"""Publishing from several processes: in turn, and with one memory of ids; and a consumer that several keep alive."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from headrace import embedded
from headrace.streams.config import ConsumerConfig, RetentionPolicy, StreamConfig
from headrace.streams.errors import ConsumerNotFoundError
from headrace.streams.session import SessionOptions
from headrace.testing.virtual import virtual_time
from tests.children import child, line

PUBLISHER = Path(__file__).with_name("publisher.py")


def test_four_publishers_fair(tmp_path):
    async def run():
        async with embedded.open(tmp_path / "store") as streams, AsyncExitStack() as stack:
            stream = await streams.create_stream(StreamConfig(name="S"))
            four = [await stack.enter_async_context(child(PUBLISHER, tmp_path / "store", "flat")) for _ in range(4)]
            assert [await line(process) for process in four] == [["ready"]] * 4
            for process in four:
                process.stdin.write(b"go\n")
            while (await stream.info()).state.messages < 1_000:
                await asyncio.sleep(0.05)
            for process in four:
                process.stdin.write(b"stop\n")
            counts = [int((await line(process))[0]) for process in four]
            assert sum(counts) == (await stream.info()).state.messages
            assert min(counts) >= sum(counts) / 10, counts

    asyncio.run(run())


@pytest.mark.parametrize("retention", [RetentionPolicy.LIMITS, RetentionPolicy.WORKQUEUE])
def test_dedup_across_processes(tmp_path, retention):
    """Also when the first copy was acknowledged away."""

    async def run():
        async with embedded.open(tmp_path / "store") as streams:
            stream = await streams.create_stream(StreamConfig(name="S", retention=retention))
            consumer = await stream.create_consumer(ConsumerConfig(durable="c"))
            assert (await streams.publish("S", b"x", msg_id="ours")).sequence == 1
            async with child(PUBLISHER, tmp_path / "store", "ids", "ours", "theirs", "theirs") as process:
                said = [await line(process) for _ in range(3)]
                await process.wait()
            assert said == [["1", "True"], ["2", "False"], ["2", "True"]]
            session = consumer.session(SessionOptions())
            for msg in await session.pull(5, 5):
                await msg.double_ack()
            await session.aclose()
            assert (await stream.info()).state.messages == (0 if retention is RetentionPolicy.WORKQUEUE else 2)
            ack = await streams.publish("S", b"x", msg_id="theirs")
            assert (ack.sequence, ack.duplicate) == (2, True)
            async with child(PUBLISHER, tmp_path / "store", "ids", "ours", "new") as process:
                assert [await line(process) for _ in range(2)] == [["1", "True"], ["3", "False"]]
                await process.wait()

    asyncio.run(run())


@virtual_time
async def test_ephemeral_across_processes(tmp_path):
    """Who pulls keeps it alive for all members; when nobody does it is gone for all."""
    async with embedded.open(tmp_path / "store") as one, embedded.open(tmp_path / "store") as two:
        await one.create_stream(StreamConfig(name="S"))
        made = await one.create_consumer("S", ConsumerConfig(inactive_threshold=2.0))
        session = (await two.consumer("S", made.name)).session(SessionOptions())
        for _ in range(10):
            await session.pull(1, 0)
            await asyncio.sleep(1)
        assert (await one.consumer("S", made.name)).name == made.name
        await session.aclose()
        await asyncio.sleep(1.9)
        assert (await one.consumer("S", made.name)).name == made.name
        await asyncio.sleep(3.2)
        for streams in (one, two):
            with pytest.raises(ConsumerNotFoundError):
                await streams.consumer("S", made.name)
