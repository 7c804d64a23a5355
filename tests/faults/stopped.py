"""One process of the SIGSTOP tests, stopped from outside where it hurts; it speaks in lines on stdout.

``python stopped.py DIRECTORY lease`` holds three messages, and acks them when a line comes on stdin.
``python stopped.py DIRECTORY streams|consumers`` publishes one message, then keeps the write turn of that file for a
moment; with streams the commit of another message is behind it.
"""

import asyncio
import sys
import time

from headrace import embedded
from headrace.streams.session import SessionOptions


def say(*words):
    print(*words, flush=True)


async def lease(streams):
    session = (await streams.consumer("S", "c")).session(SessionOptions())
    messages = []
    while len(messages) < 3:
        messages += await session.pull(3 - len(messages), 5)
    say("holds", *[message.metadata.sequence.stream for message in messages])
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    for message in messages:
        await message.ack()
    await session.flush()
    say("late", session.late_settles)


async def inside(streams, file):
    def keep(_):
        say("inside")
        time.sleep(1.0)  # it is stopped here, with SQLite's write lock and the turnstile's

    say("P", (await streams.publish("S", b"before")).sequence)
    work = [getattr(streams._store, file).call(keep)]
    if file == "streams":  # else it could be stopped in the turn of this one
        work.append(streams.publish("S", b"behind"))
    await asyncio.gather(*work)
    say("done")


async def main(path, what):
    async with embedded.open(path) as streams:
        await (lease(streams) if what == "lease" else inside(streams, what))
    say("closed")


asyncio.run(main(sys.argv[1], sys.argv[2]))
