"""Outcomes keep their order, and what they delete is deleted, also where another process stands in the way."""

import asyncio
import fcntl
import functools
import os
import threading
from contextlib import contextmanager

import pytest

from headrace import Message, Worker, connect, embedded
from headrace.core.errors import BrokerTimeoutError, PublishError
from headrace.embedded import EmbeddedOptions
from headrace.embedded.consumers.retention import remove_settled
from headrace.embedded.errors import StoreLockedError
from headrace.streams.config import ConsumerConfig, RetentionPolicy, StreamConfig, StreamMessage
from headrace.streams.session import SessionOptions

IMPATIENT = EmbeddedOptions(timeout=1)
JOBS = StreamConfig(name="J", subjects=["j"], retention=RetentionPolicy.WORKQUEUE)


def on_a_loop(test):
    """Runs an async test in real time: other processes have no virtual one."""

    @functools.wraps(test)
    def run(tmp_path):
        asyncio.run(test(tmp_path))

    return run


@contextmanager
def turn_of(path, name):
    """What a stopped process does: it has the turn to write, and does not give it back."""
    descriptor = os.open(path / "locks" / f"{name}.write", os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


async def session_of(streams, **config):
    stream = await streams.create_stream(JOBS)
    for number in range(4):
        await streams.publish("j", b"%d" % number)
    return stream, (await stream.create_consumer(ConsumerConfig(durable="c", **config))).session(SessionOptions())


async def until(question):
    """True once it holds, within ten seconds."""
    for _ in range(200):
        if await question():
            return True
        await asyncio.sleep(0.05)
    return False


@on_a_loop
async def test_no_nak_is_lost_when_two_flushes_fail(tmp_path):
    async with embedded.open(tmp_path / "d", options=IMPATIENT) as streams:
        stream, session = await session_of(streams)
        messages = await session.pull(4, 1)
        with turn_of(tmp_path / "d", "consumers"):
            await messages[0].nak()
            await asyncio.sleep(0.01)  # handed over, and stuck
            await messages[1].nak()
            with pytest.raises(StoreLockedError):
                await session.flush()
        again = []

        async def came():
            again.extend(msg.data for msg in await session.pull(4, 0))
            return len(again) == 2

        assert await until(came), f"only {again} came again"
        assert again == [b"0", b"1"]
        assert (await stream.info()).state.messages == 4


@on_a_loop
async def test_what_was_acked_is_deleted_once_that_works_again(tmp_path):
    async with embedded.open(tmp_path / "d", options=IMPATIENT) as streams:
        stream, session = await session_of(streams)
        with turn_of(tmp_path / "d", "streams"):
            for msg in await session.pull(4, 1):
                await msg.double_ack()
            for _ in range(30):  # longer than its patience: the removal is refused
                await asyncio.sleep(0.05)

        async def empty():
            return (await stream.info()).state.messages == 0

        assert await until(empty)


@on_a_loop
async def test_a_late_removal_leaves_a_new_stream_of_the_same_name_alone(tmp_path):
    async with embedded.open(tmp_path / "d") as streams:
        await session_of(streams)
        (old,) = await streams._room.read(lambda connection: connection.execute("SELECT id FROM stream").fetchone())
        await streams.delete_stream("J")
        stream, _ = await session_of(streams)
        gone = await streams._room.write(lambda connection: remove_settled(connection, old, [1, 2, 3, 4]))
        assert (gone, (await stream.info()).state.messages) == (0, 4)


@on_a_loop
async def test_metadata_does_not_wait_for_a_long_read(tmp_path):
    async with embedded.open(tmp_path / "d") as streams:
        stream = await streams.create_stream(StreamConfig(name="S", subjects=["s.>"]))
        for subject in ("s.a", "s.b", "s.a"):
            await streams.publish(subject)
        consumer = await stream.create_consumer(ConsumerConfig(durable="c", filter_subject="s.a"))
        (msg, _) = await consumer.session(SessionOptions()).pull(2, 1)
        reading, enough = threading.Event(), threading.Event()

        def wait():
            reading.set()
            enough.wait(10)

        def long(connection):
            connection.create_scalar_function("wait", wait)
            connection.execute("SELECT wait()").fetchall()

        job = asyncio.ensure_future(streams._store.reader.call(long))
        while not reading.is_set():
            await asyncio.sleep(0.01)
        try:
            assert msg.metadata.num_pending == 1
        finally:
            enough.set()
            await job


@on_a_loop
async def test_a_worker_outlives_a_neighbour_that_is_stopped(tmp_path):
    async with connect(tmp_path / "d", options=IMPATIENT) as broker:
        await broker.declare("t")
        seen = []

        async def handle(body: bytes):
            seen.append(body)

        async with Worker(broker, "t", handle, group="g"):
            with turn_of(tmp_path / "d", "consumers"):
                await broker.publish(Message(topic="t", body=b"meanwhile"))
                for _ in range(50):  # several times its patience
                    await asyncio.sleep(0.05)

            async def handled():
                return seen == [b"meanwhile"]

            assert await until(handled)


@on_a_loop
async def test_an_atomic_publish_that_is_late_is_not_stored_afterwards(tmp_path):
    async with embedded.open(tmp_path / "d", options=IMPATIENT) as streams:
        stream = await streams.create_stream(StreamConfig(name="A", allow_atomic=True))
        with turn_of(tmp_path / "d", "streams"), pytest.raises((PublishError, BrokerTimeoutError)):
            await streams.publish_atomic([StreamMessage("A")] * 3)
        assert (await streams.publish_atomic([StreamMessage("A")] * 2)).sequence == 2
        assert (await stream.info()).state.messages == 2
