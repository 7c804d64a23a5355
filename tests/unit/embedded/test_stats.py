"""Every number of `EngineStats` is a true one."""

import asyncio

import pytest

from headrace import embedded
from headrace.embedded import Durability, EmbeddedOptions
from headrace.streams.config import ConsumerConfig, RetentionPolicy, StreamConfig, StreamMessage
from headrace.testing.virtual import virtual_time
from tests.unit.embedded.reading import pull, reader, stream_of


@virtual_time
async def test_messages_and_bytes_are_those_of_the_streams():
    async with embedded.open(":memory:") as streams:
        stream = await streams.create_stream(StreamConfig(name="S", subjects=["s.>"], max_message_size=50))
        before = streams.stats()
        assert (before.messages, before.bytes) == (0, 0)
        await streams.publish("s.a", b"x", headers={"a": "b"}, msg_id="1")
        await streams.publish("s.a", b"x", msg_id="1")
        many = [
            StreamMessage("s.b", b"y", msg_id="2"),
            StreamMessage("s.b", b"y" * 99),
            StreamMessage("s.b", b"", {}, "2"),
        ]
        await streams.publish_many([*many, StreamMessage("elsewhere", b"")])
        state, stats = (await stream.info()).state, streams.stats()
        assert (stats.messages, stats.bytes) == (state.messages, state.bytes) == (2, state.bytes)


@virtual_time
async def test_what_nobody_wants_is_not_stored():
    async with embedded.open(":memory:") as streams:
        await streams.create_stream(StreamConfig(name="S", retention=RetentionPolicy.INTEREST))
        await streams.publish("S", b"x")
        assert (streams.stats().messages, streams.stats().bytes) == (0, 0)


def test_commits_and_their_syncs(tmp_path):
    async def run():
        async with embedded.open(tmp_path / "store") as streams:
            stream = await streams.create_stream(StreamConfig(name="S"))
            await streams.publish("S", b"x")
            before = streams.stats()
            for _ in range(5):
                await streams.publish("S", b"x")
            await stream.info()
            after = streams.stats()
            assert after.commits - before.commits == 5
            assert 0 < after.fsync_us.mean <= after.fsync_us.max
            assert after.wal_bytes > before.wal_bytes > 0

    asyncio.run(run())


@virtual_time
async def test_syncs_in_between(tmp_path):
    options = EmbeddedOptions(durability=Durability.RELAXED)
    async with embedded.open(tmp_path / "store", options=options) as streams:
        await streams.create_stream(StreamConfig(name="S"))
        before = streams._store.syncs.count
        for _ in range(5):
            await streams.publish("S", b"x")
        assert streams._store.syncs.count == before
        await asyncio.sleep(0.1)
        assert streams._store.syncs.count == before + 1


@virtual_time
async def test_pending_bytes():
    async with stream_of() as (streams, _):
        waiting = [asyncio.ensure_future(streams.publish("s.a", b"x" * 100)) for _ in range(3)]
        await asyncio.sleep(0)
        assert streams.stats().pending_bytes == 300
        await asyncio.gather(*waiting)
        assert streams.stats().pending_bytes == 0


@pytest.mark.parametrize("policy", ["explicit", "all"])
@virtual_time
async def test_ack_buffer(policy):
    async with stream_of(5) as (streams, stream):
        _, session = await reader(stream, ack_policy=policy, ack_wait=1.0)
        messages = await pull(session)
        assert streams.stats().ack_buffer == 0
        for message in messages[:2]:
            await message.ack()
        assert streams.stats().ack_buffer == (2 if policy == "explicit" else 1)
        await asyncio.sleep(0.1)
        assert streams.stats().ack_buffer == 0
        await messages[2].ack()
        assert streams.stats().ack_buffer == 1
        await messages[3].nak()
        await session.flush()
        assert streams.stats().ack_buffer == 0
        again = await pull(session)
        await again[0].ack()
        assert streams.stats().ack_buffer == 1
        await session.aclose()
        assert streams.stats().ack_buffer == 0


@virtual_time
async def test_late_settles_outlive_their_session():
    async with stream_of(3) as (streams, stream):
        _, session = await reader(stream, ack_wait=1.0)
        messages = await pull(session)
        await messages[0].ack()
        await asyncio.sleep(2)
        for message in messages[1:]:
            await message.ack()
        await session.aclose()
        assert streams.stats().late_settles == 2


def test_wakeups(tmp_path):
    """What another member commits is heard of; what this one commits is not."""

    async def run():
        async with embedded.open(tmp_path / "store") as one, embedded.open(tmp_path / "store") as two:
            await one.create_stream(StreamConfig(name="S"))
            members = one._room.consumers.shared.members
            for _ in range(100):
                if members._peers:
                    break
                await asyncio.sleep(0.02)
            before, own = two.stats().wakeups, one.stats().wakeups
            await one.publish("S", b"x")
            for _ in range(100):
                if two.stats().wakeups > before:
                    break
                await asyncio.sleep(0.02)
            assert two.stats().wakeups > before
            assert one.stats().wakeups == own
            stream = await two.stream("S")
            consumer = await stream.create_consumer(ConsumerConfig(durable="c"))
            assert (await consumer.info()).num_pending == 1

    asyncio.run(run())
