"""Nothing is left running or open, however a worker, a reader or an engine ends: tasks, threads, descriptors."""

import asyncio
import threading
import time
from contextlib import suppress

import pytest

from headrace import embedded
from headrace.connect import connect
from headrace.core.broker import SubscribeOptions
from headrace.core.delivery import Delivery
from headrace.core.errors import HandlerError, HeadraceError, RejectError
from headrace.flow import STOP, RetryPolicy, Topic, Worker
from headrace.streams.config import ConsumerConfig, StreamConfig
from headrace.testing.idle import run_until_idle
from headrace.testing.recording import RecordingHandler
from tests.conftest import alive


async def fill(broker, count=3):
    for number in range(count):
        await Topic(broker, "orders").send(b"%d" % number)


async def a_worker_that_ends_well(path):
    async with connect(str(path)) as broker:
        await fill(broker)
        await run_until_idle(Worker(broker, "orders", RecordingHandler(), group="g"))


async def a_worker_with_threads(path):
    names = []

    def handler(body: bytes) -> None:
        names.append(threading.current_thread().name)

    async with connect(str(path)) as broker:
        await fill(broker)
        await run_until_idle(Worker(broker, "orders", handler, group="g"))
    assert all(name.startswith("headrace") for name in names)


async def a_worker_that_stops(path):
    async with connect(str(path)) as broker:
        await fill(broker)
        handler = RecordingHandler(fail=lambda *_: ValueError("no"))
        retry = RetryPolicy(max_attempts=1)
        with suppress(HandlerError):
            await Worker(broker, "orders", handler, group="g", retry=retry, on_exhausted=STOP).run()


async def a_worker_that_is_cancelled(path):
    async with connect(str(path)) as broker:
        await fill(broker)
        handler = RecordingHandler(then=lambda _: asyncio.Event().wait())
        running = asyncio.create_task(Worker(broker, "orders", handler, group="g").run())
        await handler.wait_for(1)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def a_block_that_raises(path):
    with suppress(KeyError):
        async with connect(str(path)) as broker:
            await fill(broker)
            async with Worker(broker, "orders", RecordingHandler(), group="g"):
                raise KeyError("mine")


async def a_block_that_its_worker_ends(path):
    with suppress(RejectError):
        async with connect(str(path)) as broker:
            await fill(broker)
            async with Worker(broker, "orders", RecordingHandler(fail=lambda *_: RejectError("no")), group="g"):
                await asyncio.Event().wait()


async def subscriptions_left_open(path):
    async with connect(str(path)) as broker:
        await fill(broker)
        for group in ("g", None):
            subscription = await broker.subscribe("orders", SubscribeOptions(group=group)).__aenter__()
            await subscription.pull(1, 0)


async def readers_left_open(path):
    async with embedded.open(path) as streams:
        stream = await streams.create_stream(StreamConfig(name="S", subjects=["s"]))
        consumer = await stream.create_consumer(ConsumerConfig(durable="c"))
        futures = [await streams.publish_async("s") for _ in range(10)]
        messages = consumer.messages()
        await messages.next(5.0)
        async for _ in consumer.fetch(2, max_wait=0.05):
            break
        consumer.consume(lambda _: None)
        pull = asyncio.create_task(messages.next())
        await asyncio.sleep(0)
        del futures
    messages.stop()
    await asyncio.gather(pull, return_exceptions=True)
    await messages.wait_closed()


async def an_open_that_fails(path):
    path.mkdir(mode=0o700)
    (path / "streams.db").write_bytes(b"something else")
    with pytest.raises(HeadraceError):
        async with connect(str(path)):
            pass


async def an_open_that_is_cancelled(path):
    async def opens(number):
        async with connect(str(path)) as broker:
            await fill(broker, number)

    for number in range(8):
        task = asyncio.create_task(opens(number))
        for _ in range(number):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


WAYS = [
    a_worker_that_ends_well,
    a_worker_with_threads,
    a_worker_that_stops,
    a_worker_that_is_cancelled,
    a_block_that_raises,
    a_block_that_its_worker_ends,
    subscriptions_left_open,
    readers_left_open,
    an_open_that_fails,
    an_open_that_is_cancelled,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_no_leaks(way, tmp_path):
    before = alive()

    async def main():
        await way(tmp_path / "data")
        assert {task for task in asyncio.all_tasks() if task is not asyncio.current_task()} == set()

    asyncio.run(main())
    deadline = time.monotonic() + 1.0  # a thread that was told to end is given a moment
    while (left := alive() - before) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left


async def handle(delivery: Delivery) -> None:
    pass


def test_no_descriptor_per_round(tmp_path):
    """What one round leaves would be lost among many; twenty rounds leave twenty."""

    async def main():
        for _ in range(20):
            async with connect(str(tmp_path / "data")) as broker:
                await fill(broker, 1)
                await run_until_idle(Worker(broker, "orders", handle, group="g"))

    before = alive()
    asyncio.run(main())
    deadline = time.monotonic() + 1.0
    while (left := alive() - before) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left
