"""One process of the fault tests: publishes, handles, or both, and writes down what it knows as soon as it knows it.

``python member.py DIRECTORY LOG publish|flood|handle|both [NAME [COUNT]]``. Lines: ``R`` (open), ``P sequence body``
(receipt there), ``H sequence key attempt body`` (handler begins), ``L microseconds commits`` (worst publish, commits of
this process), ``E`` (ended well). Beside the directory, ``go`` begins a flood, ``stop`` ends a flood and ``handle``.
"""

import asyncio
import itertools
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from headrace.connect import connect
from headrace.core.broker import SubscribeOptions
from headrace.core.delivery import Delivery
from headrace.core.message import Message
from headrace.flow.worker import Worker

KEYS = 5


class Log:
    def __init__(self, path):
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, *words):
        os.write(self.file, (" ".join(map(str, words)) + "\n").encode())


async def publish(broker, log, name, count):
    """`count` messages by four tasks (for ever: 0; till then: a function); a key belongs to one task."""
    worst, before = [0.0], broker.streams.stats().commits

    async def task(number):
        for done in itertools.count() if callable(count) else range(count // 4 or sys.maxsize):
            if callable(count) and count():
                break
            key = f"{name}.{number}.{done % KEYS}"
            start = time.perf_counter()
            body = f"{name}-{number}-{done}"
            receipt = await broker.publish(Message(topic="orders", key=key.encode(), body=body.encode()))
            worst[0] = max(worst[0], time.perf_counter() - start)
            log.write("P", receipt.position.value, body)

    await asyncio.gather(*(task(number) for number in range(4)))
    log.write("L", round(worst[0] * 1e6), broker.streams.stats().commits - before)


class Baton:
    """Keeps one first run open until the next one comes, so that a kill always finds something unfinished."""

    def __init__(self):
        self.last = asyncio.Event()

    async def keep(self):
        self.last.set()
        self.last = mine = asyncio.Event()
        with suppress(TimeoutError):
            await asyncio.wait_for(mine.wait(), 1.0)


async def handle(broker, log, until):
    """Handle until `until` says so (or for ever: then one is always kept open)."""
    baton = Baton()

    async def handler(delivery: Delivery):
        message = delivery.message
        log.write("H", delivery.position.value, message.key.decode(), delivery.attempt, message.body.decode())
        await (asyncio.sleep(0.002) if until or delivery.attempt > 1 else baton.keep())

    worker = Worker(broker, "orders", handler, group="g", concurrency=8, subscribe=SubscribeOptions(lease=5.0))
    running = asyncio.create_task(worker.run())
    while not (running.done() or (until and until())):
        await asyncio.sleep(0.05)
    await worker.shutdown()
    await running


async def main(directory, path, role, name="p", count="0"):
    log = Log(path)
    stop = Path(directory).parent / "stop"
    async with connect(directory) as broker:
        await broker.declare("orders")
        log.write("R")
        if role == "publish":
            await publish(broker, log, name, int(count))
        elif role == "flood":
            while not stop.with_name("go").exists():
                await asyncio.sleep(0.005)
            await publish(broker, log, name, stop.exists)
        elif role == "handle":
            await handle(broker, log, stop.exists)
        else:
            await asyncio.gather(publish(broker, log, name, 0), handle(broker, log, None))
    log.write("E")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
