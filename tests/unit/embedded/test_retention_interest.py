"""Stored only for who wants it, gone when all have settled it (3.5.8)."""

from headrace.streams.config import ConsumerConfig, DeliverPolicy, RetentionPolicy, StreamConfig
from headrace.testing.virtual import virtual_time
from tests.unit.embedded.reading import fill, pull, reader, stream_of

INTEREST = RetentionPolicy.INTEREST


async def left(stream):
    return [message.sequence for message in await stream.read()]


@virtual_time
async def test_nobody_interested():
    async with stream_of(2, retention=INTEREST) as (streams, stream):
        assert await left(stream) == []
        await stream.create_consumer(ConsumerConfig(durable="c", filter_subject="s.b"))
        await fill(streams, 1)
        await fill(streams, 1, "s.b")
        assert await left(stream) == [4]
        assert (await stream.info()).state.last_sequence == 4


@virtual_time
async def test_all_must_settle():
    async with stream_of(retention=INTEREST) as (streams, stream):
        _, one = await reader(stream, durable="one")
        _, two = await reader(stream, durable="two", filter_subject="s.b")
        await fill(streams, 1, "s.a")
        await fill(streams, 1, "s.b")
        first = await pull(one)
        for message in first:
            await message.ack()
        assert (await stream.info()).state.messages == 1
        assert await left(stream) == [2]
        (message,) = await pull(two)
        await message.term()
        assert (await stream.info()).state.messages == 0


@virtual_time
async def test_deleting_a_consumer_releases_what_only_it_held():
    async with stream_of(retention=INTEREST) as (streams, stream):
        _, one = await reader(stream, durable="one")
        await reader(stream, durable="two")
        await fill(streams, 3)
        for message in await pull(one, 2):
            await message.ack()
        await one.flush()
        assert await left(stream) == [1, 2, 3]
        await stream.delete_consumer("two")
        assert await left(stream) == [3]


@virtual_time
async def test_exhausted_ones_stay():
    async with stream_of(retention=INTEREST) as (streams, stream):
        _, session = await reader(stream, max_deliver=1)
        await fill(streams, 1)
        (message,) = await pull(session)
        await message.nak()
        assert await pull(session) == []
        assert (await stream.info()).state.messages == 1
        message.outcome = None
        await message.ack()
        assert (await stream.info()).state.messages == 0


@virtual_time
async def test_other_filters_release_what_nobody_wants_any_more():
    async with stream_of(retention=INTEREST) as (streams, stream):
        _, session = await reader(stream)
        await fill(streams, 2)
        await pull(session, 1)
        await fill(streams, 1, "s.b")
        await stream.update_consumer(ConsumerConfig(durable="c", filter_subject="s.b"))
        assert await left(stream) == [1, 3], "1 is in somebody's hands, 2 is nobody's"


@virtual_time
async def test_what_lies_before_every_start_goes_with_the_retention_or_a_consumer():
    kept = {"name": "S", "subjects": ["s.>"]}
    async with stream_of(retention=INTEREST) as (streams, stream):
        start = {"deliver_policy": DeliverPolicy.BY_START_SEQUENCE, "start_sequence": 4}
        await stream.create_consumer(ConsumerConfig(durable="c", **start))
        await stream.create_consumer(ConsumerConfig(durable="d", **start))
        await fill(streams, 5)
        await streams.update_stream(StreamConfig(**kept, retention=INTEREST, description="d"))
        assert await left(stream) == [1, 2, 3, 4, 5]
        await stream.delete_consumer("d")
        assert await left(stream) == [4, 5]
        await streams.update_stream(StreamConfig(**kept))
        await stream.create_consumer(ConsumerConfig(durable="d", filter_subject="s.a"))
        await stream.delete_consumer("d")
        await stream.delete_consumer("c")
        assert await left(stream) == [4, 5]
        await streams.update_stream(StreamConfig(**kept, retention=INTEREST))
        assert await left(stream) == []
