"""One partition, without a group: the next offset stands in a directory, and the next run goes on there.

Run it twice against a Kafka: ``python examples/kafka_partition.py``. See settings.py for what the environment may say.
"""

import asyncio

import settings

from headrace import Message
from headrace.core.delivery import Delivery
from headrace.kafka import DirectoryOffsetStore, KafkaBroker, KafkaPartitionOptions, PartitionConsumer
from headrace.testing import run_until_idle


async def handle(delivery: Delivery) -> None:
    """Print it."""
    print(f"{delivery.position} {delivery.message.body!r}")


async def publish(given: settings.Settings) -> None:
    """Some messages; their keys spread them over all partitions, some of them go to ours."""
    async with KafkaBroker(given.brokers) as broker:
        made = [Message(topic=given.topic, key=b"%d" % number, body=b"parcel %d" % number) for number in range(12)]
        await broker.publish_batch(made)


async def main() -> None:
    """Handle what is there, and say where the next run goes on."""
    given = settings.read()
    store = DirectoryOffsetStore("headrace-example-state", name=given.group)
    consumer = PartitionConsumer(
        KafkaBroker(given.brokers),  # not open: the consumer opens and closes it
        given.topic,
        handle,
        subscribe=KafkaPartitionOptions(partition=given.partition, offset_store=store),
    )
    async with asyncio.timeout(given.timeout):
        await publish(given)
        print(f"{consumer} begins at {await store.load(given.topic, given.partition)}")
        await run_until_idle(consumer)  # a service says: await consumer.run()
        print(f"the next run begins at {await store.load(given.topic, given.partition)}")
    await store.aclose()


asyncio.run(main())
