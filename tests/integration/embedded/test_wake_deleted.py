"""The folder in which members find each other is deleted under them: it is made again, and nothing is taken away."""

import asyncio
import shutil

from headrace import embedded
from headrace.streams.config import ConsumerConfig, StreamConfig
from headrace.streams.session import SessionOptions
from headrace.testing.virtual import virtual_time


@virtual_time
async def test_who_opens_next_does_not_get_what_a_living_member_holds(tmp_path):
    path = tmp_path / "store"
    async with embedded.open(path) as one:
        stream = await one.create_stream(StreamConfig(name="S"))
        consumer = await stream.create_consumer(ConsumerConfig(durable="c", ack_wait=30))
        await one.publish("S", b"x")
        held = await consumer.session(SessionOptions()).pull(1, 1)
        shutil.rmtree(path / "wake")
        async with embedded.open(path) as two:
            session = (await two.consumer("S", "c")).session(SessionOptions())
            assert await session.pull(1, 1) == []
            assert len(list((path / "wake").glob("*.lock"))) == 2
            assert [msg.metadata.num_delivered for msg in await session.pull(1, 60)] == [2]
        assert len(held) == 1


@virtual_time
async def test_a_strangers_file_among_the_members_is_no_member(tmp_path):
    path = tmp_path / "store"
    async with embedded.open(path) as streams:
        stream = await streams.create_stream(StreamConfig(name="S"))
        session = (await stream.create_consumer(ConsumerConfig(durable="c"))).session(SessionOptions())
        (path / "wake" / "notes.lock").write_text("not ours")
        await asyncio.sleep(1)
        await streams.publish("S", b"x")
        assert len(await session.pull(1, 1)) == 1
    assert (path / "wake" / "notes.lock").exists()
