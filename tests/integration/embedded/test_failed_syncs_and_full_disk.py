"""A failing disk, played by a VFS: what was acknowledged is there, nothing is acknowledged that may not be."""

import asyncio
import shutil

import apsw
import pytest

from headrace import embedded
from headrace.core.errors import Fault, PublishError
from headrace.embedded import DiskFull, DiskFullError, DiskRecovered, Reopened, SyncFailed, SyncFailedError
from headrace.streams.config import StreamConfig, StreamMessage


class File(apsw.VFSFile):
    def __init__(self, disk, name, flags):
        super().__init__("unix", name, flags)
        self.disk = disk
        self.is_log = (name.filename() if isinstance(name, apsw.URIFilename) else str(name)).endswith("streams.db-wal")

    def xSync(self, flags):  # noqa: N802
        if self.is_log and self.disk.failing_syncs:
            self.disk.failing_syncs -= 1
            raise apsw.IOError("planted")
        super().xSync(flags)

    def xWrite(self, data, offset):  # noqa: N802
        if self.is_log and self.disk.full:
            self.disk.full -= 1
            raise apsw.FullError("planted")
        super().xWrite(data, offset)


class Disk(apsw.VFS):
    def __init__(self):
        self.failing_syncs = self.full = 0
        super().__init__("failing", "unix", makedefault=True)

    def xOpen(self, name, flags):  # noqa: N802
        return File(self, name, flags)


@pytest.fixture
def disk():
    made = Disk()
    yield made
    made.unregister()


async def refused(streams, fault, cause):
    with pytest.raises(PublishError) as error:
        await streams.publish("S", b"lost?", msg_id="again")
    assert error.value.fault is fault
    assert isinstance(error.value.__cause__, cause)


@pytest.mark.parametrize("failures", [1, 2, 5])
def test_failed_sync(tmp_path, disk, failures):
    seen = []

    async def run():
        async with embedded.open(tmp_path / "store", on_advisory=seen.append) as streams:
            stream = await streams.create_stream(StreamConfig(name="S"))
            await streams.publish("S", b"before")
            disk.failing_syncs = failures
            await refused(streams, Fault.UNKNOWN, SyncFailedError)
            assert (await stream.get_msg(1)).data == b"before"
            while disk.failing_syncs:
                await refused(streams, Fault.UNAVAILABLE, SyncFailedError)
            ack = await streams.publish("S", b"lost?", msg_id="again")
            assert ack.sequence == 2
            await streams.publish("S", b"after")
            assert [message.data for message in await stream.read()] == [b"before", b"lost?", b"after"]
        kinds = [type(each) for each in seen]
        assert (kinds[0], kinds[-1]) == (SyncFailed, Reopened)
        assert seen[-1].messages in {1, 2, 3}  # told before or after the publishes that follow
        async with embedded.open(tmp_path / "store") as streams:
            assert (await streams.verify()).messages == 3

    asyncio.run(run())


def test_reopened_after_a_death(tmp_path):
    seen = []

    async def run():
        async with embedded.open(tmp_path / "store", on_advisory=seen.append) as streams:
            await streams.create_stream(StreamConfig(name="S"))
            for _ in range(3):
                await streams.publish("S", b"x")
            assert seen == []
            shutil.copytree(tmp_path / "store", tmp_path / "left", ignore=shutil.ignore_patterns("*-shm", "wake"))
        async with embedded.open(tmp_path / "left", on_advisory=seen.append):
            assert [(type(each), each.messages) for each in seen] == [(Reopened, 3)]

    asyncio.run(run())


def test_full_disk(tmp_path, disk):
    seen = []

    async def run():
        async with embedded.open(tmp_path / "store", on_advisory=seen.append) as streams:
            stream = await streams.create_stream(StreamConfig(name="S"))
            await streams.publish("S", b"before")
            disk.full = 1
            await refused(streams, Fault.UNAVAILABLE, DiskFullError)
            assert not (tmp_path / "store" / "reserve").exists()
            await refused(streams, Fault.UNAVAILABLE, DiskFullError)
            assert (await stream.get_msg(1)).data == b"before"
            assert await stream.purge() == 1
            await asyncio.sleep(1.2)
            assert (tmp_path / "store" / "reserve").stat().st_size == 16 * 2**20
            assert (await streams.publish("S", b"after")).sequence == 2
        assert [type(each) for each in seen] == [DiskFull, DiskRecovered]

    asyncio.run(run())


def test_names_learnt_in_a_commit_that_failed_are_forgotten(tmp_path, disk):
    asyncio.run(learn_in_vain(tmp_path, disk))


async def learn_in_vain(tmp_path, disk):
    config = StreamConfig(name="K", subjects=["k.>"], max_bytes=20_000, max_messages_per_subject=1)
    async with embedded.open(tmp_path / "d") as streams:
        stream = await streams.create_stream(config)
        for number in range(50):
            await streams.publish(f"k.keep{number}", b"precious")
        disk.full = 1
        results = await streams.publish_many([StreamMessage("k.s", b"1"), StreamMessage("k.s", b"2")])
        assert all(isinstance(result, PublishError) for result in results)
        long = "k." + "y" * 200  # it gets the id that `k.s` had
        await asyncio.wait_for(writable(streams, long), 10)
        for _ in range(150):  # each message pushes out the one before
            await streams.publish(long, b"x")
        info, rows = await stream.info(), await stream.read()
        assert len(rows) == 51
        assert info.state.bytes == sum(30 + len(row.subject) + len(row.data) for row in rows)


async def writable(streams, subject):
    while True:
        try:
            return await streams.publish(subject)
        except PublishError:
            await asyncio.sleep(0.05)
