"""What a message costs between an engine and your function (spec/messages.md, section 6).

``python benchmarks/messages.py [--small] [only …]``: CPU microseconds per message, median of 5, side by side.
Peers that are not installed are skipped aloud.
"""

from __future__ import annotations

import argparse
import asyncio
import contextvars
import logging
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from benchmarks.listed import ListBroker, ListSubscription
from headrace.core.delivery import Delivery
from headrace.core.headers import Headers
from headrace.core.message import Message
from headrace.flow.keyed import Ordering
from headrace.flow.retry import RetryPolicy
from headrace.flow.worker import Worker

MESSAGES = 200_000
KEYS = 1_000
ROUNDS = 5
BODY = bytes(100)

Bench = Callable[[int], Awaitable[float]]
BENCHES: dict[str, Bench] = {}


def bench(function: Bench) -> Bench:
    BENCHES[function.__name__] = function
    return function


def messages_of(count: int) -> list[Message]:
    return [Message(topic="orders", body=BODY, key=b"%d" % (number % KEYS)) for number in range(count)]


def counting() -> Callable[[Delivery], Awaitable[None]]:
    count = 0

    async def handler(delivery: Delivery) -> None:
        nonlocal count
        count += 1

    return handler


async def cpu_of_worker(count: int, handler: Callable[..., Any] | None = None, **options: Any) -> float:
    broker = ListBroker(messages_of(count))
    worker = Worker(broker, "orders", handler or counting(), group="g", **options)
    async with worker:
        assert broker.subscription is not None
        before = time.process_time()
        await broker.subscription.done
        return time.process_time() - before


@bench
async def bare_loop(count: int) -> float:
    subscription, handler = ListSubscription(messages_of(count)), counting()
    before = time.process_time()
    while subscription.left:
        for delivery in await subscription.pull(256, 1.0):
            await handler(delivery)
            delivery.ack()
    return time.process_time() - before


@bench
async def worker_one(count: int) -> float:
    return await cpu_of_worker(count, concurrency=1)


@bench
async def worker_key(count: int) -> float:
    return await cpu_of_worker(count)


@bench
async def worker_none(count: int) -> float:
    return await cpu_of_worker(count, ordering=Ordering.NONE)


async def _nothing(item: Any, call_next: Any) -> None:
    await call_next(item)


@bench
async def layers_0(count: int) -> float:
    return await cpu_of_worker(count)


@bench
async def layers_5(count: int) -> float:
    return await cpu_of_worker(count, middleware=[_nothing] * 5)


@bench
async def layers_10(count: int) -> float:
    return await cpu_of_worker(count, middleware=[_nothing] * 10)


@bench
async def queue_workers(count: int) -> float:
    queue: asyncio.Queue[Delivery] = asyncio.Queue(256)
    subscription, handler = ListSubscription(messages_of(count)), counting()

    async def work() -> None:
        while True:
            delivery = await queue.get()
            await handler(delivery)
            delivery.ack()

    before = time.process_time()
    tasks = [asyncio.create_task(work()) for _ in range(8)]
    for delivery in subscription.deliveries:
        await queue.put(delivery)
    await subscription.done
    spent = time.process_time() - before
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return spent


async def _suspends(delivery: Delivery) -> None:
    await asyncio.sleep(0)


@bench
async def handler_suspends_once(count: int) -> float:
    return await cpu_of_worker(count, _suspends)


@bench
async def task_per_message(count: int) -> float:
    subscription = ListSubscription(messages_of(count))
    places = asyncio.Semaphore(32)

    async def work(delivery: Delivery) -> None:
        await _suspends(delivery)
        delivery.ack()
        places.release()

    before = time.process_time()
    held: set[asyncio.Task[None]] = set()
    for delivery in subscription.deliveries:
        await places.acquire()
        task = asyncio.create_task(work(delivery), context=contextvars.copy_context())
        held.add(task)
        task.add_done_callback(held.discard)
    await subscription.done
    spent = time.process_time() - before
    await asyncio.gather(*held)
    return spent


@bench
async def message_new(count: int) -> float:
    before = time.process_time()
    for _ in range(count):
        Message(topic="orders", body=BODY)
    return time.process_time() - before


@bench
async def headers_get(count: int) -> float:
    block = b"".join(b"X-Header-%d: value %d\r\n" % (number, number) for number in range(8))
    before = time.process_time()
    for _ in range(count):
        Headers.from_block(block).get("x-header-5")
    return time.process_time() - before


class Order(msgspec.Struct):
    """About 200 bytes as JSON."""

    id: int
    customer: str
    lines: list[str]
    note: str


async def _order(order: Order) -> None:
    pass


