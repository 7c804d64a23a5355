"""Power cuts, failed syncs and full disks: nothing acknowledged is lost. The judge does not know the engine."""

import asyncio
import shutil
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest

from headrace import embedded
from headrace.core.errors import Fault, HeadraceError, PublishError
from headrace.embedded import DiskFullError, EmbeddedOptions
from headrace.streams.config import ConsumerConfig, PurgeOptions, StreamConfig, StreamMessage
from headrace.streams.session import SessionOptions
from tests.faults.court import Court
from tests.faults.disk import Surface, disk

CONFIG = StreamConfig(name="S", subjects=["s.>"])
FILES = ("streams.db", "streams.db-wal", "consumers.db", "consumers.db-wal")
SMALL = EmbeddedOptions(reserve_bytes=0)


async def made(path, options=SMALL):
    """A store with its stream and consumer, closed."""
    async with embedded.open(path, options=options) as streams:
        stream = await streams.create_stream(CONFIG)
        await stream.create_consumer(ConsumerConfig(durable="c"))


async def script(path, operations, acknowledged, options=SMALL):
    """So many operations; `acknowledged` (sequence, body) is called when a receipt is there."""
    async with embedded.open(path, options=options) as streams:
        stream = await streams.stream("S")
        session = (await stream.consumer("c")).session(SessionOptions())
        for number in range(operations):
            match number % 10:
                case 3:
                    await four_at_once(streams, number, acknowledged)
                case 5:
                    batch = [StreamMessage("s.keep", b"m%d-%d" % (number, n), msg_id=f"{number}-{n}") for n in range(3)]
                    for message, result in zip(batch, await streams.publish_many(batch), strict=True):
                        if not isinstance(result, PublishError):
                            acknowledged(result.sequence, message.data)
                case 7:
                    for msg in await session.pull(4, 0):
                        await msg.ack()
                    await session.flush()
                case 8:
                    await streams.publish("s.junk", b"j")
                    await stream.purge(PurgeOptions(subject="s.junk"))
                case 9 if number % 50 == 49:
                    await streams.sync()
                case _:
                    body = b"b%d" % number
                    ack = await streams.publish("s.keep", body + bytes(700 * (number % 7)))
                    acknowledged(ack.sequence, body + bytes(700 * (number % 7)))
        await session.aclose()


async def four_at_once(streams, number, acknowledged):
    async def one(body):
        acknowledged((await streams.publish("s.keep", body)).sequence, body)

    await asyncio.gather(*(one(b"g%d-%d" % (number, n)) for n in range(4)))


