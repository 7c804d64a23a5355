"""What the benchmarks measure with."""

import gc
import os
import time
from contextlib import asynccontextmanager
from pathlib import Path

from headrace import embedded
from headrace.streams.config import StreamConfig, StreamMessage

BODY = b"x" * 100


class Meter:
    """Wall and CPU seconds of a block."""

    def __enter__(self):
        gc.collect()
        self.wall, self.cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_):
        self.wall, self.cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu


class Table:
    """Rows as they come: name, messages per second, CPU µs per message, and what the specification asks for."""

    def __init__(self):
        print(f"{'benchmark':<34}{'messages/s':>12}{'CPU µs':>9}   remark")

    def row(self, name, count, meter, remark=""):
        rate = count / meter.wall
        print(f"{name:<34}{rate:>12,.0f}{meter.cpu / count * 1e6:>9.2f}   {remark}", flush=True)
        return rate

    def peer(self, name, rate, remark=""):
        print(f"{name:<34}{rate:>12,.0f}{'':>9}   {remark}", flush=True)


def raw_rate(folder, count=300):
    """Appends of 128 bytes, each with fdatasync, to a growing file in the same directory, per second."""
    path = Path(folder) / "raw"
    sync = getattr(os, "fdatasync", os.fsync)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        start = time.perf_counter()
        for _ in range(count):
            os.write(descriptor, bytes(128))
            sync(descriptor)
        return count / (time.perf_counter() - start)
    finally:
        os.close(descriptor)
        path.unlink()


def loop_cost():
    """µs of one round of a plain Python loop: a virtual machine's own speed differs by a factor of two."""
    best = float("inf")
    for _ in range(5):
        start, seen, total = time.thread_time(), {}, 0
        for number in range(50_000):
            seen[number & 1023] = (number, total)
            total += len(seen)
        best = min(best, time.thread_time() - start)
    return best / 50_000 * 1e6


def resident():
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20


@asynccontextmanager
async def streams_in(folder, name, **options):
    """A new store with the stream S."""
    async with embedded.open(Path(folder) / name) as streams:
        await streams.create_or_update_stream(StreamConfig(name="S", subjects=["s.>"], **options))
        yield streams


async def fill(streams, count, subject="s.a"):
    """So many messages, by thousands."""
    batch = [StreamMessage(subject, BODY) for _ in range(1_000)]
    for _ in range(count // 1_000):
        await streams.publish_many(batch)


async def take(session, count):
    """Pull and acknowledge so many."""
    while count > 0:
        got = await session.pull(min(1_000, count), 1.0)
        for msg in got:
            await msg.ack()
        count -= len(got)
    await session.flush()
