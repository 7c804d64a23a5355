"""The embedded engine beside its peers and its disk (spec/embedded.md, section 6)."""

import argparse
import asyncio
import gc
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks import peers
from headrace import embedded
from headrace.connect import connect
from headrace.core.delivery import Delivery
from headrace.core.message import Message
from headrace.flow.worker import Worker
from headrace.streams.config import ConsumerConfig, StreamConfig, StreamMessage
from headrace.streams.session import SessionOptions

BODY = b"x" * 100
TASKS = 100
NOISY = 0.25


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


@asynccontextmanager
async def streams_in(folder, name, **options):
    async with embedded.open(Path(folder) / name) as streams:
        await streams.create_or_update_stream(StreamConfig(name="S", subjects=["s.>"], **options))
        yield streams


async def publish_awaiting(table, folder, count, tasks, name, *, ids=False):
    """So many tasks, each awaits its receipt before its next message."""
    async with streams_in(folder, name) as streams:

        async def task(number):
            for done in range(count // tasks):
                await streams.publish("s.a", BODY, msg_id=f"{done:012d}{number:04d}" if ids else None)

        commits = streams.stats().commits
        with Meter() as meter:
            await asyncio.gather(*(task(number) for number in range(tasks)))
        commits = streams.stats().commits - commits
        return table.row(name, count, meter, f"{count / max(1, commits):.0f} messages per commit")


async def publish_batches(table, folder, count):
    """By thousands: through the Broker with ids and headers, and natively without."""
    async with connect(str(Path(folder) / "batch")) as broker:
        await broker.declare("orders")
        batches = [
            [Message(topic="orders", body=BODY, key=b"k%d" % n) for n in range(1_000)] for _ in range(count // 1_000)
        ]
        with Meter() as meter:
            for batch in batches:
                await broker.publish_batch(batch)
        table.row("publish_batch_1000", count, meter, "wanted >= 150,000/s")
    async with streams_in(folder, "many") as streams:
        batch = [StreamMessage("s.a", BODY) for _ in range(1_000)]
        with Meter() as meter:
            for _ in range(count // 1_000):
                await streams.publish_many(batch)
        table.row("publish_many", count, meter, "without ids; wanted >= 300,000/s")


async def consume_worker(table, folder, count):
    """A Worker with a handler that does nothing, explicit acknowledgement."""
    async with connect(str(Path(folder) / "worker")) as broker:
        for _ in range(count // 1_000):
            await broker.publish_batch(
                [Message(topic="orders", body=BODY, key=b"k%d" % (n % 100)) for n in range(1_000)]
            )
        done, left = asyncio.Event(), [count]

        async def handler(delivery: Delivery):
            left[0] -= 1
            if not left[0]:
                done.set()

        worker = Worker(broker, "orders", handler, group="g")
        running = asyncio.create_task(worker.run())
        with Meter() as meter:
            await done.wait()
        await worker.shutdown()
        await running
        return table.row("consume_worker_explicit", count, meter, "wanted <= 7 µs CPU")


async def pull_and_ack(table, folder, count):
    """The session itself."""
    async with streams_in(folder, "pull") as streams:
        await fill(streams, count)
        consumer = await (await streams.stream("S")).create_consumer(ConsumerConfig(durable="c", max_ack_pending=None))
        session = consumer.session(SessionOptions())
        with Meter() as meter:
            await take(session, count)
        await session.aclose()
        table.row("pull + ack", count, meter, "wanted >= 300,000/s")


async def fill(streams, count, subject="s.a"):
    batch = [StreamMessage(subject, BODY) for _ in range(1_000)]
    for _ in range(count // 1_000):
        await streams.publish_many(batch)


async def take(session, count):
    while count > 0:
        got = await session.pull(min(1_000, count), 1.0)
        for msg in got:
            await msg.ack()
        count -= len(got)
    await session.flush()


async def backlog_independence(table, folder, sizes):
    """The cost of one more message, whatever is stored: publish, claim and ack, last for a subject."""
    costs = {}
    for size in sizes:
        async with streams_in(folder, f"backlog{size}") as streams:
            await fill(streams, size)
            stream = await streams.stream("S")
            session = (await stream.create_consumer(ConsumerConfig(durable="c"))).session(SessionOptions())
            count, cost = 20_000, {}
            with Meter() as meter:
                await fill(streams, count)
            cost["publish"] = meter.cpu / count
            with Meter() as meter:
                await take(session, count // 2)
            cost["claim and ack"] = meter.cpu / (count // 2)
            with Meter() as meter:
                for _ in range(500):
                    await stream.get_last_msg_for_subject("s.a")
            cost["last for subject"] = meter.cpu / 500
            costs[size] = cost
            await session.aclose()
    first, last = costs[sizes[0]], costs[sizes[-1]]
    for name, cost in first.items():
        ratio = last[name] / cost
        print(f"backlog: {name:<25}{cost * 1e6:>9.2f} µs at {sizes[0]:,}, {last[name] * 1e6:.2f} at {sizes[-1]:,}: "
              f"{ratio:.2f}x (wanted <= 1.25)")  # fmt: skip


CRASH = """
import asyncio, os, signal, sys
from headrace import embedded
from headrace.streams.config import StreamConfig, StreamMessage
async def main():
    async with embedded.open(sys.argv[1]) as streams:
        await streams.create_stream(StreamConfig(name="S", subjects=["s.>"]))
        batch = [StreamMessage("s.a", b"x" * 100) for _ in range(1_000)]
        for _ in range(int(sys.argv[2]) // 1_000):
            await streams.publish_many(batch)
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


async def open_after_crash(folder, count):
    """How long the first open takes after a kill with a log full of messages."""
    path = Path(folder) / "crash"
    done = subprocess.run([sys.executable, "-c", CRASH, str(path), str(count)], check=False)
    assert done.returncode == -signal.SIGKILL, f"ended with {done.returncode}"
    start = time.perf_counter()
    async with embedded.open(path) as streams:
        took = time.perf_counter() - start
        messages = (await (await streams.stream("S")).info()).state.messages
    print(f"open_after_crash: {took * 1e3:.0f} ms with {messages:,} messages (wanted < 1,000 ms)")


async def memory_slope(folder, count):
    """Resident memory over many messages, published and consumed with a bounded backlog."""
    async with streams_in(folder, "memory", max_messages=20_000) as streams:
        consumer = await (await streams.stream("S")).create_consumer(ConsumerConfig(durable="c", max_ack_pending=None))
        session, seen, step = consumer.session(SessionOptions()), [], count // 10
        for _ in range(10):
            for _ in range(step // 10_000):
                await fill(streams, 10_000)
                await take(session, 10_000)
            seen.append(resident())
        await session.aclose()
    slope = (statistics.mean(seen[-3:]) - statistics.mean(seen[2:5])) / (count * 0.5) * 1e6
    print(f"memory: {seen[0]:.0f} to {seen[-1]:.0f} MiB over {count:,} messages, {slope:+.2f} MiB per million")


def resident():
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def nats(table, folder, count, rates):
    """nats-server in its two manners, through nats-py."""
    if peers.missing("nats"):
        return
    for always in (True, False):
        manner = "always" if always else "default"
        with peers.nats_server(folder, always=always) as url:
            small = count // 10 if always else count
            rate = await peers.nats_publish(url, small, TASKS)
            table.peer(f"  nats-server {manner}, publish", rate, f"headrace: {rates['publish'] / rate:.1f}x")
            rate = await peers.nats_consume(url, small)
            table.peer(f"  nats-server {manner}, consume", rate, f"headrace: {rates['consume'] / rate:.1f}x")


async def everything(folder, *, small):
    scale = 10 if small else 1
    before, table, rates = raw_rate(folder), Table(), {}
    rates["publish"] = await publish_awaiting(table, folder, 100_000 // scale, TASKS, "publish_100_awaiting")
    one = await publish_awaiting(table, folder, 2_000 // scale, 1, "publish_one_awaiting")
    print(f"{'':<34}publish_one_awaiting / raw sync rate: {one / before:.2f} (wanted >= 0.55)")
    ids = await publish_awaiting(table, folder, 100_000 // scale, TASKS, "dedup_ids", ids=True)
    print(f"{'':<34}dedup_ids / publish_100_awaiting: {ids / rates['publish']:.2f} (wanted >= 0.6)")
    await publish_batches(table, folder, 200_000 // scale)
    rates["consume"] = await consume_worker(table, folder, 200_000 // scale)
    await pull_and_ack(table, folder, 300_000 // scale)
    await nats(table, folder, 20_000 // scale, rates)
    for name, (put, get) in peers.sqlite_queues(folder, 2_000 // scale).items():
        table.peer(
            f"  {name}, put", put, f"headrace: {rates['publish'] / put:.1f}x (100 tasks), {one / put:.1f}x (one)"
        )
        table.peer(f"  {name}, get and ack", get, f"headrace: {rates['consume'] / get:.1f}x")
    await backlog_independence(table, folder, (10_000, 1_000_000 // scale))
    await open_after_crash(folder, 1_000_000 // scale)
    await memory_slope(folder, 1_000_000 // scale)
    after = raw_rate(folder)
    apart = abs(after - before) / before
    print(
        f"raw append + fdatasync: {before:,.0f}/s before, {after:,.0f}/s after: {'NOISY' if apart > NOISY else 'quiet'}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a tenth of the messages: does it run at all")
    parser.add_argument("--directory", help="where to measure (default: a temporary directory)")
    given = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="headrace-bench-", dir=given.directory)
    try:
        asyncio.run(everything(folder, small=given.small))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
