"""The logs stay below 64 MiB while publishing goes on, also beside a reader, and shrink when nobody holds them."""

import asyncio

import apsw
import pytest

from headrace import embedded
from headrace.embedded import Durability, EmbeddedOptions
from headrace.streams.config import ConsumerConfig, PurgeOptions, StreamConfig
from headrace.streams.session import SessionOptions

MIB = 1 << 20
MOST = 64 * MIB


async def load(streams, megabytes, publishers=20):
    """Publish so many megabytes; the largest log seen."""
    largest = 0

    async def one():
        nonlocal largest
        for _ in range(megabytes * 10 // publishers):
            await streams.publish("S", b"x" * 100_000)
            largest = max(largest, streams.stats().wal_bytes)

    await asyncio.gather(*(one() for _ in range(publishers)))
    return largest


@pytest.mark.parametrize("durability", list(Durability))
def test_wal_stays_bounded(tmp_path, durability):
    async def run():
        async with embedded.open(tmp_path / "store", options=EmbeddedOptions(durability=durability)) as streams:
            stream = await streams.create_stream(StreamConfig(name="S", max_messages=100))
            consumer = await stream.create_consumer(ConsumerConfig(durable="c", ack_policy="none"))
            session = consumer.session(SessionOptions())

            async def consume():
                while True:
                    await session.pull(50, 0.05)

            consuming = asyncio.create_task(consume())
            largest = await load(streams, 150)
            consuming.cancel()
            await asyncio.gather(consuming, return_exceptions=True)
            await session.aclose()
            assert 0 < largest < MOST

    asyncio.run(run())


def test_it_shrinks_after_a_reader_has_held_it(tmp_path):
    async def run():
        path = tmp_path / "store"
        async with embedded.open(path) as streams:
            stream = await streams.create_stream(StreamConfig(name="S"))
            await streams.publish("S", b"x")
            reader = apsw.Connection(str(path / "streams.db"), flags=apsw.SQLITE_OPEN_READONLY)
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM stream").fetchall()
            assert await load(streams, 80) > MOST
            reader.close()
            await stream.purge(PurgeOptions(keep=1))
            for _ in range(200):
                await streams.publish("S", b"x")
                if (path / "streams.db-wal").stat().st_size < MOST:
                    break
                await asyncio.sleep(0.02)
            assert (path / "streams.db-wal").stat().st_size < MOST
            assert (await streams.verify()).ok

    asyncio.run(run())
