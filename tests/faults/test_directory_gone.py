"""The directory is removed, or becomes read-only, under a running engine: ``StoreError`` and an end, never a loop."""

import asyncio
import shutil

import apsw
import pytest

from headrace import embedded
from headrace.core.errors import Fault, HeadraceError, PublishError, StoreError
from headrace.embedded import EmbeddedOptions
from headrace.streams.config import ConsumerConfig, StreamConfig
from headrace.streams.session import SessionOptions
from tests.faults.court import Court
from tests.faults.disk import disk

HASTY = EmbeddedOptions(reserve_bytes=0, timeout=2)


async def prepared(streams):
    """A consumer that holds one message of three."""
    stream = await streams.create_stream(StreamConfig(name="S"))
    consumer = await stream.create_consumer(ConsumerConfig(durable="c"))
    session = consumer.session(SessionOptions())
    acknowledged = {}
    for number in range(3):
        acknowledged[(await streams.publish("S", b"%d" % number)).sequence] = str(number)
    (held,) = await session.pull(1, 1)
    return stream, session, held, acknowledged


async def refused(streams, stream, session):
    """Every operation that writes ends, with an error of the store."""
    for _ in range(3):
        with pytest.raises(PublishError) as error:
            await streams.publish("S", b"lost")
        assert isinstance(error.value.__cause__, StoreError)
        assert error.value.fault in {Fault.UNAVAILABLE, Fault.UNKNOWN}
    with pytest.raises(StoreError):
        await stream.create_consumer(ConsumerConfig(durable="d"))
    with pytest.raises(StoreError):
        await session.pull(1, 0.1)
    with pytest.raises(HeadraceError):
        await streams.backup(streams.path.parent / "no" / "such" / "place")


async def closed(streams):
    """Closing ends; that what was held could not be handed back it may say."""
    try:
        await streams.aclose()
    except StoreError as error:
        print(f"closing: {type(error).__name__}: {error}")
    await streams.aclose()


def test_directory_removed(tmp_path):
    path = tmp_path / "d"

    async def run():
        streams = await embedded.opened(path, options=HASTY)
        stream, session, held, _ = await prepared(streams)
        shutil.rmtree(path)
        await refused(streams, stream, session)
        await held.ack()
        await asyncio.sleep(0.4)  # the poll and the flush meet it too
        await closed(streams)
        assert not path.exists(), "nobody asked for a new one"

    asyncio.run(run())


def test_directory_replaced(tmp_path):
    """Another store under the same name is not written to by who has opened the old one."""
    path, acknowledged = tmp_path / "d", {}

    async def run():
        streams = await embedded.opened(path, options=HASTY)
        stream, session, _, old = await prepared(streams)
        path.rename(tmp_path / "old")
        async with embedded.open(path, options=HASTY) as fresh:
            await fresh.create_stream(StreamConfig(name="S"))
            acknowledged[(await fresh.publish("S", b"new")).sequence] = "new"
            await refused(streams, stream, session)
            await closed(streams)
            acknowledged[(await fresh.publish("S", b"newer")).sequence] = "newer"
            assert [each.data for each in await (await fresh.stream("S")).read()] == [b"new", b"newer"]
        return old

    old = asyncio.run(run())
    with Court() as court:
        assert court.judge(path, acknowledged) == []
        assert court.judge(tmp_path / "old", old) == []


class ReadOnly:
    """A disk that becomes read-only, and writable again."""

    def __init__(self):
        self.now = False

    def __call__(self, kind, name, offset, data):
        if self.now and kind != "read":
            raise apsw.IOError("told to be read-only")


def test_directory_readonly(tmp_path):
    """Reading goes on; once it is writable again everything does."""
    read_only, path = ReadOnly(), tmp_path / "d"

    async def run():
        async with embedded.open(path, options=HASTY) as streams:
            stream, session, held, acknowledged = await prepared(streams)
            read_only.now = True
            await refused(streams, stream, session)
            assert [each.data for each in await stream.read()][:3] == [b"0", b"1", b"2"]
            await held.ack()
            await asyncio.sleep(0.4)  # timers meet it too
            read_only.now = False
            acknowledged[(await streams.publish("S", b"again")).sequence] = "again"
            got = []
            while len(got) < len(acknowledged) - 1:
                got += await session.pull(9, 5)
            assert held not in got
            await session.flush()
            return acknowledged

    with disk(read_only):
        acknowledged = asyncio.run(run())
        read_only.now = True
        with pytest.raises(StoreError):
            asyncio.run(embedded.opened(path, options=HASTY))
        read_only.now = False
    with Court() as court:
        assert court.judge(path, acknowledged) == []
