"""Smaller faults around an open store: the wake folder deleted, the opening lock kept, no space for a backup."""

import asyncio
import fcntl
import os
import shutil

import apsw
import pytest

from headrace import embedded
from headrace.core.errors import StoreError
from headrace.embedded import DiskFullError, EmbeddedOptions, StoreLockedError
from headrace.streams.config import ConsumerConfig, StreamConfig
from headrace.streams.session import SessionOptions
from tests.faults.disk import disk

HASTY = EmbeddedOptions(reserve_bytes=0, timeout=1)


def test_wake_deleted(tmp_path):
    """Two members lose the folder in which they find each other: it is made again, and no wake-up is lost."""

    async def run():
        path = tmp_path / "d"
        async with embedded.open(path) as one, embedded.open(path) as two:
            stream = await one.create_stream(StreamConfig(name="S"))
            await stream.create_consumer(ConsumerConfig(durable="c"))
            session = (await two.consumer("S", "c")).session(SessionOptions())
            shutil.rmtree(path / "wake")
            pulling = asyncio.create_task(session.pull(1, 20))
            await asyncio.sleep(0.05)
            await one.publish("S", b"in between")
            (msg,) = await pulling
            await msg.ack()
            for _ in range(100):
                if len(list((path / "wake").glob("*.sock"))) == 2:
                    break
                await asyncio.sleep(0.05)
            else:
                raise AssertionError("the folder is not made again")
            before = two.stats().wakeups
            for _ in range(100):
                await one.publish("S", b"after")
                await asyncio.sleep(0.05)
                if two.stats().wakeups > before:
                    break
            else:
                raise AssertionError("they do not find each other again")
            assert await session.pull(1, 5)

    asyncio.run(run())


def test_the_opening_lock_is_kept(tmp_path):
    """A process that was stopped while it opened the store: who opens it next gives up in time, and leaves nothing."""
    path = tmp_path / "d"

    async def run():
        async with embedded.open(path, options=HASTY):
            pass
        lock = os.open(path / "locks" / "open", os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with pytest.raises(StoreLockedError, match="'open'"):
                await embedded.opened(path, options=HASTY)
        finally:
            os.close(lock)
        async with embedded.open(path, options=HASTY) as streams:
            assert (await streams.verify()).ok

    asyncio.run(run())


# apsw shows the second failure inside one call of SQLite like this; the first one is raised
@pytest.mark.filterwarnings("ignore:Exception ignored in. None:pytest.PytestUnraisableExceptionWarning")
def test_backup_on_a_full_disk(tmp_path):
    """Whichever write has no space: the backup fails, and the one of before is still there, whole."""
    path, file, fired = tmp_path / "d", tmp_path / "kept.hrbak", 0

    async def backup(fail):
        nonlocal fired
        calls = 0

        def on(kind, name, offset, data):
            nonlocal calls
            if kind == "write":
                calls += 1
                if calls == fail:
                    raise apsw.FullError("told to fail")

        async with embedded.open(path, options=HASTY) as streams:
            await streams.publish("S", b"%d" % fail)
            before, failure = file.read_bytes(), None
            with disk(on):
                try:
                    await streams.backup(file, overwrite=True)
                except DiskFullError as error:
                    failure = error
            if failure is not None:
                fired += 1
                assert isinstance(failure.__cause__, apsw.FullError)
                assert file.read_bytes() == before
            assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []
            return calls >= fail

    async def run():
        async with embedded.open(path, options=HASTY) as streams:
            await streams.create_stream(StreamConfig(name="S"))
            await streams.backup(file)
        for nth in range(1, 100):
            if not await backup(nth):
                break
        assert (await embedded.restore(file, tmp_path / "copy")).streams == ("S",)

    asyncio.run(run())
    print(f"\n{fired} writes of a backup failed")
    assert fired > 5


def test_the_cause_is_kept(tmp_path):
    """What the driver said stands behind our own error."""
    path = tmp_path / "d"

    async def run():
        async with embedded.open(path, options=HASTY):
            pass
        (path / "streams.db").write_bytes(b"no database at all" * 1_000)
        with pytest.raises(StoreError) as error:
            await embedded.opened(path, options=HASTY)
        assert isinstance(error.value.__cause__, apsw.Error)

    asyncio.run(run())
