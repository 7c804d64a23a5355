"""A process with hardly any descriptors: ``python starved.py DIRECTORY LOG``; ``P sequence body`` per receipt.

Says on stdout how often opening was refused and how often it went well, and exits with 1 if anything went wrong.
"""

import asyncio
import os
import resource
import sys
from contextlib import contextmanager, suppress

from headrace import embedded
from headrace.core.errors import HeadraceError, StoreError
from headrace.embedded import EmbeddedOptions
from headrace.streams.config import StreamConfig

SMALL = EmbeddedOptions(reserve_bytes=0)


def descriptors():
    found = set()
    for number in range(256):
        with suppress(OSError):
            os.fstat(number)
            found.add(number)
    return found


@contextmanager
def only(more):
    """So many descriptors more than there are, and not one beyond."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = sorted(set(range(256)) - descriptors())
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[more], hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def opening(path, log):
    """Open with 0, 1, 2, … descriptors until it works; a refusal leaves none open."""
    for more in range(100):
        before = descriptors()
        streams = None
        with only(more):
            try:
                streams = await embedded.opened(path, options=SMALL)
            except StoreError:
                pass
            else:
                await publish(streams, log, f"o{more}")
        if streams is not None:
            await streams.aclose()
            print("refused", more, flush=True)
            return
        await asyncio.sleep(0.01)
        assert descriptors() == before, f"{more}: left open {descriptors() - before}"
    raise AssertionError("it never opens")


async def running(path, log):
    """An open engine that gets no more descriptors: what needs one fails with our own error, the rest goes on."""
    async with embedded.open(path, options=SMALL) as streams:
        refused = 0
        with only(0):
            for number in range(20):
                await publish(streams, log, f"r{number}")
                try:
                    await (streams.sync() if number % 2 else streams.backup(f"{path}.backup{number}"))
                except HeadraceError:
                    refused += 1
                await asyncio.sleep(0.05)
            try:
                await embedded.opened(path)
            except StoreError:
                refused += 1
        await publish(streams, log, "after")
        await streams.sync()
        print("failed", refused, flush=True)
        assert (await streams.verify()).ok


async def publish(streams, log, body):
    ack = await streams.publish("S", body.encode())
    os.write(log, f"P {ack.sequence} {body}\n".encode())


async def main(path, log):
    async with embedded.open(path, options=SMALL) as streams:
        await streams.create_stream(StreamConfig(name="S"))
    await opening(path, log)
    await running(path, log)


asyncio.run(main(sys.argv[1], os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)))
