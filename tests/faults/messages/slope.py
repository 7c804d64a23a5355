"""A process that publishes and handles messages, and says how much memory it has: ``python slope.py DIRECTORY COUNT``.

``M handled resident`` (bytes) every twentieth of the way.
"""

import asyncio
import gc
import os
import sys
from pathlib import Path

from headrace.connect import connect
from headrace.core.message import Message
from headrace.embedded import EmbeddedOptions
from headrace.flow import Worker
from headrace.streams.config import RetentionPolicy, StreamConfig

BATCH, AHEAD = 1_000, 5_000


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def main(where, count):
    handled = 0
    said = 0

    async def handle(message: Message) -> None:
        nonlocal handled
        handled += 1

    async with connect(where, options=EmbeddedOptions(reserve_bytes=0)) as broker:
        config = StreamConfig(name="orders", retention=RetentionPolicy.WORKQUEUE, duplicate_window=1)
        await broker.streams.create_stream(config)
        async with Worker(broker, "orders", handle, group="g"):
            for sent in range(0, count, BATCH):
                batch = [Message(topic="orders", key=b"%d" % (each % 500), body=bytes(100)) for each in range(BATCH)]
                await broker.publish_batch(batch)
                while sent - handled > AHEAD:
                    await asyncio.sleep(0.001)
                if handled >= said + count // 20:
                    said = handled
                    gc.collect()
                    print("M", handled, resident(), flush=True)
            while handled < count:
                await asyncio.sleep(0.01)
        print("M", handled, resident(), flush=True)


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
