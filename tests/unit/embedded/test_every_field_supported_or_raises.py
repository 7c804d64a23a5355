"""Walks the config class: a field that is neither supported nor refused fails here."""

from dataclasses import fields
from datetime import UTC, datetime

import pytest

from headrace import embedded
from headrace.core.errors import ConfigError, UnsupportedError
from headrace.streams.config import (
    AckPolicy,
    Compression,
    ConsumerConfig,
    ConsumerLimits,
    DeliverPolicy,
    DiscardPolicy,
    OrderedConsumerConfig,
    Placement,
    PriorityPolicy,
    ReplayPolicy,
    RePublish,
    RetentionPolicy,
    StorageType,
    StreamConfig,
    StreamSource,
    SubjectTransform,
)
from headrace.streams.errors import ApiError, StreamConfigError
from headrace.testing.virtual import virtual_time

SUPPORTED = {
    "name": "S", "description": "text", "subjects": ["s.>"], "retention": RetentionPolicy.INTEREST, "max_consumers": 3,
    "max_messages": 3, "max_bytes": 3000, "max_age": 3.0, "max_messages_per_subject": 3, "max_message_size": 100,
    "discard": DiscardPolicy.NEW, "discard_new_per_subject": True, "storage": StorageType.MEMORY,
    "duplicate_window": 1.0, "deny_delete": True, "deny_purge": True, "allow_direct": True, "metadata": {"a": "b"},
    "replicas": 1, "first_sequence": 7, "allow_message_ttl": True, "compression": Compression.NONE,
    "allow_rollup": True, "allow_atomic": True,
    "consumer_limits": ConsumerLimits(max_ack_pending=1, inactive_threshold=5.0),
}  # fmt: skip
REFUSED = {
    "template_owner": "x", "no_ack": True, "republish": RePublish(destination="d"), "placement": Placement(cluster="c"),
    "mirror": StreamSource(name="M"), "sources": [StreamSource(name="M")], "mirror_direct": True,
    "compression": Compression.S2, "subject_transform": SubjectTransform(source="a", destination="b"),
    "subject_delete_marker_ttl": 5.0, "allow_message_counter": True, "allow_message_schedules": True,
    "allow_batched": True, "extra": {"newer": 1}, "replicas": 3,
}  # fmt: skip
CONSUMER_SUPPORTED = {
    "name": "c", "durable": "c", "description": "text", "deliver_policy": DeliverPolicy.NEW, "start_sequence": 2,
    "start_time": datetime(1999, 1, 1, tzinfo=UTC), "ack_policy": AckPolicy.ALL, "ack_wait": 3.0, "max_deliver": 3,
    "backoff": [1.0, 2.0], "filter_subject": "s.a", "filter_subjects": ["s.a", "s.b"],
    "replay_policy": ReplayPolicy.ORIGINAL, "max_waiting": 3, "max_ack_pending": None, "headers_only": True,
    "inactive_threshold": 3.0, "memory_storage": True, "metadata": {"a": "b"}, "max_request_batch": 3,
    "max_request_expires": 3.0, "max_request_max_bytes": 3, "pause_until": datetime(2099, 1, 1, tzinfo=UTC),
}  # fmt: skip
CONSUMER_REFUSED = {
    "rate_limit": 3, "sample_frequency": 3, "priority_groups": ["a"], "pinned_ttl": 3.0, "replicas": 3,
    "extra": {"newer": 1},
}  # fmt: skip
CONSUMER_NEEDS = {
    "start_sequence": {"deliver_policy": DeliverPolicy.BY_START_SEQUENCE},
    "start_time": {"deliver_policy": DeliverPolicy.BY_START_TIME},
    "priority_groups": {"priority_policy": PriorityPolicy.OVERFLOW},
}
ORDERED = {
    "filter_subjects": ["s.a"], "deliver_policy": DeliverPolicy.LAST, "start_sequence": 2,
    "start_time": datetime(1999, 1, 1, tzinfo=UTC), "replay_policy": ReplayPolicy.ORIGINAL, "inactive_threshold": 3.0,
    "headers_only": True, "max_reset_attempts": 3, "name_prefix": "p", "metadata": {"a": "b"},
}  # fmt: skip
OTHER_ERROR = {"sealed": True}
NEEDS = {"discard_new_per_subject": {"discard": DiscardPolicy.NEW, "max_messages_per_subject": 1}}


def test_every_field_has_its_line():
    assert {field.name for field in fields(StreamConfig)} == {*SUPPORTED, *REFUSED, *OTHER_ERROR}


