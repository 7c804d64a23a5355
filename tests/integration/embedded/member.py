"""One member of a group in a process of its own: `python member.py <directory> <what>`; it speaks in lines on stdout.

what: `share` (pull one by one, ack, until `stop` comes on stdin), `hold` (pull three, settle none, wait to be killed),
`wait` (one long pull; says what came, or the error, and how it was told). `hold` with `fork` leaves a
child behind that outlives it.
"""

import asyncio
import os
import sys
import time

from headrace import embedded
from headrace.core.errors import HeadraceError
from headrace.streams.session import SessionOptions


def say(*words):
    print(*words, flush=True)


async def share(session):
    told = asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    while not told.done():
        for message in await session.pull(7, 0.2):
            say("got", message.metadata.sequence.stream, message.metadata.num_delivered)
            await message.ack()
    await session.aclose()


async def hold(session):
    messages = []
    while len(messages) < 3:
        messages += await session.pull(3 - len(messages), 5)
    say("holds", *[message.metadata.sequence.stream for message in messages])
    if "fork" in sys.argv:
        say("child", outlive())
    await asyncio.sleep(60)


def outlive():
    child = os.fork()
    if not child:
        for descriptor in (0, 1, 2):
            os.close(descriptor)
        time.sleep(60)
        os._exit(0)
    return child


async def wait(session):
    say("parked")
    try:
        messages = await session.pull(5, 30)
    except HeadraceError as error:
        say(type(error).__name__)
    else:
        say("got", *[message.metadata.sequence.stream for message in messages])
        for message in messages:
            await message.double_ack()


def how(streams):
    """Whether another process has told that there is something, or only the poll can have found it."""
    return "woken" if streams.stats().wakeups else "polled"


async def main(path, what):
    async with embedded.open(path) as streams:
        if "deaf" in sys.argv:
            streams._room.consumers.shared.members._socket and streams._store.loop.remove_reader(
                streams._room.consumers.shared.members._socket.fileno()
            )
        session = (await streams.consumer("S", "c")).session(SessionOptions())
        await {"share": share, "hold": hold, "wait": wait}[what](session)
        if what == "wait":
            say(how(streams))
    say("closed")


asyncio.run(main(sys.argv[1], sys.argv[2]))
