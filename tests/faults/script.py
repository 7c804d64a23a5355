"""The script of the fault tests: operations of every kind on one stream and one consumer."""

import asyncio
from dataclasses import replace

from headrace import embedded
from headrace.core.errors import PublishError
from headrace.embedded import EmbeddedOptions
from headrace.streams.config import ConsumerConfig, PurgeOptions, StreamConfig
from headrace.streams.options import StreamMessage
from headrace.streams.session import SessionOptions

CONFIG = StreamConfig(name="S", subjects=["s.>"], allow_atomic=True)
SMALL = EmbeddedOptions(reserve_bytes=0)


async def made(path, options=SMALL):
    """A store with its stream and consumer, closed."""
    async with embedded.open(path, options=options) as streams:
        stream = await streams.create_stream(CONFIG)
        await stream.create_consumer(ConsumerConfig(durable="c"))


async def script(path, operations, acknowledged, options=SMALL):
    """So many operations, half of them after a close and another open.

    `acknowledged` (sequence, body) is called when a receipt is there.
    """
    half = operations // 2
    for numbers in (range(half), range(half, operations)):
        async with embedded.open(path, options=options) as streams:
            stream = await streams.stream("S")
            session = (await stream.consumer("c")).session(SessionOptions())
            for number in numbers:
                await operation(streams, stream, session, number, acknowledged)
            await session.aclose()


async def operation(streams, stream, session, number, acknowledged):
    match number % 10:
        case 3:
            bodies = [b"g%d-%d" % (number, each) for each in range(4)]
            await asyncio.gather(*(publish(streams, body, acknowledged) for body in bodies))
        case 4 | 5:
            await publish_three(streams, number, acknowledged)
        case 7:
            for msg in await session.pull(4, 0):
                await msg.ack()
            await session.flush()
        case 8:
            await streams.publish("s.junk", b"j")
            await stream.purge(PurgeOptions(subject="s.junk"))
        case 9 if number % 50 == 49:
            await streams.sync()
        case 9 if number % 50 == 19:
            config = ConsumerConfig(durable="passing")
            await stream.create_consumer(config)
            await stream.update_consumer(replace(config, max_deliver=number))
            await stream.delete_consumer("passing")
        case _:
            await publish(streams, b"b%d" % number + bytes(700 * (number % 7)), acknowledged)


async def publish_three(streams, number, acknowledged):
    """Together, or all or none of them."""
    batch = [StreamMessage("s.keep", b"m%d-%d" % (number, n), msg_id=f"{number}-{n}") for n in range(3)]
    if number % 10 == 4:
        last = (await streams.publish_atomic(batch)).sequence
        for place, message in enumerate(batch, last - 2):
            acknowledged(place, message.data)
        return
    for message, result in zip(batch, await streams.publish_many(batch), strict=True):
        if not isinstance(result, PublishError):
            acknowledged(result.sequence, message.data)


async def publish(streams, body, acknowledged):
    acknowledged((await streams.publish("s.keep", body)).sequence, body)


async def readable(path, acknowledged, options=SMALL):
    """Opened again, everything acknowledged is there and publishing goes on above it; the new sequence."""
    async with embedded.open(path, options=options) as streams:
        found = await (await streams.stream("S")).read(limit=10_000)
        assert acknowledged.items() <= {each.sequence: each.data.decode() for each in found}.items()
        ack = await streams.publish("s.keep", b"again")
        assert ack.sequence > max((each.sequence for each in found), default=0)
        assert (await streams.verify()).ok
        return ack.sequence
