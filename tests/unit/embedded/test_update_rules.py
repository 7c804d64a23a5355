"""What an update may change, and the codes of what it may not (3.6.13)."""

from datetime import timedelta

import pytest

from headrace.streams.config import AckPolicy, ConsumerConfig, ConsumerLimits, DeliverPolicy, RetentionPolicy
from headrace.streams.errors import (
    ApiError,
    ConsumerCreateError,
    ConsumerDoesNotExistError,
    ConsumerExistsError,
    ConsumerNotFoundError,
    StreamNotFoundError,
)
from headrace.testing.virtual import virtual_time
from tests.unit.embedded.reading import pull, reader, seqs, state, stream_of


@virtual_time
async def test_create():
    async with stream_of() as (streams, stream):
        config = ConsumerConfig(durable="c")
        await stream.create_consumer(config)
        await stream.create_consumer(config)
        with pytest.raises(ConsumerExistsError) as refused:
            await stream.create_consumer(ConsumerConfig(durable="c", max_deliver=3))
        assert refused.value.err_code == 10148
        with pytest.raises(ConsumerDoesNotExistError) as missing:
            await stream.update_consumer(ConsumerConfig(durable="d"))
        assert missing.value.err_code == 10149
        with pytest.raises(ConsumerNotFoundError):
            await stream.consumer("d")
        with pytest.raises(ConsumerNotFoundError):
            await stream.delete_consumer("d")
        with pytest.raises(StreamNotFoundError):
            await streams.create_consumer("T", config)
        assert [name async for name in stream.consumer_names()] == ["c"]
        assert [info.name async for info in stream.list_consumers()] == ["c"]


@virtual_time
async def test_defaults_are_shown():
    async with stream_of() as (_, stream):
        config = (await (await stream.create_consumer(ConsumerConfig())).info()).config
        assert (config.ack_wait.total_seconds(), config.max_waiting, config.max_ack_pending) == (30, 512, 1000)
        assert config.inactive_threshold.total_seconds() == 5
        assert config.name


@virtual_time
async def test_the_default_threshold_is_that_of_what_a_consumer_becomes():
    async with stream_of() as (_, stream):
        await stream.create_consumer(ConsumerConfig(name="c"))
        durable = await stream.update_consumer(ConsumerConfig(durable="c"))
        assert durable.cached_info.config.inactive_threshold is None
        named = await stream.update_consumer(ConsumerConfig(name="c"))
        assert named.cached_info.config.inactive_threshold == timedelta(seconds=5)


@virtual_time
async def test_what_is_given_with_ack_policy_none_is_shown():
    async with stream_of(3, consumer_limits=ConsumerLimits(max_ack_pending=7)) as (_, stream):
        for given, wait, most in (
            ({}, None, 7),
            ({"max_ack_pending": None}, None, None),
            ({"max_ack_pending": 2, "ack_wait": 3}, 3, 2),
            ({"backoff": [1, 2], "max_deliver": 3}, 1, 7),
        ):
            consumer, _ = await reader(stream, ack_policy=AckPolicy.NONE, **given)
            config = consumer.cached_info.config
            assert config.ack_wait == (wait and timedelta(seconds=wait))
            assert config.max_ack_pending == most
        _, session = await reader(stream, ack_policy=AckPolicy.NONE, max_ack_pending=1)
        assert seqs(await pull(session)) == [1, 2, 3], "nothing is ever pending"


@virtual_time
async def test_fixed_fields():
    async with stream_of() as (_, stream):
        await stream.create_consumer(ConsumerConfig(durable="c"))
        for change in ({"deliver_policy": DeliverPolicy.NEW}, {"ack_policy": AckPolicy.ALL}, {"max_waiting": 3}):
            with pytest.raises(ConsumerCreateError) as refused:
                await stream.update_consumer(ConsumerConfig(durable="c", **change))
            assert (refused.value.code, refused.value.err_code) == (500, 10012)


LAST = {"deliver_policy": DeliverPolicy.LAST_PER_SUBJECT}
ALL = {"ack_policy": AckPolicy.ALL}
MOST = {"max_ack_pending": 5}
SHORT = {"max_request_expires": 1e-4}
NONE = {"ack_policy": AckPolicy.NONE}


@pytest.mark.parametrize(
    ("name", "how", "config", "err_code"),
    [
        ("c", "update", ALL | LAST, 10094),
        ("c", "update", ALL | MOST | LAST, 10121),
        ("c", "update", ALL | SHORT | MOST, 10115),
        ("c", "update", NONE | SHORT, 10084),
        ("c", "update", {"max_waiting": 3, "filter_subject": "s.b"}, 10100),
        ("c", "create", MOST, 10121),
        ("c", "create", ALL, 10148),
        ("e", "update", LAST, 10094),
        ("e", "update", MOST, 10121),
        ("e", "update", ALL, 10149),
        ("e", "create", LAST, 10094),
        ("e", "create", NONE, 10084),
        ("e", "create", ALL | {"filter_subject": "s.a"}, 10026),
    ],
)
@virtual_time
async def test_the_first_reason_is_that_of_a_server(name, how, config, err_code):
    limits = {"consumer_limits": ConsumerLimits(max_ack_pending=4), "max_consumers": 2}
    async with stream_of(retention=RetentionPolicy.WORKQUEUE, **limits) as (_, stream):
        await stream.create_consumer(ConsumerConfig(durable="c", filter_subject="s.a"))
        await stream.create_consumer(ConsumerConfig(durable="d", filter_subject="s.b"))
        with pytest.raises(ApiError) as refused:
            await getattr(stream, f"{how}_consumer")(ConsumerConfig(durable=name, **config))
        assert refused.value.err_code == err_code


@pytest.mark.parametrize(
    ("config", "err_code"),
    [
        (ALL | {"deliver_policy": DeliverPolicy.NEW}, 10098),
        ({"deliver_policy": DeliverPolicy.NEW}, 10101),
        ({}, 10099),
        ({"filter_subject": "s.*"}, 10100),
    ],
)
@virtual_time
async def test_workqueue_rules_in_their_order(config, err_code):
    async with stream_of(retention=RetentionPolicy.WORKQUEUE) as (_, stream):
        await stream.create_consumer(ConsumerConfig(durable="c", filter_subject="s.a"))
        with pytest.raises(ApiError) as refused:
            await stream.create_consumer(ConsumerConfig(durable="d", **config))
        assert refused.value.err_code == err_code


@virtual_time
async def test_changes_apply():
    async with stream_of() as (streams, stream):
        for subject in ("s.a", "s.b", "s.a", "s.b", "s.a"):
            await streams.publish(subject, b"")
        consumer, session = await reader(stream, filter_subject="s.a", max_ack_pending=1)
        assert seqs(await pull(session)) == [1]
        assert (await consumer.info()).num_pending == 2
        await stream.update_consumer(
            ConsumerConfig(durable="c", filter_subject="s.b", max_ack_pending=5, max_deliver=4)
        )
        assert await state(consumer) == ((1, 1), (0, 0), 1, 0, 2)
        assert seqs(await pull(session)) == [2, 4]
        assert (await consumer.info()).config.max_deliver == 4


@virtual_time
async def test_one_delivery_shows_no_redeliveries():
    async with stream_of(1) as (_, stream):
        consumer, session = await reader(stream)
        (message,) = await pull(session)
        await message.nak()
        await pull(session)
        assert (await consumer.info()).num_redelivered == 1
        await stream.update_consumer(ConsumerConfig(durable="c", max_deliver=1))
        assert (await consumer.info()).num_redelivered == 0
