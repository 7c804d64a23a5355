"""`Durability.RELAXED`: no sync per commit, a sync within the window, and no sequence given out twice after a death."""

import asyncio
import shutil
from dataclasses import replace
from datetime import timedelta

import apsw
import pytest

from headrace import embedded
from headrace.embedded import Durability, EmbeddedOptions, Reopened, SyncFailed
from headrace.streams.config import ConsumerConfig, DeliverPolicy, StreamConfig, StreamMessage
from headrace.streams.session import SessionOptions
from headrace.testing.virtual import virtual_time
from tests.faults.disk import Surface, disk

WINDOW = timedelta(milliseconds=100)
RELAXED = EmbeddedOptions(durability=Durability.RELAXED, relaxed_window=WINDOW, reserve_bytes=0)
FSYNC = EmbeddedOptions(reserve_bytes=0)


class Syncs:
    """Counts the syncs of the message log; `failing` of them fail."""

    def __init__(self):
        self.count = self.failing = 0

    def __call__(self, kind, name, offset, data):
        if (kind, name) == ("sync", "streams.db-wal"):
            self.count += 1
            if self.failing:
                self.failing -= 1
                raise apsw.IOError("planted")


async def syncs_of_publishing(path, options, messages):
    syncs = Syncs()
    with disk(syncs):
        async with embedded.open(path, options=options) as streams:
            await streams.create_stream(StreamConfig(name="S"))
            before = syncs.count
            for _ in range(messages):
                await streams.publish("S", b"x")
            return syncs.count - before


@virtual_time
async def test_no_sync_per_commit(tmp_path):
    assert await syncs_of_publishing(tmp_path / "relaxed", RELAXED, 50) == 0
    assert await syncs_of_publishing(tmp_path / "fsync", FSYNC, 50) >= 50


@virtual_time
async def test_a_sync_within_the_window(tmp_path):
    syncs = Syncs()
    with disk(syncs):
        async with embedded.open(tmp_path / "store", options=RELAXED) as streams:
            await streams.create_stream(StreamConfig(name="S"))
            for _ in range(3):
                before = syncs.count
                await streams.publish("S", b"x")
                assert syncs.count == before
                await asyncio.sleep(WINDOW.total_seconds())
                assert syncs.count > before


@pytest.mark.parametrize("options", [RELAXED, FSYNC])
@virtual_time
async def test_management_is_on_disk_when_it_returns(tmp_path, options):
    loose = {}

    def on(kind, name, offset, data):
        loose[name] = kind != "sync"

    def all_synced():
        return not loose["streams.db-wal"] and not loose["consumers.db-wal"]

    config = ConsumerConfig(durable="c")
    with disk(on):
        async with embedded.open(tmp_path / "store", options=options) as streams:
            stream = await streams.create_stream(StreamConfig(name="S"))
            await stream.create_consumer(config)
            assert all_synced()
            await stream.update_consumer(replace(config, max_deliver=7))
            assert all_synced()
            await streams.publish("S", b"x")
            await stream.purge()
            assert all_synced()
            await stream.delete_consumer("c")
            assert all_synced()


@virtual_time
async def test_a_failed_sync_is_not_believed_later(tmp_path):
    syncs, seen = Syncs(), []
    with disk(syncs):
        async with embedded.open(tmp_path / "store", options=RELAXED, on_advisory=seen.append) as streams:
            await streams.create_stream(StreamConfig(name="S"))
            await streams.publish("S", b"x")
            syncs.failing = 1
            await asyncio.sleep(1)
            assert [type(each) for each in seen] == [SyncFailed, Reopened]
            assert (await streams.publish("S", b"y")).sequence == 2


async def cut(tmp_path, script):
    """The directory as a power cut after `script` leaves it: what was not synced is gone."""
    log, path, left = [], tmp_path / "data", tmp_path / "cut"
    path.mkdir(mode=0o700)
    surface = Surface(path)
    with disk(lambda *event: log.append(event)):
        async with embedded.open(path, options=RELAXED) as streams:
            await script(streams)
            for event in list(log):
                surface.apply(*event)
    left.mkdir(mode=0o700)
    for name, content in surface.fallen("lost", 0).items():
        (left / name).write_bytes(content)
        (left / name).chmod(0o600)
    return left


