"""A publisher in a process of its own: `python publisher.py <directory> flat` or `... ids <id>...`; lines on stdout.

flat: publish one after the other between two lines on stdin, then say how many. ids: one publish each, say what came.
"""

import asyncio
import sys

from headrace import embedded


async def flat(streams):
    loop = asyncio.get_running_loop()
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    stop, count = loop.run_in_executor(None, sys.stdin.readline), 0
    while not stop.done():
        await streams.publish("S", b"x" * 100)
        count += 1
    print(count, flush=True)


async def ids(streams):
    for msg_id in sys.argv[3:]:
        ack = await streams.publish("S", b"x", msg_id=msg_id)
        print(ack.sequence, ack.duplicate, flush=True)


async def main():
    async with embedded.open(sys.argv[1]) as streams:
        await {"flat": flat, "ids": ids}[sys.argv[2]](streams)


asyncio.run(main())
