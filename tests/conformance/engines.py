"""The engines at hand: each gives an opener of one store, to be used on a virtual loop."""

import asyncio
from contextlib import asynccontextmanager

from headrace import embedded
from headrace.connect import connect
from headrace.testing.virtual import VirtualLoop


def run(coroutine):
    """Run it on a virtual loop of its own, at most so many virtual seconds: what hangs there ends at once here."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(asyncio.wait_for(coroutine, 3_600))


def brokers(path):
    """Opens the broker of this place, again and again."""

    @asynccontextmanager
    async def open_broker():
        async with connect(str(path)) as broker:
            yield broker

    return open_broker


def managers(path):
    """Opens the stream model of this place, again and again."""

    @asynccontextmanager
    async def open_streams():
        async with embedded.open(path) as streams:
            yield streams

    return open_streams


def capabilities(path):
    """What the engine of this place promises."""

    async def ask():
        async with connect(str(path)) as broker:
            return broker.capabilities

    return run(ask())
