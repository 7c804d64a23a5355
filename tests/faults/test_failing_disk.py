"""A disk that fails at the n-th sync, write, truncate or read, or is full: nothing acknowledged is lost or invented."""

import asyncio
import shutil
import subprocess
import time
from contextlib import contextmanager

import apsw
import pytest

from headrace import embedded
from headrace.core.errors import Fault, HeadraceError, PublishError
from headrace.embedded import DiskFullError, EmbeddedOptions
from headrace.streams.config import ConsumerConfig, PurgeOptions
from headrace.streams.session import SessionOptions
from tests.faults.court import Court
from tests.faults.disk import Recorder, Surface, disk, lay, platter
from tests.faults.script import CONFIG, SMALL, made, readable

OPERATIONS = 30
# apsw shows the second failure inside one call of SQLite like this; the first one is raised
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. None:pytest.PytestUnraisableExceptionWarning")
EIO, FULL = apsw.IOError, apsw.FullError
REWRITTEN = {("sync", "streams.db", 0), ("truncate", "streams.db-wal", 0), ("write", "streams.db-wal", 0)}
"""What proves that nothing of a log whose sync failed is relied on: a checkpoint, or a log begun anew."""


class FailsFrom(Recorder):
    """A disk on which the `nth` call of `kind` fails, and the next ones too, `times` in all.

    It also looks whether anything is acknowledged between a failed sync of the log and a checkpoint.
    """

    def __init__(self, kind, nth, times, error):
        self.kind, self.nth, self.times, self.error = kind, nth, times, error
        self.calls, self.doubtful = 0, False
        super().__init__()

    def __call__(self, what, name, offset, data):
        fails = False
        if what == self.kind and name.partition(".")[0] in {"streams", "consumers"}:
            with self.lock:
                self.calls += 1
                fails = self.nth <= self.calls < self.nth + self.times
        if fails and (what, name) == ("sync", "streams.db-wal"):
            self.doubtful = True
        elif not fails and (what, name, offset) in REWRITTEN:
            self.doubtful = False
        if self.kind != "read":
            super().__call__("failed" if fails else what, name, offset, data)
        if fails:
            raise self.error("told to fail")

    def settled(self, sequences):
        super().__call__("settled", tuple(sequences), 0, b"")

    @property
    def fired(self):
        return self.calls >= self.nth


async def operations(path, on, acknowledged):
    """Publish, handle, purge, one after the other; what fails says so in our own words and is left out."""
    async with embedded.open(path, options=SMALL) as streams:
        stream = await streams.stream("S")
        session = (await stream.consumer("c")).session(SessionOptions())
        for number in range(OPERATIONS):
            try:
                if number % 6 == 4:
                    msgs = await session.pull(3, 0)
                    for msg in msgs:
                        await msg.ack()
                    await session.flush()
                    on.settled(msg.metadata.sequence.stream for msg in msgs)
                elif number % 15 == 11:
                    await stream.purge(PurgeOptions(subject="s.junk"))
                    await streams.sync()
                else:
                    body = f"b{number}"
                    ack = await streams.publish("s.keep", body.encode(), msg_id=body)
                    assert not on.doubtful, f"{body} was acknowledged after a failed sync, before a checkpoint"
                    acknowledged[ack.sequence] = body
                    on.acknowledged(ack.sequence, body.encode())
            except HeadraceError:
                continue


def failing(path, on):
    """Who was acknowledged on a disk that fails; opening and closing may fail too, but only in our own words."""
    acknowledged = {}
    with disk(on, reads=on.kind == "read"):
        try:
            asyncio.run(operations(path, on, acknowledged))
        except HeadraceError as error:
            print(f"{on.kind} {on.nth}: {type(error).__name__}: {error}")
    return acknowledged


def every_nth(tmp_path, kind, error, *, step=1, times=1, most=100_000):
    """Fail the n-th call for each n, until the script has no n-th call; how many failed."""
    fired = told = 0
    asyncio.run(made(tmp_path / "made"))
    with Court() as court:
        for nth in range(1, most, step):
            path, on = tmp_path / "data", FailsFrom(kind, nth, times, error)
            shutil.copytree(tmp_path / "made", path)
            acknowledged = failing(path, on)
            if not on.fired:
                break
            fired += 1
            told += len(acknowledged)
            assert court.judge(path, acknowledged) == [], f"{kind} {nth} failed, {len(acknowledged)} acknowledged"
            asyncio.run(readable(path, acknowledged))
            shutil.rmtree(path)
    print(f"\n{kind} {error.__name__} x{times}: {fired} faults fired, {told} acknowledged, 0 lost")
    assert told, "a run that acknowledged nothing proves nothing"
    return fired


