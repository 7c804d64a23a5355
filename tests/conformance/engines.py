"""The engines at hand: each gives an opener of one store.

A place is a path (``:memory:``, a directory), which runs on virtual time, or the URL of a server, which takes its own.
"""

import asyncio
from contextlib import asynccontextmanager

from headrace import embedded, jetstream
from headrace.connect import connect
from headrace.jetstream import JetStreamOptions
from headrace.testing.virtual import VirtualLoop

PATIENCE = 50.0  # real seconds for one check on a server; below the time-out of a test


def run(coroutine):
    """Run it on a virtual loop of its own, at most so many virtual seconds: what hangs there ends at once here."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(asyncio.wait_for(coroutine, 3_600))


def run_at(place, coroutine):
    """Run it on the kind of loop that this place needs."""
    return asyncio.run(asyncio.wait_for(coroutine, PATIENCE)) if is_server(place) else run(coroutine)


def is_server(place):
    return str(place).startswith(("nats://", "kafka://"))


def in_no_hurry(place):
    """Many checks and other tests at once: a server may need longer for an answer than its users want to wait."""
    return JetStreamOptions(timeout=PATIENCE / 2) if str(place).startswith("nats://") else None


def brokers(place):
    """Opens the broker of this place, again and again."""

    @asynccontextmanager
    async def open_broker():
        async with connect(str(place), options=in_no_hurry(place)) as broker:
            yield broker

    return open_broker


def managers(place):
    """Opens the stream model of this place, again and again."""

    @asynccontextmanager
    async def open_streams():
        opening = jetstream.connect(place, options=in_no_hurry(place)) if is_server(place) else embedded.open(place)
        async with opening as streams:
            yield streams

    return open_streams


def capabilities(place):
    """What the engine of this place promises."""

    async def ask():
        async with connect(str(place), options=in_no_hurry(place)) as broker:
            return broker.capabilities

    return run_at(place, ask())
