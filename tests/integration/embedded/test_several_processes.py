"""One consumer, several processes: shared without loss, woken, handed over, ended (3.7, 3.6.16)."""

import asyncio
import os
import signal
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import headrace
from headrace import embedded
from headrace.streams.config import ConsumerConfig, StreamConfig
from headrace.streams.errors import ConsumerDeletedError
from headrace.streams.options import StreamMessage
from headrace.streams.session import SessionOptions

MEMBER = str(Path(__file__).with_name("member.py"))
SOURCE = str(Path(headrace.__file__).parents[1])


@asynccontextmanager
async def store(path, **config):
    async with embedded.open(path) as streams:
        stream = await streams.create_stream(StreamConfig(name="S", subjects=["s"]))
        await stream.create_consumer(ConsumerConfig(durable="c", max_ack_pending=None, **config))
        yield streams, stream


@asynccontextmanager
async def member(path, what, *further):
    process = await asyncio.create_subprocess_exec(
        sys.executable, MEMBER, str(path), what, *further,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": SOURCE},
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        process.stdin.close()
        await process.wait()
        # the transport closes its pipes in the turns after
        await asyncio.sleep(0.05)


async def line(process):
    return (await asyncio.wait_for(process.stdout.readline(), 20)).decode().split()


async def publish(streams, count):
    await streams.publish_many([StreamMessage("s", b"%d" % number) for number in range(count)])


def test_group_shares_without_loss_or_double_lease(tmp_path):
    async def run():
        got = []

        async def read(process):
            while (words := await line(process)) != ["closed"]:
                got.append((int(words[1]), int(words[2])))

        async with store(tmp_path / "d") as (streams, stream):
            async with member(tmp_path / "d", "share") as one, member(tmp_path / "d", "share") as two:
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
            async with member(tmp_path / "d", "hold") as holder:
                assert await line(holder) == ["holds", "1", "2", "3"]
                session = (await stream.consumer("c")).session(SessionOptions())
                await asyncio.sleep(0.3)
                holder.send_signal(signal.SIGKILL)
                await holder.wait()
                begun = time.monotonic()
                messages = []
                while len(messages) < 5:
                    messages += await session.pull(5, 5)
                seen = [(each.metadata.sequence.stream, each.metadata.num_delivered) for each in messages]
                assert seen == [(1, 2), (2, 2), (3, 2), (4, 1), (5, 1)]
                assert time.monotonic() - begun < 1
                for message in messages:
                    await message.ack()

    asyncio.run(run())


def test_a_claim_that_fails_does_not_bury_what_a_killed_member_held(tmp_path):
    """The first claim that finds it dead is rolled back: whoever comes next must find it dead too."""

    async def run():
        async with store(tmp_path / "d", ack_wait=600) as (streams, stream), embedded.open(tmp_path / "d") as other:
            deleted = (await stream.create_consumer(ConsumerConfig(durable="deleted"))).session(SessionOptions())
            await publish(streams, 4)
            async with member(tmp_path / "d", "hold") as holder:
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
        async with member(tmp_path / "d", "hold") as holder:
            assert await line(holder) == ["holds", "1", "2", "3"]
        async with embedded.open(tmp_path / "d") as streams:
            session = (await streams.consumer("S", "c")).session(SessionOptions())
            assert [each.metadata.sequence.stream for each in await session.pull(9, 1)] == [1, 2, 3, 4]

    asyncio.run(run())


def test_wake_up(tmp_path):
    async def run():
        async with store(tmp_path / "d") as (streams, _), member(tmp_path / "d", "wait") as waiter:
            assert await line(waiter) == ["parked"]
            await asyncio.sleep(0.6)
            begun = time.monotonic()
            await publish(streams, 1)
            assert await line(waiter) == ["got", "1"]
            assert time.monotonic() - begun < 0.2
            assert await line(waiter) == ["closed"]

    asyncio.run(run())


def test_wake_up_without_sockets(tmp_path):
    async def run():
        async with store(tmp_path / "d") as (streams, _), member(tmp_path / "d", "wait", "deaf") as waiter:
            assert await line(waiter) == ["parked"]
            await asyncio.sleep(0.6)
            begun = time.monotonic()
            await publish(streams, 1)
            assert await line(waiter) == ["got", "1"]
            assert time.monotonic() - begun < 0.6

    asyncio.run(run())


def test_delete_consumer_ends_foreign_pull(tmp_path):
    async def run():
        async with store(tmp_path / "d") as (streams, stream):
            for delete, wanted in (
                (lambda: stream.delete_consumer("c"), {"ConsumerDeletedError"}),
                (lambda: streams.delete_stream("S"), {"StreamNotFoundError", "ConsumerDeletedError"}),
            ):
                async with member(tmp_path / "d", "wait") as waiter:
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
            async with member(path, "wait") as waiter:
                assert await line(waiter) == ["parked"]
                await asyncio.sleep(0.6)
                begun = time.monotonic()
                await publish(streams, 1)
                assert await line(waiter) == ["got", "1"]
                assert time.monotonic() - begun < 0.2

    asyncio.run(run())
