"""One consumer, several processes: shared without loss, woken, handed over, ended (3.7, 3.6.16)."""

import asyncio
import signal
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from headrace import embedded
from headrace.streams.config import ConsumerConfig, StreamConfig
from headrace.streams.errors import ConsumerDeletedError
from headrace.streams.options import StreamMessage
from headrace.streams.session import SessionOptions
from tests.children import child, line

MEMBER = Path(__file__).with_name("member.py")


@asynccontextmanager
async def store(path, **config):
    async with embedded.open(path) as streams:
        stream = await streams.create_stream(StreamConfig(name="S", subjects=["s"]))
        await stream.create_consumer(ConsumerConfig(durable="c", max_ack_pending=None, **config))
        yield streams, stream


async def publish(streams, count):
    await streams.publish_many([StreamMessage("s", b"%d" % number) for number in range(count)])


def test_group_shares_without_loss_or_double_lease(tmp_path):
    async def run():
        got = []

        async def read(process):
            while (words := await line(process)) != ["closed"]:
                got.append((int(words[1]), int(words[2])))

        async with store(tmp_path / "d") as (streams, stream):
            async with child(MEMBER, tmp_path / "d", "share") as one, child(MEMBER, tmp_path / "d", "share") as two:
                reading = [asyncio.create_task(read(process)) for process in (one, two)]
                for _ in range(20):
                    await publish(streams, 50)
                    await asyncio.sleep(0.02)
                for _ in range(200):
                    if len(got) >= 1000:
                        break
                    await asyncio.sleep(0.05)
                for process in (one, two):
                    process.stdin.write(b"stop\n")
                await asyncio.gather(*reading)
            info = await (await stream.consumer("c")).info()
            assert (info.num_pending, info.num_ack_pending, info.ack_floor.stream) == (0, 0, 1000)
        assert sorted(got) == [(number, 1) for number in range(1, 1001)]

    asyncio.run(run())


def test_member_killed_returns_at_once_before_new(tmp_path):
    async def run():
        async with store(tmp_path / "d", ack_wait=60) as (streams, stream):
            await publish(streams, 5)
            async with child(MEMBER, tmp_path / "d", "hold") as holder:
                assert await line(holder) == ["holds", "1", "2", "3"]
                session = (await stream.consumer("c")).session(SessionOptions())
                await asyncio.sleep(0.3)
                holder.send_signal(signal.SIGKILL)
                await holder.wait()
                messages = []
                while len(messages) < 5:
                    messages += (pulled := await session.pull(5, 5))
                    assert pulled, "within seconds, not after the ack wait of a minute"
                seen = [(each.metadata.sequence.stream, each.metadata.num_delivered) for each in messages]
                assert seen == [(1, 2), (2, 2), (3, 2), (4, 1), (5, 1)]
                for message in messages:
                    await message.ack()

    asyncio.run(run())


def test_a_claim_that_fails_does_not_bury_what_a_killed_member_held(tmp_path):
    """The first claim that finds it dead is rolled back: whoever comes next must find it dead too."""

    async def run():
        async with store(tmp_path / "d", ack_wait=600) as (streams, stream), embedded.open(tmp_path / "d") as other:
            deleted = (await stream.create_consumer(ConsumerConfig(durable="deleted"))).session(SessionOptions())
            await publish(streams, 4)
            async with child(MEMBER, tmp_path / "d", "hold") as holder:
                assert await line(holder) == ["holds", "1", "2", "3"]
                await asyncio.sleep(0.3)
                await other.delete_consumer("S", "deleted")
                holder.kill()
                await holder.wait()
                with pytest.raises(ConsumerDeletedError):
                    await deleted.pull(1, 1)
                session = (await stream.consumer("c")).session(SessionOptions())
                assert [each.metadata.sequence.stream for each in await session.pull(4, 1)] == [1, 2, 3, 4]
                await asyncio.sleep(0.6)
                assert len(list((tmp_path / "d" / "wake").glob("*.lock"))) == 2  # it is buried in the end

    asyncio.run(run())


def test_a_restart_after_a_kill_keeps_the_order(tmp_path):
    async def run():
        async with store(tmp_path / "d", ack_wait=60) as (streams, _):
            await publish(streams, 4)
        async with child(MEMBER, tmp_path / "d", "hold") as holder:
            assert await line(holder) == ["holds", "1", "2", "3"]
        async with embedded.open(tmp_path / "d") as streams:
            session = (await streams.consumer("S", "c")).session(SessionOptions())
            assert [each.metadata.sequence.stream for each in await session.pull(9, 1)] == [1, 2, 3, 4]

    asyncio.run(run())


def test_wake_up(tmp_path):
    async def run():
        async with store(tmp_path / "d") as (streams, _), child(MEMBER, tmp_path / "d", "wait") as waiter:
            assert await line(waiter) == ["parked"]
            await asyncio.sleep(0.6)
            await publish(streams, 1)
            assert await line(waiter) == ["got", "1"]
            assert await line(waiter) == ["woken"]
            assert await line(waiter) == ["closed"]

    asyncio.run(run())


def test_wake_up_without_sockets(tmp_path):
    async def run():
        async with store(tmp_path / "d") as (streams, _), child(MEMBER, tmp_path / "d", "wait", "deaf") as waiter:
            assert await line(waiter) == ["parked"]
            await asyncio.sleep(0.6)
            await publish(streams, 1)
            assert await line(waiter) == ["got", "1"]
            assert await line(waiter) == ["polled"]

    asyncio.run(run())


def test_delete_consumer_ends_foreign_pull(tmp_path):
    async def run():
        async with store(tmp_path / "d") as (streams, stream):
            for delete, wanted in (
                (lambda: stream.delete_consumer("c"), {"ConsumerDeletedError"}),
                (lambda: streams.delete_stream("S"), {"StreamNotFoundError", "ConsumerDeletedError"}),
            ):
                async with child(MEMBER, tmp_path / "d", "wait") as waiter:
                    assert await line(waiter) == ["parked"]
                    await asyncio.sleep(0.4)
                    await delete()
                    (said,) = await line(waiter)
                    assert said in wanted
                if wanted == {"ConsumerDeletedError"}:
                    await stream.create_consumer(ConsumerConfig(durable="c"))

    asyncio.run(run())


def test_a_long_path(tmp_path):
    async def run():
        path = tmp_path / ("long" * 40) / "d"
        path.parent.mkdir()
        async with store(path) as (streams, _):
            assert streams._room.consumers.shared.members._socket is not None
            async with child(MEMBER, path, "wait") as waiter:
                assert await line(waiter) == ["parked"]
                await asyncio.sleep(0.6)
                await publish(streams, 1)
                assert await line(waiter) == ["got", "1"]
                assert await line(waiter) == ["woken"]

    asyncio.run(run())
