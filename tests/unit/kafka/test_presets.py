"""GroupConsumer and PartitionConsumer: what they refuse when they are made, and whose broker they open and close."""

import asyncio

import pytest

from headrace import connect
from headrace.core.broker import SubscribeOptions
from headrace.core.errors import ConfigError
from headrace.core.message import Message
from headrace.flow.worker import Worker
from headrace.kafka import (
    GroupConsumer,
    KafkaBroker,
    KafkaPartitionOptions,
    KafkaSubscribeOptions,
    MemoryOffsetStore,
    PartitionConsumer,
)
from headrace.testing.idle import run_until_idle
from headrace.testing.kafka.mock import KafkaMock
from headrace.testing.recording import RecordingHandler
from headrace.testing.virtual import virtual_time
from tests.unit.flow.scripted import ScriptedBroker
from tests.unit.flow.tools import nothing

ADDRESS = "127.0.0.1:9092"
ONE = KafkaPartitionOptions(partition=0)


@pytest.mark.parametrize("options", [{}, {"subscribe": SubscribeOptions()}, {"subscribe": KafkaSubscribeOptions()}])
def test_a_group_consumer_needs_a_group(options):
    with pytest.raises(ConfigError, match="GroupConsumer needs a group, got None"):
        GroupConsumer(KafkaBroker(ADDRESS), "orders", nothing, **options)


@pytest.mark.parametrize("options", [{"group": "g"}, {"subscribe": KafkaSubscribeOptions(group="g")}])
def test_either_way_of_naming_the_group_will_do(options):
    assert str(GroupConsumer(KafkaBroker(ADDRESS), ["a", "b"], nothing, **options)) == "group-consumer(g:a,b)"


def test_a_group_consumer_does_not_read_one_partition():
    with pytest.raises(ConfigError, match="GroupConsumer needs a group, got None"):
        GroupConsumer(KafkaBroker(ADDRESS), "orders", nothing, subscribe=ONE)
    with pytest.raises(ConfigError, match="group"):
        GroupConsumer(KafkaBroker(ADDRESS), "orders", nothing, group="g", subscribe=ONE)


@pytest.mark.parametrize(
    ("options", "got"),
    [
        ({}, "SubscribeOptions"),
        ({"group": "g"}, "SubscribeOptions"),
        ({"subscribe": KafkaSubscribeOptions()}, "KafkaSubscribeOptions"),
    ],
)
def test_a_partition_consumer_needs_its_options(options, got):
    with pytest.raises(ConfigError, match=f"PartitionConsumer needs KafkaPartitionOptions, got {got}$"):
        PartitionConsumer(KafkaBroker(ADDRESS), "orders", nothing, **options)


def test_a_partition_consumer_is_of_one_partition_and_no_group():
    assert str(PartitionConsumer(KafkaBroker(ADDRESS), "orders", nothing, subscribe=ONE)) == (
        "partition-consumer(orders:0)"
    )
    with pytest.raises(ConfigError, match="group"):
        PartitionConsumer(KafkaBroker(ADDRESS), "orders", nothing, group="g", subscribe=ONE)


@pytest.mark.parametrize(
    ("preset", "options"), [(GroupConsumer, {"group": "g"}), (PartitionConsumer, {"subscribe": ONE})]
)
@virtual_time
async def test_another_engines_broker_is_refused(preset, options):
    with pytest.raises(ConfigError, match="broker must be a KafkaBroker, got ScriptedBroker"):
        preset(ScriptedBroker(), "orders", nothing, **options)
    async with connect(":memory:") as broker:
        with pytest.raises(ConfigError, match=f"broker must be a KafkaBroker, got {type(broker).__name__}"):
            preset(broker, "orders", nothing, **options)


@pytest.mark.parametrize("preset", [GroupConsumer, PartitionConsumer])
def test_presets_open_close_share(preset):
    """A closed broker is opened and closed, an open one is shared; by `run` and by `async with`."""

    async def story(mock):
        store, handler = MemoryOffsetStore(), RecordingHandler()

        def made(broker):
            if preset is GroupConsumer:
                options = {"group": "g", "subscribe": KafkaSubscribeOptions(group_protocol="consumer")}
            else:
                options = {"subscribe": KafkaPartitionOptions(partition=0, offset_store=store)}
            return preset(broker, "orders", handler, **options)

        async with KafkaBroker(mock.bootstrap) as shared:
            for body in (b"1", b"2"):
                await shared.publish(Message(topic="orders", body=body))
            async with made(shared):
                await handler.wait_for(2)
            assert shared.is_open
            await shared.publish(Message(topic="orders", body=b"3"))
        broker = KafkaBroker(mock.bootstrap)
        async with made(broker):
            assert broker.is_open
            await handler.wait_for(3)
        assert not broker.is_open
        broker = KafkaBroker(mock.bootstrap)
        consumer = made(broker)
        assert not broker.is_open
        await run_until_idle(consumer)
        assert not broker.is_open
        assert handler.bodies == [b"1", b"2", b"3"]  # it went on where it had stood

    with KafkaMock(1) as mock:
        mock.create_topic("orders", 1)
        asyncio.run(asyncio.wait_for(story(mock), 50))


@pytest.mark.parametrize("broker", ["127.0.0.1:9092", None])
@pytest.mark.parametrize("kind", [Worker, GroupConsumer, PartitionConsumer])
def test_what_is_no_broker_is_refused(kind, broker):
    with pytest.raises(ConfigError, match="broker must be a Broker"):
        kind(broker, "orders", RecordingHandler(), group="g")