def power_after_failed_syncs(tmp_path, *, step=1):
    """Fail the n-th sync: what it was to write is never written, whatever later syncs say. Then cut the power.

    After each receipt that came later everything acknowledged is on the platter, and what was settled stays settled.
    """
    judged = 0
    asyncio.run(made(tmp_path / "made"))
    with Court() as court, platter() as folder:
        for nth in range(1, 10_000, step):
            path, on, known, settled = tmp_path / "data", FailsFrom("sync", nth, 1, EIO), {}, set()
            shutil.copytree(tmp_path / "made", path)
            surface, failed = Surface(path), False
            failing(path, on)
            shutil.rmtree(path)
            if not on.fired:
                break
            for place, (kind, name, offset, data) in enumerate(on.log):
                if kind not in {"ack", "settled"}:
                    surface.apply(kind, name, offset, data)
                    failed = failed or kind == "failed"
                    continue
                known |= {name: data.decode()} if kind == "ack" else {}
                settled |= set(name) if kind == "settled" else set()
                if failed:
                    judged += 1
                    lay(folder, surface.fallen("lost", place))
                    wrong = court.judge(folder, known, settled=settled)
                    assert wrong == [], f"sync {nth} failed; the power went after event {place} ({kind} {name})"
    print(f"\n{nth - 1} syncs failed, {judged} power cuts after a receipt behind one")
    assert judged > 20
    return judged


def test_a_failed_sync_wrote_nothing_few(tmp_path):
    power_after_failed_syncs(tmp_path, step=5)


@pytest.mark.chaos
def test_a_failed_sync_wrote_nothing(tmp_path):
    assert power_after_failed_syncs(tmp_path) > 200


FAULTS = [("sync", EIO, 25), ("write", EIO, 60), ("write", FULL, 60), ("truncate", EIO, 1), ("read", EIO, 60)]
NAMES = ["test_fsync_error_nth", "test_write_error_nth", "test_enospc_nth", "truncate", "read"]


@pytest.mark.parametrize(("kind", "error", "least"), FAULTS, ids=NAMES)
def test_some_nth_fails(tmp_path, kind, error, least):
    step = {"truncate": 1, "sync": 9}.get(kind, 41)
    assert every_nth(tmp_path, kind, error, step=step) > least // step


@pytest.mark.chaos
@pytest.mark.parametrize("times", [1, 3])
def test_fsync_error_nth(tmp_path, times):
    assert every_nth(tmp_path, "sync", EIO, times=times) > 25


@pytest.mark.chaos
@pytest.mark.parametrize("times", [1, 3])
def test_write_error_nth(tmp_path, times):
    assert every_nth(tmp_path, "write", EIO, times=times) > 60


@pytest.mark.chaos
@pytest.mark.parametrize("times", [1, 3])
def test_enospc_nth(tmp_path, times):
    assert every_nth(tmp_path, "write", FULL, times=times) > 60


@pytest.mark.chaos
def test_truncate_error_nth(tmp_path):
    assert every_nth(tmp_path, "truncate", EIO) > 0


@pytest.mark.chaos
def test_read_error_nth(tmp_path):
    assert every_nth(tmp_path, "read", EIO) > 60


@contextmanager
def small_disk(path, megabytes):
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=700", "tmpfs", str(path)],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.decode().strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def test_disk_full(tmp_path):
    """Publishing fails clearly; reading, acknowledging and purging go on; then publishing goes on."""
    with small_disk(tmp_path / "small", 12) as mount, Court() as court:
        acknowledged = asyncio.run(fill_and_free(mount / "data"))
        assert court.judge_copy(mount / "data", acknowledged) == []


async def fill_and_free(path):
    acknowledged = {}
    async with embedded.open(path, options=EmbeddedOptions(reserve_bytes=2 * 1024 * 1024)) as streams:
        stream = await streams.create_stream(CONFIG)
        consumer = await stream.create_consumer(ConsumerConfig(durable="c"))
        error = await fill(streams, acknowledged)
        assert isinstance(error.__cause__, DiskFullError), f"the cause is {error.__cause__!r}"
        assert error.fault is Fault.UNAVAILABLE, f"UNAVAILABLE expected, got {error.fault}"
        assert len(await stream.read(limit=1_000)) == len(acknowledged)
        got = list(await consumer.fetch(5, max_wait=1.0))
        assert len(got) == 5
        for msg in got:
            await msg.double_ack()
        assert await stream.purge(PurgeOptions(keep=2)) == len(acknowledged) - 2
        kept = dict(list(acknowledged.items())[-2:])
        deadline = time.monotonic() + 15
        while True:
            try:
                ack = await streams.publish("s.after", b"after")
            except PublishError:
                assert time.monotonic() < deadline, "space is free, and publishing does not go on"
                await asyncio.sleep(0.1)
            else:
                return kept | {ack.sequence: "after"}


async def fill(streams, acknowledged):
    for number in range(10_000):
        body = (b"%d " % number).ljust(60_000, b"x")
        try:
            ack = await streams.publish("s.fill", body)
        except PublishError as error:
            return error
        acknowledged[ack.sequence] = body.decode()
    raise AssertionError("the disk is never full")
