"""Producer on a real broker: all ways to send, order of keys, what is stored."""

import asyncio
import time
from collections import defaultdict
from itertools import count

import pytest
from confluent_kafka import Consumer, TopicPartition

from headrace.core.errors import Fault, PublishError
from headrace.core.headers import Headers
from headrace.core.message import Message
from headrace.flow.keyed import Ordering
from headrace.flow.topic import Topic
from headrace.kafka.broker import KafkaBroker
from headrace.kafka.options import KafkaOptions
from headrace.kafka.producer import Producer
from headrace.kafka.wire import Tombstone
from headrace.testing.plugin import kafka_installed, kafka_server  # noqa: F401  (pytest finds them here)

PATIENCE = 50
numbers = count(int(time.time() * 1000))


def run(story):
    asyncio.run(asyncio.wait_for(story, PATIENCE))


def stored(server, topic, wanted, partitions=4):
    """The driver's records by partition, in order."""
    settings = {"bootstrap.servers": server.bootstrap, "group.id": "look", "enable.auto.commit": False}
    consumer = Consumer(settings | {"log_level": "0"})
    consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
    found = defaultdict(list)
    deadline = time.monotonic() + 20
    while sum(map(len, found.values())) < wanted and time.monotonic() < deadline:
        for record in consumer.consume(500, 0.2):
            assert not record.error()
            found[record.partition()].append(record)
    consumer.close()
    return found


async def suspending(message, call_next):
    for _ in range(message.body[-1] % 3):
        await asyncio.sleep(0)
    return await call_next(message)


async def send_all_ways(producer, made):
    """The results in order, of calls that run side by side."""
    calls = []
    for start in range(0, len(made), 12):
        calls.append(asyncio.ensure_future(producer.produce_many(made[start : start + 8])))
        calls += [asyncio.ensure_future(producer.produce_async(one)) for one in made[start + 8 : start + 11]]
        calls.append(asyncio.ensure_future(producer.produce(made[start + 11])))
    results = []
    for call in calls:
        result = await call
        result = await result if isinstance(result, asyncio.Future) else result
        results += result if isinstance(result, list) else [result]
    return results


@pytest.mark.parametrize("middleware", [[], [suspending]], ids=["plain", "middleware"])
@pytest.mark.parametrize("ordering", [Ordering.KEY, Ordering.TOTAL])
def test_all_ways_in_key_order(kafka_server, ordering, middleware):  # noqa: F811
    topic = f"ways.{next(numbers)}"
    made = [Message(topic="", key=b"%d" % (n % 5), body=b"%05d" % n) for n in range(240)]

    async def story():
        broker = KafkaBroker(kafka_server.bootstrap)
        async with Producer(
            broker, default_topic=topic, ordering=ordering, middleware=middleware, max_outstanding=50
        ) as producer:
            return await send_all_ways(producer, made)

    results = asyncio.run(asyncio.wait_for(story(), PATIENCE))
    assert len({(result.partition, result.offset) for result in results}) == 240
    found = stored(kafka_server, topic, 240)
    for result, one in zip(results, made, strict=True):
        record = found[result.partition][result.offset]
        assert (record.key(), record.value()) == (one.key, one.body)
        assert dict(record.headers())["Headrace-Id"] == one.id.encode()
    for records in found.values():
        by_key = defaultdict(list)
        for record in records:
            by_key[record.key()].append(record.value())
        assert all(values == sorted(values) for values in by_key.values())


def test_what_is_stored(kafka_server):  # noqa: F811
    topic = f"stored.{next(numbers)}"

    async def story():
        async with Producer(KafkaBroker(kafka_server.bootstrap)) as producer:
            headers = Headers([("A", "1"), ("a", b"\xff"), ("A", "")])
            given = [
                Message(topic=topic, key=b"", body=b"", time_ns=1_700_000_000_123_456_789),
                Message(topic=topic, key=b"k", body=b"\xff\x00", headers=headers),
                Tombstone(topic=topic, key=b"k", body=b""),
            ]
            return await producer.produce_batch(given)

    results = asyncio.run(asyncio.wait_for(story(), PATIENCE))
    found = stored(kafka_server, topic, 3)
    first, second, third = (found[result.partition][result.offset] for result in results)
    assert (first.key(), first.value(), first.timestamp()) == (b"", b"", (1, 1_700_000_000_123))
    assert results[0].time.timestamp() == pytest.approx(1_700_000_000.123)
    assert second.headers()[1:] == [("A", b"1"), ("a", b"\xff"), ("A", b"")]
    assert (third.key(), third.value()) == (b"k", None)


def test_through_a_topic_of_flow(kafka_server):  # noqa: F811
    async def story():
        async with Producer(KafkaBroker(kafka_server.bootstrap)) as producer:
            topic = Topic(producer, f"flow.{next(numbers)}")
            assert (await topic.send({"id": 1}, key="1")).offset == 0
            receipts = await topic.send_many([1, 2])
            assert {receipt.topic for receipt in receipts} == {topic.name}

    run(story())


def test_too_large_for_the_broker(kafka_server):  # noqa: F811
    """What passes our own limit and not the broker's is REJECTED, and its neighbours are stored."""

    async def story():
        options = KafkaOptions(max_message_bytes=5_000_000)
        async with Producer(KafkaBroker(kafka_server.bootstrap, options=options)) as producer:
            topic = f"large.{next(numbers)}"
            await producer.produce(Message(topic=topic, body=b"x"))
            big = Message(topic=topic, key=b"k", body=bytes(4_000_000))
            results = await producer.produce_many([big])
            assert isinstance(results[0], PublishError)
            assert results[0].fault is Fault.REJECTED
            assert (await producer.produce(Message(topic=topic, key=b"k", body=b"x"))).offset >= 0

    run(story())