@pytest.mark.parametrize("field", SUPPORTED)
@virtual_time
async def test_supported_and_shown(field):
    config = StreamConfig(**{"name": "S", **NEEDS.get(field, {}), field: SUPPORTED[field]})
    async with embedded.open(":memory:") as streams:
        stream = await streams.create_stream(config)
        shown = (await stream.info()).config
        wanted = getattr(config, field)
        assert getattr(shown, field) == wanted or field == "subjects"


@pytest.mark.parametrize(("field", "value"), REFUSED.items())
@virtual_time
async def test_refused_by_name(field, value):
    async with embedded.open(":memory:") as streams:
        with pytest.raises((UnsupportedError, ConfigError), match=field):
            await streams.create_stream(StreamConfig(**{"name": "S", field: value}))


def test_every_field_of_consumers_has_its_line():
    assert {field.name for field in fields(ConsumerConfig)} == {
        *CONSUMER_SUPPORTED, *CONSUMER_REFUSED, "priority_policy",
    }  # fmt: skip
    assert {field.name for field in fields(OrderedConsumerConfig)} == {*ORDERED}


@pytest.mark.parametrize("field", CONSUMER_SUPPORTED)
@virtual_time
async def test_supported_and_shown_by_consumers(field):
    config = ConsumerConfig(**{"durable": "c", **CONSUMER_NEEDS.get(field, {}), field: CONSUMER_SUPPORTED[field]})
    async with embedded.open(":memory:") as streams:
        await streams.create_stream(StreamConfig(name="S", subjects=["s.>"]))
        consumer = await streams.create_consumer("S", config)
        assert getattr((await consumer.info()).config, field) == getattr(config, field)


@pytest.mark.parametrize(("field", "value"), CONSUMER_REFUSED.items())
@virtual_time
async def test_refused_by_name_for_consumers(field, value):
    async with embedded.open(":memory:") as streams:
        await streams.create_stream(StreamConfig(name="S", subjects=["s.>"]))
        config = ConsumerConfig(**{"durable": "c", **CONSUMER_NEEDS.get(field, {}), field: value})
        with pytest.raises(UnsupportedError, match="newer" if field == "extra" else field):
            await streams.create_consumer("S", config)


@pytest.mark.parametrize("field", ORDERED)
@virtual_time
async def test_ordered_consumers_take_every_field(field):
    config = OrderedConsumerConfig(**{**CONSUMER_NEEDS.get(field, {}), field: ORDERED[field]})
    async with embedded.open(":memory:") as streams:
        await streams.create_stream(StreamConfig(name="S", subjects=["s.>"]))
        for body in (b"1", b"2"):
            await streams.publish("s.a", body)
        consumer = await streams.ordered_consumer("S", config)
        msg = await consumer.next(max_wait=1)
        wanted = {"start_sequence": b"2", "deliver_policy": b"2", "headers_only": b""}.get(field, b"1")
        assert msg.data == wanted
        assert [(await streams.consumer("S", name)).name async for name in (await streams.stream("S")).consumer_names()]


@virtual_time
async def test_calls_that_only_a_server_has():
    async with embedded.open(":memory:") as streams:
        await streams.create_stream(StreamConfig(name="S"))
        consumer = await streams.create_consumer("S", ConsumerConfig(durable="c"))
        for call in (consumer.unpin("g"), consumer.reset()):
            with pytest.raises(UnsupportedError):
                await call


@virtual_time
async def test_refused_as_a_server_does():
    async with embedded.open(":memory:") as streams:
        for field, code in (("sealed", 10052),):
            with pytest.raises(ApiError) as error:
                await streams.create_stream(StreamConfig(**{"name": "S", field: OTHER_ERROR[field]}))
            assert error.value.err_code == code


@virtual_time
async def test_update_rules_of_streams():
    async with embedded.open(":memory:") as streams:
        base = StreamConfig(name="S", subjects=["s"], deny_delete=True, deny_purge=True, allow_message_ttl=True)
        await streams.create_stream(base)
        for changed in (
            StreamConfig(name="S", subjects=["s"], deny_purge=True, allow_message_ttl=True),
            StreamConfig(name="S", subjects=["s"], deny_delete=True, allow_message_ttl=True),
            StreamConfig(name="S", subjects=["s"], deny_delete=True, deny_purge=True),
        ):
            with pytest.raises(StreamConfigError):
                await streams.update_stream(changed)
