"""The folder in which members find each other is deleted under them: it is made again, and nothing is taken away."""

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
