"""One partition can begin at a position; a group cannot."""

import asyncio

import pytest

from headrace.core.broker import Start, TopicOptions
from headrace.core.delivery import Delivery, Position
from headrace.core.errors import ConfigError, UnsupportedError
from headrace.core.message import Message, new_id
from headrace.kafka import KafkaBroker, KafkaPartitionOptions, KafkaSubscribeOptions, PartitionConsumer
from headrace.testing.plugin import kafka_installed, kafka_server  # noqa: F401

pytestmark = pytest.mark.servers


def test_one_partition_begins_at_a_position(kafka_server):  # noqa: F811
    topic, seen = f"at-{new_id()}", []

    async def run():
        async with KafkaBroker(kafka_server.bootstrap) as broker:
            await broker.declare(topic, TopicOptions(partitions=1))
            for number in range(5):
                await broker.publish(Message(topic=topic, body=b"%d" % number))
            done = asyncio.Event()

            async def handler(delivery: Delivery):
                seen.append(delivery.message.body)
                if len(seen) == 2:
                    done.set()

            options = KafkaPartitionOptions(partition=0, start=Start.at(Position(f"{topic}/0", 3)))
            async with PartitionConsumer(broker, topic, handler, subscribe=options):
                await asyncio.wait_for(done.wait(), 20)
            wrong = KafkaPartitionOptions(partition=0, start=Start.at(Position("other/0", 3)))
            with pytest.raises(ConfigError, match="start must be a position of"):
                broker.subscribe(topic, wrong)

    asyncio.run(run())
    assert seen == [b"3", b"4"]


def test_a_group_does_not(kafka_server):  # noqa: F811
    async def run():
        async with KafkaBroker(kafka_server.bootstrap) as broker:
            with pytest.raises(UnsupportedError):
                broker.subscribe("t", KafkaSubscribeOptions(group="g", start=Start.at(3)))

    asyncio.run(run())