def power_cuts(tmp_path, operations, *, every):
    """Run the script on a recording disk, then cut the power at every `every`-th boundary in every manner."""
    path, log, lock = tmp_path / "data", [], threading.Lock()
    asyncio.run(made(path))
    surface = Surface(path)

    def on(*event):
        with lock:
            log.append(event)

    with disk(on):
        asyncio.run(script(path, operations, lambda sequence, body: on("ack", sequence, 0, body)))
    shutil.rmtree(path)
    acknowledged, points, wrong = {}, 0, []
    folder = tempfile.mkdtemp(prefix="headrace-cut-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
    try:
        with Court() as court:
            for place, (kind, name, offset, data) in enumerate(log):
                if kind == "ack":
                    acknowledged[name] = data.decode()
                    continue
                manners = ("lost", "kept", "torn") if kind == "sync" else (("lost", "kept", "torn")[place % 3],)
                for manner in manners if place % every == 0 or kind == "sync" else ():
                    points += 1
                    files = surface.fallen(manner, place)
                    for file in FILES:
                        Path(folder, file).unlink(missing_ok=True)
                        Path(folder, f"{file}-shm").unlink(missing_ok=True)
                        if file in files:
                            Path(folder, file).write_bytes(files[file])
                    for shm in Path(folder).glob("*-shm"):
                        shm.unlink()
                    if faults := court.judge(folder, acknowledged):
                        wrong.append(f"cut before event {place} ({kind} {name} {offset}), {manner}: {faults[:3]}")
                surface.apply(kind, name, offset, data)
    finally:
        shutil.rmtree(folder)
    print(f"\n{points} crash points, {len(log)} events, {len(acknowledged)} acknowledged, {len(wrong)} wrong")
    assert acknowledged, "a run that acknowledged nothing proves nothing"
    assert not wrong, "\n".join(wrong[:10])
    return points


def test_power_cut_every_boundary_small(tmp_path):
    assert power_cuts(tmp_path, 40, every=3) > 100


@pytest.mark.chaos
def test_power_cut_every_boundary(tmp_path):
    assert power_cuts(tmp_path, 500, every=1) >= 2_000


def test_the_judge_finds_planted_defects(tmp_path):
    """A judge that finds nothing is no judge."""
    acknowledged = {}
    asyncio.run(made(tmp_path / "data"))
    asyncio.run(script(tmp_path / "data", 20, lambda sequence, body: acknowledged.update({sequence: body.decode()})))
    with Court() as court:
        assert court.judge_copy(tmp_path / "data", acknowledged) == []
        assert court.judge_copy(tmp_path / "data", acknowledged | {9_999: "never"}) == ["lost: 9999 was acknowledged"]
        first = min(acknowledged)
        assert "changed" in court.judge_copy(tmp_path / "data", acknowledged | {first: "other"})[0]
        file = tmp_path / "data" / "streams.db"
        file.write_bytes(file.read_bytes()[:8192] + bytes(4096) + file.read_bytes()[12288:])
        assert court.judge_copy(tmp_path / "data", acknowledged) != []


class FailsOnce:
    """A disk on which the `nth` call of `kind` to streams.db or its log fails, once."""

    def __init__(self, kind, nth):
        self.kind, self.nth, self.calls, self.lock = kind, nth, 0, threading.Lock()

    def __call__(self, what, name, offset, data):
        if what == self.kind and name.startswith("streams"):
            with self.lock:
                self.calls += 1
                fails = self.calls == self.nth
            if fails:
                raise apsw.IOError("told to fail")

    @property
    def fired(self):
        return self.calls >= self.nth


async def publish_singly(path, operations, acknowledged):
    """Publish one after the other; what fails says so in our own words and is left out."""
    async with embedded.open(path, options=SMALL) as streams:
        for number in range(operations):
            body = f"b{number}"
            try:
                ack = await streams.publish("s.keep", body.encode(), msg_id=body)
            except HeadraceError:
                continue
            acknowledged[ack.sequence] = body


def failing(path, kind, nth, operations=30):
    """Who was acknowledged on a disk that fails once, and whether it did."""
    acknowledged, on = {}, FailsOnce(kind, nth)
    with disk(on):
        try:
            asyncio.run(publish_singly(path, operations, acknowledged))
        except HeadraceError as error:  # it may fail to open or to close, but only in our own words
            print(f"{kind} {nth}: {type(error).__name__}: {error}")
    return acknowledged, on.fired


def every_nth(tmp_path, kind, most, least=5):
    fired = 0
    with Court() as court:
        for nth in range(1, most + 1):
            path = tmp_path / str(nth)
            asyncio.run(made(path))
            acknowledged, hit = failing(path, kind, nth)
            if not hit:
                break
            fired += 1
            assert court.judge(path, acknowledged) == [], f"{kind} {nth} failed, {len(acknowledged)} acknowledged"
            asyncio.run(readable(path, acknowledged))
            shutil.rmtree(path)
    print(f"\n{fired} faults of {kind}")
    assert fired >= least, f"only {fired} faults fired"


async def readable(path, acknowledged):
    """Opened again, everything acknowledged is there and publishing goes on."""
    async with embedded.open(path, options=SMALL) as streams:
        stored = {each.sequence: each.data.decode() for each in await (await streams.stream("S")).read(limit=1_000)}
        assert acknowledged.items() <= stored.items()
        await streams.publish("s.keep", b"again")


def test_fsync_error_nth_small(tmp_path):
    every_nth(tmp_path, "sync", 6)


@pytest.mark.chaos
def test_fsync_error_nth(tmp_path):
    every_nth(tmp_path, "sync", 10_000)


@pytest.mark.chaos
def test_write_error_nth(tmp_path):
    every_nth(tmp_path, "write", 10_000)


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