@pytest.mark.parametrize("options", [RELAXED, FSYNC])
@virtual_time
async def test_no_sequence_twice_after_a_power_cut(tmp_path, options):
    given, got = [], []

    async def script(streams):
        stream = await streams.create_stream(StreamConfig(name="S"))
        await streams.create_stream(StreamConfig(name="UNUSED"))
        await stream.create_consumer(ConsumerConfig(durable="c"))
        given.append((await streams.publish("S", b"kept")).sequence)
        await streams.sync()
        for _ in range(20):
            given.append((await streams.publish("S", b"lost")).sequence)
        session = (await stream.consumer("c")).session(SessionOptions())
        got.extend([msg.metadata.sequence.stream for msg in await session.pull(100, 1)])

    left = await cut(tmp_path, script)
    assert got == given
    async with embedded.open(left, options=options) as streams:
        stream = await streams.stream("S")
        assert [each.sequence for each in await stream.read()] == [1]
        assert (await stream.info()).state.last_sequence >= max(given)
        assert (await (await streams.stream("UNUSED")).info()).state.last_sequence == 0
        assert (await streams.publish("S", b"new")).sequence > max(given)
        session = (await stream.consumer("c")).session(SessionOptions())
        assert [msg.data for msg in await session.pull(100, 1)] == [b"kept", b"new"]
        assert (await streams.verify()).ok


def test_a_position_ahead_of_its_stream_skips_nothing(tmp_path):
    """Whatever took the messages: what comes next is above what the consumer was given."""

    async def before():
        async with embedded.open(tmp_path / "store", options=FSYNC) as streams:
            stream = await streams.create_stream(StreamConfig(name="S"))
            await stream.create_consumer(ConsumerConfig(durable="used"))
            late = ConsumerConfig(durable="late", deliver_policy=DeliverPolicy.BY_START_SEQUENCE, start_sequence=500)
            await stream.create_consumer(late)
            shutil.copyfile(tmp_path / "store" / "streams.db-wal", tmp_path / "log")
            shutil.copyfile(tmp_path / "store" / "streams.db", tmp_path / "file")
            for _ in range(10):
                await streams.publish("S", b"lost")
            session = (await stream.consumer("used")).session(SessionOptions())
            for msg in await session.pull(10, 1):
                await msg.double_ack()

    async def after():
        async with embedded.open(tmp_path / "store", options=FSYNC) as streams:
            stream = await streams.stream("S")
            assert (await streams.publish("S", b"new")).sequence == 11
            session = (await stream.consumer("used")).session(SessionOptions())
            assert [msg.data for msg in await session.pull(10, 1)] == [b"new"]
            assert (await (await stream.consumer("late")).info()).delivered.stream == 499

    asyncio.run(before())
    shutil.copyfile(tmp_path / "file", tmp_path / "store" / "streams.db")
    shutil.copyfile(tmp_path / "log", tmp_path / "store" / "streams.db-wal")
    asyncio.run(after())


def test_no_gap_after_a_clean_close(tmp_path):
    async def publish():
        async with (
            embedded.open(tmp_path / "store", options=RELAXED) as one,
            embedded.open(tmp_path / "store", options=RELAXED) as two,
        ):
            await one.create_stream(StreamConfig(name="S"))
            return [(await each.publish("S", b"x")).sequence for each in (one, two, one)]

    assert [asyncio.run(publish()) for _ in range(3)] == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


def test_more_than_one_mark(tmp_path):
    """What is published stands below the mark at every moment, however much it is."""

    async def run():
        async with embedded.open(tmp_path / "store", options=RELAXED) as streams:
            await streams.create_stream(StreamConfig(name="S"))
            marks = []
            for _ in range(6):
                acks = await streams.publish_many([StreamMessage("S", b"x") for _ in range(1_500)])
                mark = await streams._store.reader.call(lambda c: c.execute("SELECT sequence FROM mark").fetchone())
                marks.append(mark[0] - acks[-1].sequence)
            assert min(marks) >= 0
            assert len(set(marks)) > 2

    asyncio.run(run())
