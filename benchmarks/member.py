"""Another process of a benchmark: ``python -m benchmarks.member crash|consume|wake DIRECTORY NUMBER``."""

import asyncio
import json
import os
import signal
import sys
import time

from benchmarks.tools import fill, streams_in
from headrace.connect import connect
from headrace.core.delivery import Delivery
from headrace.flow.worker import Worker
from headrace.streams.session import SessionOptions


async def crash(path, count):
    """Publish so many, then die with a full log."""
    async with streams_in(path, "", max_age=None) as streams:
        await fill(streams, count)
        os.kill(os.getpid(), signal.SIGKILL)


async def consume(path, _):
    """Handle messages of the group until the last line of input; say how many, and when the last one came."""
    seen = {"handled": 0, "last": 0}

    async def handler(_: Delivery):
        seen["handled"] += 1
        seen["last"] = time.monotonic_ns()

    async with connect(path, create=False) as broker, Worker(broker, "s.a", handler, group="g"):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
    print(json.dumps(seen), flush=True)


async def wake(path, count):
    """Idle for a while, then take each message as it comes; say the CPU of idling, and when each one came."""
    async with streams_in(path, "") as streams:
        session = (await streams.consumer("S", "c")).session(SessionOptions())
        pull = asyncio.ensure_future(session.pull(1, 60))
        await asyncio.sleep(0.5)
        cpu, wall = time.process_time(), time.monotonic()
        await asyncio.sleep(3)
        idle = (time.process_time() - cpu) / (time.monotonic() - wall)
        print("ready", flush=True)
        came = []
        while len(came) < count:
            for msg in await pull:
                came.append(time.monotonic_ns())
                await msg.ack()
            pull = asyncio.ensure_future(session.pull(1, 60))
        pull.cancel()
        await asyncio.gather(pull, return_exceptions=True)
        await session.aclose()
    print(json.dumps({"idle": idle, "came": came}), flush=True)


if __name__ == "__main__":
    asyncio.run({"crash": crash, "consume": consume, "wake": wake}[sys.argv[1]](sys.argv[2], int(sys.argv[3])))
