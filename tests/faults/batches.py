"""Publishes atomically, batch after batch, until it is killed: ``python batches.py DIRECTORY LOG``.

Lines: ``P last count name`` once a receipt is there; the bodies of a batch are ``name-place``.
"""

import asyncio
import itertools
import os
import sys

from headrace import embedded
from headrace.streams.config import StreamConfig, StreamMessage

SIZES = (1, 7, 60, 400)
CONFIG = StreamConfig(name="S", subjects=["s.>"], allow_atomic=True)


async def main(directory, path, name):
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    async def task(streams, number):
        for done in itertools.count(number):
            batch = f"{name}.{number}.{done}"
            bodies = [f"{batch}-{place}".encode() for place in range(SIZES[done % len(SIZES)])]
            messages = [StreamMessage(f"s.{place % 3}", body) for place, body in enumerate(bodies)]
            ack = await streams.publish_atomic(messages)
            os.write(log, f"P {ack.sequence} {ack.batch_size} {batch}\n".encode())

    async with embedded.open(directory) as streams:
        await streams.create_stream(CONFIG)
        await asyncio.gather(*(task(streams, number) for number in range(3)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
