"""A pause, a resume and the rhythm of a replay hold in every process of the directory."""

import asyncio
import signal
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from headrace import embedded
from headrace.streams.config import ConsumerConfig, ReplayPolicy, StreamConfig
from headrace.streams.session import SessionOptions
from tests.children import child, line

MEMBER = Path(__file__).with_name("member.py")


@asynccontextmanager
async def store(path, **config):
    async with embedded.open(path) as streams:
        stream = await streams.create_stream(StreamConfig(name="S", subjects=["s"]))
        yield streams, await stream.create_consumer(ConsumerConfig(durable="c", **config))


def coming(seconds):
    return datetime.now(UTC) + timedelta(seconds=seconds)


def test_paused_and_resumed_by_another_process(tmp_path):
    async def run():
        async with store(tmp_path / "d") as (streams, consumer), child(MEMBER, tmp_path / "d", "wait") as reader:
            assert await line(reader) == ["parked"]
            await consumer.pause(coming(3600))
            await streams.publish("s")
            await asyncio.sleep(0.5)  # beyond the poll that would find what no datagram told
            info = await consumer.info()
            assert (info.paused, info.delivered.consumer) == (True, 0)
            await consumer.resume()
            assert await line(reader) == ["got", "1"]

    asyncio.run(run())


def test_a_pause_ends_by_itself_in_every_process(tmp_path):
    async def run():
        loop = asyncio.get_running_loop()
        async with store(tmp_path / "d") as (streams, consumer):
            await streams.publish("s")
            begun = loop.time()
            await consumer.pause(coming(1.5))
            async with child(MEMBER, tmp_path / "d", "wait") as reader:
                assert await line(reader) == ["parked"]
                assert await line(reader) == ["got", "1"]
                assert loop.time() - begun >= 1.4

    asyncio.run(run())


def test_the_rhythm_goes_on_where_another_process_was_killed(tmp_path):
    async def run():
        loop = asyncio.get_running_loop()
        async with store(tmp_path / "d", replay_policy=ReplayPolicy.ORIGINAL, max_deliver=1) as (streams, consumer):
            for gap in (0, 0, 0, 3):
                await asyncio.sleep(gap)
                await streams.publish("s")
            async with child(MEMBER, tmp_path / "d", "hold") as holder:
                assert await line(holder) == ["holds", "1", "2", "3"]
                begun = loop.time()
                holder.send_signal(signal.SIGKILL)
                await holder.wait()
            (last,) = await consumer.session(SessionOptions()).pull(1, 20)
            assert last.metadata.sequence.stream == 4
            assert loop.time() - begun >= 2.5, "counted from what the other process handed out"

    asyncio.run(run())