@bench
async def json_handler(count: int) -> float:
    body = msgspec.json.encode(Order(7, "customer-42", ["one line", "another line"], "n" * 110))
    broker = ListBroker([message.replace(body=body) for message in messages_of(count)])
    async with Worker(broker, "orders", _order, group="g"):
        assert broker.subscription is not None
        before = time.process_time()
        await broker.subscription.done
        return time.process_time() - before


@bench
async def one_slow_key(count: int) -> float:
    """The other 999 keys while key 0 is always in retry: the cost of theirs."""
    messages = [message for message in messages_of(count) if message.key != b"0"]
    slow = [Message(topic="orders", body=b"slow", key=b"0") for _ in range(8)]
    broker = ListBroker(slow + messages)

    async def handler(delivery: Delivery) -> None:
        if delivery.message.body == b"slow":
            raise ValueError

    worker = Worker(broker, "orders", handler, group="g", retry=RetryPolicy(initial=0.002, maximum=0.002))
    async with worker:
        assert broker.subscription is not None
        others = len(messages)
        before = time.process_time()
        while worker.stats.acked < others:
            await asyncio.sleep(0.001)
        spent = time.process_time() - before
        await worker.shutdown()
    return spent


async def _faststream_memory(count: int) -> float:
    from faststream.nats import NatsBroker, TestNatsBroker

    broker = NatsBroker()
    seen = 0

    @broker.subscriber("orders")
    async def handler(body: bytes) -> None:
        nonlocal seen
        seen += 1

    async with TestNatsBroker(broker) as running:
        before = time.process_time()
        for _ in range(count):
            await running.publish(BODY, "orders")
        return time.process_time() - before


async def _headrace_memory(count: int) -> float:
    return await _memory(count, 1_000)


async def _headrace_memory_one_by_one(count: int) -> float:
    return await _memory(count, 1)


async def _memory(count: int, at_once: int) -> float:
    from headrace.connect import connect
    from headrace.flow.topic import Topic

    async with connect(":memory:") as broker:
        done, left = asyncio.get_running_loop().create_future(), count

        async def handler(body: bytes) -> None:
            nonlocal left
            left -= 1
            if not left:
                done.set_result(None)

        async with Worker(broker, "orders", handler, group="g"):
            before = time.process_time()
            topic = Topic(broker, "orders")
            for start in range(0, count, at_once):
                if at_once == 1:
                    await topic.send(BODY)
                else:
                    await topic.send_many([BODY] * min(at_once, count - start))
            await done
            return time.process_time() - before


def peers() -> None:
    """Against FastStream's in-memory test broker, publish to handler; fewer messages, it is slow.

    Ours is durable in kind (a transaction per publish), so it is measured by thousands and one by one as well.
    """
    for function in (_faststream_memory, _headrace_memory, _headrace_memory_one_by_one):
        name = function.__name__.removeprefix("_")
        try:
            asyncio.run(function(1))
        except ImportError as error:
            print(f"{name}: SKIPPED, {error}")
        else:
            BENCHES[name] = function


def measure(names: Sequence[str], count: int, rounds: int) -> dict[str, float]:
    """CPU microseconds per message, median over rounds that take turns."""
    spent: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            share = max(count // 20, 1_000) if "_memory" in name else count
            spent[name].append(asyncio.run(_one(BENCHES[name], share)) / share * 1e6)
    return {name: statistics.median(values) for name, values in spent.items()}


async def _one(function: Bench, count: int) -> float:
    return await function(count)


def report(result: Mapping[str, float]) -> None:
    base = result.get("bare_loop")
    print(f"{'benchmark':24} {'us/message':>10} {'above bare':>10}")
    for name, value in result.items():
        above = f"{value - base:10.2f}" if base is not None and name.startswith(("worker", "layers")) else ""
        print(f"{name:24} {value:10.2f} {above}")
    targets = (
        ("worker_key", "worker_one", 1.5),
        ("worker_one", "queue_workers", 1.0),
        ("worker_key", "queue_workers", 1.3),
        ("handler_suspends_once", "task_per_message", 0.6),
        ("one_slow_key", "worker_key", 1.1),
        ("headrace_memory", "faststream_memory", 0.2),
        ("headrace_memory_one_by_one", "faststream_memory", 0.2),
    )
    for one, other, most in targets:
        if one in result and other in result:
            print(f"{one} / {other} = {result[one] / result[other]:.2f} (target <= {most})")
    if "layers_10" in result and "layers_0" in result:
        print(f"per layer = {(result['layers_10'] - result['layers_0']) / 10:.2f} us (target <= 0.2)")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a tenth of the messages, 3 rounds")
    parser.add_argument("only", nargs="*", help="names of benchmarks")
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    peers()
    names = [name for name in BENCHES if not given.only or name in given.only]
    report(measure(names, MESSAGES // 10 if given.small else MESSAGES, 3 if given.small else ROUNDS))


if __name__ == "__main__":
    main()
