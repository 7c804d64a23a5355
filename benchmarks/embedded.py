"""The embedded engine beside its peers and its disk (spec/embedded.md, section 6)."""

import argparse
import asyncio
import shutil
import statistics
import tempfile
from pathlib import Path

from benchmarks import peers, processes
from benchmarks.tools import BODY, Meter, Table, fill, loop_cost, raw_rate, resident, streams_in, take
from headrace.connect import connect
from headrace.core.delivery import Delivery
from headrace.core.message import Message
from headrace.flow.worker import Worker
from headrace.streams.config import ConsumerConfig, StreamMessage
from headrace.streams.session import SessionOptions

TASKS = 100
NOISY = 0.25


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
    """By thousands: through the Broker with ids and headers, natively with ids only, and without."""
    async with connect(str(Path(folder) / "batch")) as broker:
        await broker.declare("orders")
        batches = [
            [Message(topic="orders", body=BODY, key=b"k%d" % n) for n in range(1_000)] for _ in range(count // 1_000)
        ]
        with Meter() as meter:
            for batch in batches:
                await broker.publish_batch(batch)
        table.row("publish_batch_1000", count, meter, "wanted >= 150,000/s")
    rates = {}
    for name in ("publish_many", "dedup_ids, publish_many"):
        async with streams_in(folder, name) as streams:
            starts = range(0, count, 1_000)
            batches = [[message_of(first + n if "ids" in name else None) for n in range(1_000)] for first in starts]
            with Meter() as meter:
                for batch in batches:
                    await streams.publish_many(batch)
            remark = "without ids; wanted >= 300,000/s" if "ids" not in name else ""
            rates[name] = table.row(name, count, meter, remark)
    plain, ids = rates.values()
    print(f"{'':<34}dedup_ids / publish_many: {ids / plain:.2f} (wanted >= 0.6)")


def message_of(number):
    return StreamMessage("s.a", BODY, msg_id=None if number is None else f"{number:032x}")


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


async def sparse_filter(folder, sizes):
    """Ten matching messages among few and among many, in ten thousand subjects."""
    costs = []
    for size in sizes:
        async with streams_in(folder, f"sparse{size}") as streams:
            for first in range(0, size, 1_000):
                many = [StreamMessage(f"s.{(first + n) % 10_000}", BODY) for n in range(1_000)]
                await streams.publish_many(many)
            for _ in range(10):
                await streams.publish("s.wanted", BODY)
            stream = await streams.stream("S")
            best = float("inf")
            for turn in range(5):
                wanted = ConsumerConfig(durable=f"c{turn}", filter_subject="s.wanted")
                session = (await stream.create_consumer(wanted)).session(SessionOptions())
                with Meter() as meter:
                    await take(session, 10)
                best = min(best, meter.cpu)
                await session.aclose()
            costs.append(best)
    found = [f"{cost * 1e3:.2f} ms for 10 of {size:,}" for cost, size in zip(costs, sizes, strict=True)]
    print(f"sparse_filter: {', '.join(found)}: {costs[1] / costs[0]:.2f}x (wanted <= 3)")


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


async def nats(table, folder, count, rates):
    """nats-server in its two manners, through nats-py."""
    if peers.missing("nats"):
        return
    for always in (True, False):
        manner = "always" if always else "default"
        with peers.nats_server(folder, always=always) as server:
            small = count // 10 if always else count
            rate = await peers.nats_publish(server.url, small, TASKS)
            table.peer(f"  nats-server {manner}, publish", rate, f"headrace: {rates['publish'] / rate:.1f}x")
            rate = await peers.nats_consume(server.url, small)
            table.peer(f"  nats-server {manner}, consume", rate, f"headrace: {rates['consume'] / rate:.1f}x")


async def everything(folder, *, small):
    scale = 10 if small else 1
    print(f"this machine now: {loop_cost():.3f} µs for one round of a plain loop")
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
    await sparse_filter(folder, (10_000, 1_000_000 // scale))
    await processes.publish_while_consuming(folder, 100_000 // scale)
    await processes.wake_up(folder, 500 // scale)
    await processes.open_after_crash(folder, 1_000_000 // scale)
    await memory_slope(folder, 1_000_000 // scale)
    print(f"this machine now: {loop_cost():.3f} µs for one round of a plain loop")
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
