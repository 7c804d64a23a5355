"""What the tests of consuming share: a stream on a real server, and patience."""

import asyncio
import logging
from contextlib import asynccontextmanager

from headrace import jetstream
from headrace.core.message import new_id
from headrace.jetstream.options import JetStreamOptions
from headrace.nats.options import ConnectionOptions
from headrace.streams.config import ConsumerConfig, StreamConfig
from headrace.streams.errors import ConsumerNotFoundError

PATIENCE = 20.0
LIMIT = 50.0  # of a whole story: below the time-out of a test, so that its own words are read
FAST = ConnectionOptions(reconnect_wait=0.02, reconnect_max_wait=0.1)


def run(story):
    """Run the coroutine, at most so long."""
    asyncio.run(asyncio.wait_for(story, LIMIT))


@asynccontextmanager
async def opened(url, **options):
    """A `JetStream` that comes back quickly."""
    async with jetstream.connect(url, options=JetStreamOptions(timeout=PATIENCE, connection=FAST, **options)) as js:
        yield js


@asynccontextmanager
async def stream_of(url, count=0, **config):
    """(JetStream, stream) with so many messages, the first one b"0"."""
    async with opened(url) as js:
        name = f"C-{new_id()}"
        stream = await js.create_stream(StreamConfig(name=name, subjects=[f"{name}.>"], **config))
        await fill(js, stream, count)
        yield js, stream


async def fill(js, stream, count, start=0):
    for number in range(start, start + count):
        await js.publish(f"{stream.name}.x", b"%d" % number)


async def durable(stream, **config):
    return await stream.create_consumer(ConsumerConfig(durable="c", **config))


async def until(holds, what):
    """Ask again and again until it holds."""
    async with asyncio.timeout(PATIENCE):
        while not await holds():
            await asyncio.sleep(0.02)
    logging.getLogger(__name__).info("%s", what)


async def nobody_waits(consumer):
    async def holds():
        return (await consumer.info()).num_waiting == 0

    await until(holds, "no pull is parked")


async def somebody_waits(consumer):
    async def holds():
        try:
            return (await consumer.info()).num_waiting > 0
        except ConsumerNotFoundError:  # of an ordered reader that is about to make it anew
            return False

    await until(holds, "a pull is parked")


def bodies(messages):
    return [int(msg.data) for msg in messages]
