"""Benchmarks with several processes on one directory."""

import asyncio
import json
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.tools import BODY, Meter, streams_in
from headrace import embedded
from headrace.connect import connect
from headrace.streams.config import ConsumerConfig

TASKS = 100


def member(role, path, number=0):
    """A process beside this one, once it says that it is ready."""
    command = [sys.executable, "-m", "benchmarks.member", role, str(path), str(number)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


async def ready(*members):
    for each in members:
        line = await asyncio.to_thread(each.stdout.readline)
        assert line == "ready\n", f"a member said {line!r}"


async def publish(streams, count):
    async def task():
        for _ in range(count // TASKS):
            await streams.publish("s.a", BODY)

    with Meter() as meter:
        await asyncio.gather(*(task() for _ in range(TASKS)))
    return count / meter.wall


async def publish_while_consuming(folder, count):
    """One publisher alone, then beside two processes that share a group."""
    async with streams_in(folder, "alone") as streams:
        alone = await publish(streams, count)
    path = Path(folder) / "shared"
    async with connect(str(path)) as broker:
        await broker.declare("s.a")
        members = [member("consume", path) for _ in range(2)]
        await ready(*members)
        beside = await publish(broker.streams, count)
        ended = time.monotonic_ns()
        consumer = await broker.streams.consumer(*(await names(broker)))
        while (info := await consumer.info()).num_pending or info.num_ack_pending:
            await asyncio.sleep(0.02)
        seen = [json.loads(each.communicate("\n")[0]) for each in members]
    behind = (max(each["last"] for each in seen) - ended) / 1e6
    shares = " and ".join(f"{each['handled']:,}" for each in seen)
    print(f"publish_while_consuming: {beside:,.0f}/s, {beside / alone:.2f} of alone (wanted >= 0.7)")
    print(f"  the two consumers handled {shares}, the last message {behind:.0f} ms after the last receipt")


async def names(broker):
    """The stream, and the one consumer that its workers share."""
    stream = await broker.streams.stream_name_by_subject("s.a")
    async for name in (await broker.streams.stream(stream)).consumer_names():
        return stream, name
    raise AssertionError("the group has no consumer")


async def wake_up(folder, count):
    """How long after its receipt a message is in another process, and what waiting costs there."""
    path = Path(folder) / "wake"
    async with streams_in(path, "") as streams:
        await (await streams.stream("S")).create_consumer(ConsumerConfig(durable="c"))
        other = member("wake", path, count)
        await ready(other)
        stored = []
        for _ in range(count):
            await streams.publish("s.a", BODY)
            stored.append(time.monotonic_ns())
            await asyncio.sleep(0.005)
        told = json.loads((await asyncio.to_thread(other.communicate))[0])
    late = sorted((came - done) / 1e6 for came, done in zip(told["came"], stored, strict=True))
    middle, most = statistics.median(late), late[int(count * 0.99)]
    print(f"wake_up_two_processes: p50 {middle:.2f} ms, p99 {most:.2f} ms after the receipt (wanted p50 < 1)")
    print(f"  an idle consumer takes {told['idle'] * 100:.2f} % of a core (wanted <= 2)")


async def open_after_crash(folder, count):
    """How long the first open takes after a kill with a log full of messages."""
    path = Path(folder) / "crash"
    died = member("crash", path, count)
    assert died.wait() == -signal.SIGKILL, f"ended with {died.returncode}"
    start = time.perf_counter()
    async with embedded.open(path) as streams:
        took = time.perf_counter() - start
        messages = (await (await streams.stream("S")).info()).state.messages
    print(f"open_after_crash: {took * 1e3:.0f} ms with {messages:,} messages (wanted < 1,000 ms)")
