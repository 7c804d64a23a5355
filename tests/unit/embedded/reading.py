"""What the consumer tests share: a stream of numbered messages, and short ways to pull and look."""

from contextlib import asynccontextmanager

from headrace import embedded
from headrace.streams.config import ConsumerConfig, StreamConfig
from headrace.streams.session import SessionOptions


@asynccontextmanager
async def stream_of(count=0, *, path=":memory:", on_advisory=None, **config):
    config.setdefault("subjects", ["s.>"])
    async with embedded.open(path, on_advisory=on_advisory) as streams:
        stream = await streams.create_stream(StreamConfig(name="S", **config))
        await fill(streams, count)
        yield streams, stream


async def fill(streams, count, subject="s.a"):
    for number in range(count):
        await streams.publish(subject, b"%d" % number)


async def reader(stream, **config):
    config.setdefault("durable", "c")
    consumer = await stream.create_or_update_consumer(ConsumerConfig(**config))
    return consumer, consumer.session(SessionOptions())


async def pull(session, limit=100, wait=0.0, **options):
    return await session.pull(limit, wait, **options)


def seqs(messages):
    return [message.metadata.sequence.stream for message in messages]


def deliveries(messages):
    return [(message.metadata.sequence.stream, message.metadata.num_delivered) for message in messages]


async def state(consumer):
    """(delivered pair, floor pair, ack pending, redelivered, pending)."""
    info = await consumer.info()
    return (
        (info.delivered.consumer, info.delivered.stream),
        (info.ack_floor.consumer, info.ack_floor.stream),
        info.num_ack_pending,
        info.num_redelivered,
        info.num_pending,
    )
