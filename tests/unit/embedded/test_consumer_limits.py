"""What a stream allows its consumers, and gives those that ask for nothing (codes seen on a nats-server)."""

from dataclasses import replace

import pytest

from headrace.streams.config import AckPolicy, ConsumerConfig, ConsumerLimits, StreamConfig
from headrace.streams.errors import ApiError
from headrace.testing.virtual import virtual_time
from tests.unit.embedded.reading import stream_of

LIMITS = ConsumerLimits(inactive_threshold=60, max_ack_pending=10)


async def made(stream, **config):
    consumer = await stream.create_or_update_consumer(ConsumerConfig(**config))
    shown = consumer.cached_info.config
    return shown.max_ack_pending, shown.inactive_threshold and shown.inactive_threshold.total_seconds()


async def refused(awaitable, code):
    with pytest.raises(ApiError) as error:
        await awaitable
    assert error.value.err_code == code


@virtual_time
async def test_the_limit_is_the_default():
    async with stream_of(consumer_limits=LIMITS) as (_, stream):
        assert await made(stream, durable="a") == (10, 60)
        assert await made(stream, name="b") == (10, 60)
        assert await made(stream, durable="c", max_ack_pending=5, inactive_threshold=30) == (5, 30)
        # no limit exceeds none, as on a server
        assert await made(stream, durable="d", max_ack_pending=None) == (None, 60)
        assert await made(stream, durable="e", ack_policy=AckPolicy.NONE) == (10, 60)
        explicit = ConsumerConfig(durable="a", max_ack_pending=10, inactive_threshold=60)
        await stream.create_consumer(explicit)
        await stream.create_consumer(ConsumerConfig(durable="a"))


@virtual_time
async def test_what_exceeds_it_is_refused():
    async with stream_of(consumer_limits=LIMITS) as (_, stream):
        await refused(stream.create_consumer(ConsumerConfig(durable="a", max_ack_pending=11)), 10121)
        await refused(stream.create_consumer(ConsumerConfig(name="a", inactive_threshold=60.001)), 10153)
        await stream.create_consumer(ConsumerConfig(durable="a"))
        await refused(stream.update_consumer(ConsumerConfig(durable="a", max_ack_pending=11)), 10121)
        assert (await (await stream.consumer("a")).info()).config.max_ack_pending == 10


@virtual_time
@pytest.mark.parametrize(
    ("limits", "wanted", "ephemeral"),
    [
        (ConsumerLimits(), (1000, None), 5),
        (ConsumerLimits(inactive_threshold=2), (1000, 2), 2),
        (ConsumerLimits(max_ack_pending=6000), (6000, None), 5),
    ],
)
async def test_one_without_the_other(limits, wanted, ephemeral):
    async with stream_of(consumer_limits=limits) as (_, stream):
        assert await made(stream, durable="a") == wanted
        assert (await made(stream, name="b"))[1] == ephemeral


@virtual_time
async def test_new_limits_must_hold_for_those_that_are_there():
    async with stream_of(consumer_limits=LIMITS) as (streams, stream):
        await made(stream, durable="a")
        await made(stream, durable="b", max_ack_pending=None, inactive_threshold=1)
        config = (await stream.info()).config
        for lower, named in (
            (ConsumerLimits(max_ack_pending=9), "a"), (ConsumerLimits(inactive_threshold=0.5), "a, b"),
        ):  # fmt: skip
            with pytest.raises(ApiError, match=f"violates consumers: {named} ") as error:
                await streams.update_stream(replace(config, consumer_limits=lower))
            assert (error.value.code, error.value.err_code) == (500, 10069)
        assert (await stream.info()).config.consumer_limits == LIMITS
        higher = ConsumerLimits(inactive_threshold=300, max_ack_pending=50)
        await streams.update_stream(replace(config, consumer_limits=higher))
        assert (await (await stream.consumer("a")).info()).config.max_ack_pending == 10, "what is there stays"
        assert await made(stream, durable="c") == (50, 300)
        await streams.update_stream(StreamConfig(name="S", subjects=["s.>"]))
        assert await made(stream, durable="d") == (1000, None)
