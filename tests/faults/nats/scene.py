"""What the tests with a broken server, or a broken link, share: a stream, and every kind of reader at work on it."""

import asyncio
import functools
from contextlib import asynccontextmanager, suppress

from headrace import jetstream
from headrace.core.errors import BrokerError, BrokerTimeoutError
from headrace.core.message import Message
from headrace.flow.worker import SubscribeOptions, Worker
from headrace.nats import ConnectionOptions
from headrace.streams import (
    ConsumerConfig,
    OrderedConsumerConfig,
    PullOptions,
    StreamBroker,
    StreamConfig,
    StreamMessage,
)

PATIENCE = 45.0
ACK_WAIT = 1.0
SUBJECT = "s.a"
PULL = PullOptions(max_messages=20, heartbeat=0.5, expires=2, error_on_missing_heartbeat=False)


def on_a_loop(test):
    """Run a coroutine function as a plain test."""

    @functools.wraps(test)
    def run(*arguments, **named):
        asyncio.run(test(*arguments, **named))

    return run


def hasty(**options):
    """Connection options of somebody who does not like to wait."""
    return ConnectionOptions(**{"reconnect_wait": 0.02, "reconnect_max_wait": 0.2, **options})


def opened(*servers, timeout=20.0, max_pending=4000, **options):
    """`jetstream.connect`, in haste."""
    wanted = jetstream.JetStreamOptions(connection=hasty(**options), timeout=timeout, max_pending=max_pending)
    return jetstream.connect([server.url for server in servers], options=wanted)


async def made(js, **options):
    """The stream S with the consumer c."""
    stream = await js.create_stream(StreamConfig(name="S", subjects=["s.>"], **options))
    await stream.create_consumer(ConsumerConfig(durable="c", ack_wait=ACK_WAIT))
    return stream


def message(number):
    return StreamMessage(SUBJECT, b"%d" % number)


async def eventually(look, what="it"):
    """Return the first true answer of `look`, plain or async."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = look()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.01)
    raise AssertionError(f"{what} does not happen")


async def stored(stream):
    """All bodies of the stream, in order."""
    bodies, start = [], 1
    while page := await stream.read(start=start, limit=1_000):
        bodies += [message.data for message in page]
        start = page[-1].sequence + 1
    return bodies


class Reader:
    """What one reader has seen, and the task that reads."""

    def __init__(self, kind):
        self.kind = kind
        self.bodies = []
        self.errors = []
        self.task = None

    def take(self, body):
        self.bodies.append(body)

    async def until(self, enough):
        """Until `enough(bodies)`, or so many different ones."""
        wanted = enough if callable(enough) else lambda bodies: len(set(bodies)) >= enough
        async with asyncio.timeout(PATIENCE):
            while not wanted(self.bodies):
                if self.task.done():
                    self.task.result()
                    raise AssertionError(f"{self.kind} ended by itself")
                await asyncio.sleep(0.01)

    async def until_all(self, everything):
        """Until it has seen all of these. Patience is for standing still: thousands may be left to read."""
        missing, seen = set(everything), 0
        while missing:
            async with asyncio.timeout(PATIENCE):
                while len(self.bodies) == seen:
                    if self.task.done():
                        self.task.result()
                        raise AssertionError(f"{self.kind} ended by itself")
                    await asyncio.sleep(0.01)
            missing.difference_update(self.bodies[seen:])
            seen = len(self.bodies)


async def read_messages(js, reader):
    consumer = await js.consumer("S", "c")
    async with consumer.messages(PULL, error_handler=lambda _, error: reader.errors.append(error)) as messages:
        async for msg in messages:
            reader.take(msg.data)
            await msg.ack()


async def read_consume(js, reader):
    consumer = await js.consumer("S", "c")

    async def handler(msg):
        reader.take(msg.data)
        await msg.ack()

    async with consumer.consume(handler, PULL, error_handler=lambda _, error: reader.errors.append(error)) as context:
        await context.wait_closed()


async def read_fetch(js, reader):
    consumer = await js.consumer("S", "c")
    while True:
        try:
            for msg in await consumer.fetch(10, max_wait=2, heartbeat=0.5):
                reader.take(msg.data)
                await msg.ack()
        except BrokerError as error:
            reader.errors.append(error)
            await asyncio.sleep(0.02)


async def read_next(js, reader):
    consumer = await js.consumer("S", "c")
    while True:
        try:
            msg = await consumer.next(max_wait=2)
        except BrokerError as error:
            reader.errors.append(error)
            await asyncio.sleep(0.02)
        else:
            reader.take(msg.data)
            await msg.ack()


async def read_ordered(js, reader):
    consumer = await js.ordered_consumer("S", OrderedConsumerConfig())
    async with consumer.messages(PULL, error_handler=lambda _, error: reader.errors.append(error)) as messages:
        async for msg in messages:
            reader.take(msg.data)


async def read_worker(js, reader):
    async def handler(message: Message):
        reader.take(message.body)

    options = SubscribeOptions(lease=ACK_WAIT)
    async with Worker(StreamBroker(js), SUBJECT, handler, group="g", subscribe=options):
        await asyncio.Event().wait()


READERS = {
    "messages": read_messages,
    "consume": read_consume,
    "fetch": read_fetch,
    "next": read_next,
    "ordered": read_ordered,
    "worker": read_worker,
}


@asynccontextmanager
async def reading(js, kind):
    """A reader of this kind at work on S."""
    reader = Reader(kind)
    reader.task = asyncio.create_task(READERS[kind](js, reader))
    try:
        yield reader
    finally:
        reader.task.cancel()
        with suppress(asyncio.CancelledError):
            await reader.task


async def parked(js, kind):
    """Until a pull of this reader waits at the server."""

    async def look():
        try:
            infos = [info async for info in (await js.stream("S")).list_consumers()]
        except BrokerTimeoutError:
            return False  # a cluster is silent about a consumer that has no leader yet
        return any(info.num_waiting for info in infos if (info.name == "c") == (kind not in ("ordered", "worker")))

    await eventually(look, f"a parked pull of {kind}")
