"""`headrace bench`: what this machine does, on the given URL: rates, and CPU time per message."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from typing import Annotated

import typer

from headrace.cli import records
from headrace.cli.opening import open_broker, run, streams_of
from headrace.cli.options import DEFAULT_URL, Json, Url, shown
from headrace.cli.output import Counter, counting, print_document, print_table
from headrace.core.broker import Broker
from headrace.core.delivery import Delivery
from headrace.core.errors import PublishError
from headrace.core.message import Message
from headrace.flow.worker import Worker
from headrace.streams.errors import StreamNotFoundError

__all__ = ["bench"]

_BATCH = 1_000
_TASKS = 100
_ALONE_SECONDS = 1.0


@dataclass(frozen=True)
class _Result:
    """One measurement; CPU time is that of the whole process, its threads included."""

    name: str
    messages: int
    seconds: float
    cpu_seconds: float

    @property
    def cpu_us(self) -> float:
        return self.cpu_seconds / self.messages * 1e6

    def facts(self) -> dict[str, object]:
        return {
            "name": self.name,
            "messages": self.messages,
            "seconds": round(self.seconds, 6),
            "per_second": round(self.messages / self.seconds, 1),
            "cpu_us_per_message": round(self.cpu_us, 2),
        }


class _Watch:
    """Measures from its making."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def result(self, name: str, messages: int) -> _Result:
        return _Result(name, messages, time.perf_counter() - self._wall, time.process_time() - self._cpu)


def bench(
    messages: Annotated[int, typer.Option("--messages", "-n", min=1, help="How many.")] = 100_000,
    size: Annotated[int, typer.Option("--size", min=0, help="Bytes of a body.")] = 100,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Publish and consume on the given URL, in a stream of its own that is removed afterwards.

    Every receipt is waited for, every message acknowledged. Rates are of one process on this machine.
    """
    results = run(_bench(url, messages, size))
    if json:
        print_document({"url": shown(url), "size": size, "results": [result.facts() for result in results]})
        return
    print_table(
        ("what", "messages", "per second", "CPU µs per message"),
        ((each.name, each.messages, round(each.messages / each.seconds), f"{each.cpu_us:.1f}") for each in results),
        empty="",
    )


async def _bench(url: str, count: int, size: int) -> list[_Result]:
    async with open_broker(url) as broker, _topic(broker) as topic:
        body = os.urandom(size // 2 + 1).hex()[:size].encode()
        with counting("bench", 3 * count) as counter:
            alone = await _alone(broker, topic, body)
            beside = await _side_by_side(broker, topic, body, count, counter)
            batches = await _batches(broker, topic, body, count, counter)
            stored = alone.messages + beside.messages + batches.messages
            consumed = await _consume(broker, topic, stored, counter)
    return [alone, beside, batches, consumed]


@contextlib.asynccontextmanager
async def _topic(broker: Broker) -> AsyncGenerator[str]:
    """A topic that nobody else uses; its stream goes with it."""
    topic = f"headrace-bench-{os.getpid()}-{time.time_ns() // 1_000_000}"
    try:
        await broker.declare(topic)
        yield topic
    finally:
        # a Ctrl-C may come while it is made: deleting waits its turn behind that, looking for it would not
        if (kafka := records.kafka_of(broker)) is not None:
            await records.delete_topic(kafka, topic)
        else:
            with contextlib.suppress(StreamNotFoundError):
                await streams_of(broker).delete_stream(topic)


def _keyed(topic: str, body: bytes) -> Callable[[int], Message]:
    keys = [str(number).encode() for number in range(_TASKS)]
    return lambda number: Message(topic=topic, body=body, key=keys[number % _TASKS])


async def _alone(broker: Broker, topic: str, body: bytes) -> _Result:
    """One after the other: each waits for the receipt of the one before."""
    make, sent = _keyed(topic, body), 0
    watch, end = _Watch(), time.perf_counter() + _ALONE_SECONDS
    while time.perf_counter() < end:
        await broker.publish(make(sent))
        sent += 1
    return watch.result("publish, one at a time", sent)


async def _side_by_side(broker: Broker, topic: str, body: bytes, count: int, counter: Counter) -> _Result:
    """Many tasks, each of which waits for its receipts."""
    make = _keyed(topic, body)

    async def task(numbers: Iterator[int]) -> None:
        for number in numbers:
            await broker.publish(make(number))
            counter(1)

    numbers = iter(range(count))  # shared: whoever is free takes the next
    watch = _Watch()
    async with asyncio.TaskGroup() as group:
        for _ in range(min(_TASKS, count)):
            group.create_task(task(numbers))
    return watch.result(f"publish, {_TASKS} tasks", count)


async def _batches(broker: Broker, topic: str, body: bytes, count: int, counter: Counter) -> _Result:
    """A thousand at a time."""
    make = _keyed(topic, body)
    watch = _Watch()
    for start in range(0, count, _BATCH):
        batch = [make(number) for number in range(start, min(start + _BATCH, count))]
        for result in await broker.publish_batch(batch):
            if isinstance(result, PublishError):
                raise result
        counter(len(batch))
    return watch.result(f"publish, batches of {_BATCH:,}", count)


async def _consume(broker: Broker, topic: str, count: int, counter: Counter) -> _Result:
    """A worker with a handler that does nothing, until the last acknowledgement is confirmed."""
    handled = 0
    finished = asyncio.Event()

    async def handle(_: Delivery) -> None:
        nonlocal handled
        handled += 1
        if handled == count:
            finished.set()

    watch = _Watch()
    async with Worker(broker, topic, handle, group="bench"):
        last = 0
        while not finished.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(finished.wait(), 0.1)
            counter(handled - last)
            last = handled
    return watch.result("consume, Worker, no-op handler", count)
