"""What the tests of reading share: the driver used barely, as a judge of what headrace says; and workers to be run."""

import asyncio
import time
from contextlib import asynccontextmanager

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from confluent_kafka import Producer as RawProducer
from confluent_kafka.admin import AdminClient

from headrace.core.message import Message, new_id
from headrace.flow.worker import Worker

PATIENCE = 55.0
QUIET = {"log_level": "0"}


def run(story, patience=PATIENCE):
    return asyncio.run(asyncio.wait_for(story, patience))


def new_name(word):
    """Of a topic or group that nobody else has."""
    return f"{word}-{new_id()}"


def new_topic(server, partitions=1, **config):
    name = new_name("reading")
    server.create_topic(name, partitions, {key.replace("_", "."): str(value) for key, value in config.items()})
    return name


def ask(server, request):
    """What the brokers answer to a request of the driver's admin client: futures, or an answer that is there."""
    admin = AdminClient({"bootstrap.servers": server.bootstrap} | QUIET)
    found = request(admin)
    return [future.result(20) for future in found.values()] if isinstance(found, dict) else found


def write(server, topic, *values, partition=0, key=None, **options):
    """Store these values; the driver's producer is flushed."""
    producer = RawProducer({"bootstrap.servers": server.bootstrap} | QUIET | options)
    for value in values:
        producer.produce(topic, value, key=key, partition=partition)
    assert producer.flush(20) == 0


def committed(server, group, topic, partitions=1):
    """The offsets that the group has stored, by partition; below 0 = none."""
    consumer = Consumer({"bootstrap.servers": server.bootstrap, "group.id": group} | QUIET)
    try:
        places = consumer.committed([TopicPartition(topic, number) for number in range(partitions)], timeout=20)
    finally:
        consumer.close()
    return {place.partition: place.offset for place in places}


def commit(server, group, topic, offset, partition=0):
    """Store this offset for the group; nobody may be in it."""
    consumer = Consumer({"bootstrap.servers": server.bootstrap, "group.id": group} | QUIET)
    consumer.commit(offsets=[TopicPartition(topic, partition, offset)], asynchronous=False)
    consumer.close()


def records(server, topic, partition=0):
    """All records of the partition, as the driver has them."""
    settings = {"group.id": "look", "enable.partition.eof": True, "auto.offset.reset": "earliest"}
    consumer = Consumer({"bootstrap.servers": server.bootstrap} | settings | QUIET)
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING)])
    found, deadline = [], time.monotonic() + 20
    while not found or found[-1].error() is None:
        assert time.monotonic() < deadline
        found += consumer.consume(500, 0.1)
    consumer.close()
    return found[:-1]


async def eventually(look, patience=20.0):
    """Look until it is so; at once the answer."""
    deadline = time.monotonic() + patience
    while not (found := look()):
        assert time.monotonic() < deadline, "it never became so"
        await asyncio.sleep(0.01)
    return found


class Found(list):
    """Deliveries."""

    @property
    def bodies(self):
        return [delivery.message.body for delivery in self]

    async def reach(self, count, patience=20.0):
        await eventually(lambda: len(self) >= count, patience)
        assert len(self) == count


@asynccontextmanager
async def working(broker, topics, make=Worker, **options):
    """A worker that only takes down what it gets."""
    found = Found()

    async def handler(delivery):
        found.append(delivery)

    async with make(broker, topics, handler, **options) as worker:
        found.worker = worker
        yield found


def numbered(topic, count, keys=None):
    """Messages with their number as body; `keys` of them by turns, else none has a key."""
    return [
        Message(topic=topic, key=None if keys is None else b"k%d" % (number % keys), body=b"%d" % number)
        for number in range(count)
    ]
