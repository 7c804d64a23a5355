"""The most that one pull may ask for: what is refused, in which order, and what goes on (jetstream.md 3.5.3)."""

import asyncio

import pytest

from headrace.streams.config import ConsumerConfig
from headrace.streams.errors import ApiError, PullRejectedError
from headrace.streams.options import PullOptions
from headrace.streams.session import SessionOptions
from headrace.testing.virtual import virtual_time
from tests.unit.embedded.reading import pull, reader, seqs, stream_of

LIMITS = {"max_request_batch": 3, "max_request_expires": 2, "max_request_max_bytes": 300}


async def refused(awaitable):
    with pytest.raises(PullRejectedError) as error:
        await awaitable
    assert error.value.code == 409
    return error.value.description


@virtual_time
async def test_each_limit_is_named_in_a_servers_order():
    async with stream_of(5) as (_, stream):
        consumer, _ = await reader(stream, **LIMITS)

        def asking(batch, expires, max_bytes=None):
            session = consumer.session(SessionOptions(expires=expires))
            return session.pull(batch, expires, max_bytes=max_bytes)

        assert await refused(asking(4, 3, 400)) == "Exceeded MaxRequestBatch of 3"
        assert await refused(asking(3, 3, 400)) == "Exceeded MaxRequestExpires of 2s"
        assert await refused(asking(3, 2, 301)) == "Exceeded MaxRequestMaxBytes of 300"
        assert seqs(await asking(3, 2, 300)) == [1, 2, 3]
        assert seqs(await asking(1, 2)) == [4], "a pull without bytes is not held to their limit"
        info = await consumer.info()
        assert (info.delivered.consumer, info.num_waiting) == (4, 0)


@virtual_time
async def test_every_way_to_read_is_held_to_them():
    async with stream_of(5) as (_, stream):
        consumer, _ = await reader(stream, **LIMITS)
        assert await refused(consumer.fetch(4, max_wait=1)) == "Exceeded MaxRequestBatch of 3"
        assert await refused(consumer.fetch(3)) == "Exceeded MaxRequestExpires of 2s"
        assert await refused(consumer.fetch_no_wait(4)) == "Exceeded MaxRequestBatch of 3"
        assert seqs(await consumer.fetch_no_wait(3)) == [1, 2, 3]
        async with consumer.messages(PullOptions(expires=2)) as messages:
            assert await refused(messages.next(1)) == "Exceeded MaxRequestBatch of 3"
        async with consumer.messages(PullOptions(max_messages=3, expires=2)) as messages:
            assert (await messages.next(1)).metadata.sequence.stream == 4


@virtual_time
async def test_a_parked_pull_outlives_a_lower_limit_and_the_next_does_not():
    async with stream_of() as (streams, stream):
        config = ConsumerConfig(durable="c", max_request_batch=3)
        consumer = await stream.create_consumer(config)
        session = consumer.session(SessionOptions())
        parked = asyncio.create_task(pull(session, 3, 10))
        await asyncio.sleep(1)
        await stream.update_consumer(ConsumerConfig(durable="c", max_request_batch=2))
        await streams.publish("s.a")
        assert seqs(await parked) == [1]
        assert await refused(pull(session, 3, 10)) == "Exceeded MaxRequestBatch of 2"
        await stream.update_consumer(ConsumerConfig(durable="c"))
        assert await pull(session, 3, 1) == []


@virtual_time
async def test_the_shortest_limit_of_time():
    async with stream_of() as (_, stream):
        with pytest.raises(ApiError) as error:
            await reader(stream, max_request_expires=0.0005)
        assert error.value.err_code == 10115
        await reader(stream, max_request_expires=0.001)
