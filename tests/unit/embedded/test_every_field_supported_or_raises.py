"""Walks the config class: a field that is neither supported nor refused fails here."""

from dataclasses import fields

import pytest

from headrace import embedded
from headrace.core.errors import ConfigError, UnsupportedError
from headrace.streams.config import (
    Compression,
    ConsumerLimits,
    DiscardPolicy,
    Placement,
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
}  # fmt: skip
REFUSED = {
    "template_owner": "x", "no_ack": True, "republish": RePublish(destination="d"), "placement": Placement(cluster="c"),
    "mirror": StreamSource(name="M"), "sources": [StreamSource(name="M")], "mirror_direct": True,
    "compression": Compression.S2, "subject_transform": SubjectTransform(source="a", destination="b"),
    "subject_delete_marker_ttl": 5.0, "allow_message_counter": True, "allow_message_schedules": True,
    "allow_batched": True, "extra": {"newer": 1},
}  # fmt: skip
LATER = {"allow_rollup": True, "consumer_limits": ConsumerLimits(max_ack_pending=1), "allow_atomic": True}
OTHER_ERROR = {"sealed": True, "replicas": 3}
NEEDS = {"discard_new_per_subject": {"discard": DiscardPolicy.NEW, "max_messages_per_subject": 1}}


def test_every_field_has_its_line():
    assert {field.name for field in fields(StreamConfig)} == {*SUPPORTED, *REFUSED, *LATER, *OTHER_ERROR}


@pytest.mark.parametrize("field", SUPPORTED)
@virtual_time
async def test_supported_and_shown(field):
    config = StreamConfig(**{"name": "S", **NEEDS.get(field, {}), field: SUPPORTED[field]})
    async with embedded.open(":memory:") as streams:
        stream = await streams.create_stream(config)
        shown = (await stream.info()).config
        wanted = getattr(config, field)
        assert getattr(shown, field) == wanted or field == "subjects"


@pytest.mark.parametrize(("field", "value"), [*REFUSED.items(), *LATER.items()])
@virtual_time
async def test_refused_by_name(field, value):
    async with embedded.open(":memory:") as streams:
        with pytest.raises((UnsupportedError, ConfigError), match=field):
            await streams.create_stream(StreamConfig(**{"name": "S", field: value}))


@virtual_time
async def test_refused_as_a_server_does():
    async with embedded.open(":memory:") as streams:
        for field, code in (("sealed", 10052), ("replicas", 10074)):
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
