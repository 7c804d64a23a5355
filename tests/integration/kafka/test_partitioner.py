"""A key goes where Java's clients send it: several languages may write to one topic."""

import pytest

from headrace.core.message import Message
from headrace.kafka import KafkaBroker
from tests.integration.kafka.raw import new_topic, run

pytestmark = pytest.mark.servers

HASHES = {  # of Apache Kafka's own test of its murmur2 (UtilsTest.testMurmur2)
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}
PARTITIONS = 7


def test_same_partition_as_java_partitioner(kafka_server):
    topic = new_topic(kafka_server, PARTITIONS)

    async def story():
        async with KafkaBroker(kafka_server.bootstrap) as broker:
            return [await broker.publish(Message(topic=topic, key=key, body=b"x")) for key in HASHES]

    receipts = run(story())
    assert [receipt.partition for receipt in receipts] == [
        (number & 0x7FFFFFFF) % PARTITIONS for number in HASHES.values()
    ]
