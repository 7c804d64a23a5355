"""A stopped process (SIGSTOP) with leases, or in the write turn: the others go on or fail in time, nothing is lost."""

import asyncio
import fcntl
import os
import signal
from contextlib import nullcontext
from pathlib import Path

import pytest

from headrace import embedded
from headrace.core.errors import BrokerTimeoutError, PublishError, PublishTimeoutError
from headrace.embedded import EmbeddedOptions, StoreLockedError
from headrace.streams.config import ConsumerConfig, StreamConfig
from headrace.streams.options import StreamMessage
from headrace.streams.session import SessionOptions
from tests.children import child, line
from tests.faults.court import Court

STOPPED = Path(__file__).with_name("stopped.py")
HASTY = EmbeddedOptions(timeout=1, reserve_bytes=0)


async def stop(process):
    process.send_signal(signal.SIGSTOP)
    while Path(f"/proc/{process.pid}/stat").read_text().rsplit(") ", 1)[1][0] != "T":
        await asyncio.sleep(0.005)


async def made(path):
    async with embedded.open(path, options=HASTY) as streams:
        stream = await streams.create_stream(StreamConfig(name="S"))
        await stream.create_consumer(ConsumerConfig(durable="c", ack_wait=3))


def sequences(messages):
    return [(each.metadata.sequence.stream, each.metadata.num_delivered) for each in messages]


def test_sigstop_with_leases(tmp_path):
    """Its leases run out elsewhere, and its late acks after SIGCONT neither lose nor repeat anything."""

    async def run():
        path = tmp_path / "d"
        await made(path)
        async with embedded.open(path) as streams, child(STOPPED, path, "lease") as process:
            for number in range(4):
                await streams.publish("S", b"%d" % number)
            assert await line(process) == ["holds", "1", "2", "3"]
            await stop(process)
            session = (await streams.consumer("S", "c")).session(SessionOptions())
            got = []
            while len(got) < 4:
                got += await session.pull(4, 10)
                if len(got) == 1:  # the one that nobody held; it is not to run out beside the others
                    await got[0].ack()
            assert sorted(sequences(got)) == [(1, 2), (2, 2), (3, 2), (4, 1)]
            process.send_signal(signal.SIGCONT)
            process.stdin.write(b"go on\n")
            assert await line(process) == ["late", "3"]
            assert await line(process) == ["closed"]
            for message in got[1:]:
                await message.ack()
            await session.flush()
            info = await (await streams.consumer("S", "c")).info()
            assert (info.ack_floor.stream, info.num_ack_pending, info.num_pending) == (4, 0, 0)
            assert await session.pull(1, 3.5) == []

    asyncio.run(run())


@pytest.mark.parametrize("file", ["streams", "consumers"])
def test_sigstop_in_the_write_turn(tmp_path, file):
    """Who waits for it fails after `timeout` with an error that names it, closing included; SIGCONT loses nothing."""
    path, acknowledged = tmp_path / "d", {}

    async def run():
        await made(path)
        async with child(STOPPED, path, file) as process:
            waiting = await embedded.opened(path, options=HASTY)
            acknowledged[(await waiting.publish("S", b"mine")).sequence] = "mine"
            (said, sequence), inside = await line(process), await line(process)
            assert (said, inside) == ("P", ["inside"])
            acknowledged[int(sequence)] = "before"
            await stop(process)
            await (publishes_wait if file == "streams" else pulls_wait)(waiting, process.pid)
            await closes(waiting, process.pid if file == "consumers" else None)
            process.send_signal(signal.SIGCONT)
            assert [await line(process), await line(process)] == [["done"], ["closed"]]
        async with embedded.open(path, options=HASTY) as streams:
            acknowledged[(await streams.publish("S", b"after")).sequence] = "after"
            bodies = [each.data for each in await (await streams.stream("S")).read()]
            assert (b"behind" in bodies) == (file == "streams"), "what the stopped one was to publish"
            session = (await streams.consumer("S", "c")).session(SessionOptions())
            got = []
            while len(got) < len(bodies):
                found = await session.pull(9, 5)
                assert found
                got += found
            await session.aclose()

    asyncio.run(run())
    with Court() as court:
        assert court.judge(path, acknowledged) == []


def test_sigstop_of_who_is_next(tmp_path):
    """Stopped while it waited for its turn, it is named too: nobody writes, and nobody can."""

    async def run():
        path = tmp_path / "d"
        await made(path)
        async with embedded.open(path, options=HASTY) as streams, child(STOPPED, path, "lease") as process:
            await streams.publish_many([StreamMessage("S", b"%d" % number) for number in range(3)])
            assert await line(process) == ["holds", "1", "2", "3"]
            lock = os.open(path / "locks" / "consumers.write", os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                process.stdin.write(b"go on\n")  # its acks are behind us now
                while not is_taken(path / "locks" / "consumers.next"):
                    await asyncio.sleep(0.005)
                await stop(process)
            finally:
                os.close(lock)
            session = (await streams.consumer("S", "c")).session(SessionOptions())
            with pytest.raises(StoreLockedError, match=f"process {process.pid} "):
                await session.pull(1, 0.1)
            process.send_signal(signal.SIGCONT)
            assert (await line(process))[0] == "late"
            assert await line(process) == ["closed"]

    asyncio.run(run())


def is_taken(path):
    lock = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


async def publishes_wait(streams, pid):
    with pytest.raises(PublishTimeoutError, match=f"process {pid} "):
        await streams.publish("S", b"late")
    (result,) = await streams.publish_many([StreamMessage("S", b"late, too")])
    assert isinstance(result, PublishError)
    assert f"process {pid} " in str(result)
    with pytest.raises(BrokerTimeoutError, match=f"process {pid} "):
        await streams.create_stream(StreamConfig(name="T"))
    assert [each.data for each in await (await streams.stream("S")).read()][:1] == [b"mine"], "reading goes on"


async def pulls_wait(streams, pid):
    session = (await streams.consumer("S", "c")).session(SessionOptions())
    with pytest.raises(StoreLockedError, match=f"process {pid} "):
        await session.pull(1, 0.1)
    with pytest.raises(BrokerTimeoutError, match=f"process {pid} "):
        await (await streams.stream("S")).create_consumer(ConsumerConfig(durable="d"))
    assert (await streams.publish("S", b"goes on")).sequence > 1


async def closes(streams, pid):
    """It ends; where acks or leases could not be written it says so."""
    with nullcontext() if pid is None else pytest.raises(StoreLockedError, match=f"process {pid} "):
        await streams.aclose()
    await streams.aclose()
