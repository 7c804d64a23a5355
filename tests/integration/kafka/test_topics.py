"""Topics on a real broker: made, met, never altered; and logins that do not work."""

import asyncio
import time
from contextlib import asynccontextmanager
from itertools import count

import pytest

from headrace.core.broker import TopicOptions
from headrace.core.errors import ConfigError, Fault, PublishError
from headrace.core.message import Message
from headrace.kafka.broker import KafkaBroker
from headrace.kafka.errors import AuthenticationError, UnknownTopicError
from headrace.kafka.options import KafkaOptions, KafkaSecurity
from headrace.kafka.producer import Producer
from headrace.testing.kafka import KafkaServer, Sasl
from headrace.testing.plugin import kafka_installed, kafka_server  # noqa: F401  (pytest finds them here)

PATIENCE = 50
numbers = count(int(time.time() * 1000))


def new_name(word):
    return f"{word}.{next(numbers)}"


@asynccontextmanager
async def opened(server, *, create=True, **options):
    async with KafkaBroker(server.bootstrap, create=create, options=KafkaOptions(**options)) as broker:
        yield broker


def run(story):
    asyncio.run(asyncio.wait_for(story, PATIENCE))


def test_create_and_collision(kafka_server):  # noqa: F811
    async def story():
        async with opened(kafka_server) as broker:
            name = new_name("orders")
            other = name.replace(".", "_")
            receipt = await broker.publish(Message(topic=name, body=b"x"))  # made on the way
            assert receipt.offset == 0
            assert name in broker.topics.known
            with pytest.raises(ConfigError, match="collides") as raised:
                await broker.declare(other)
            assert name in str(raised.value)
            assert other in str(raised.value)
            with pytest.raises(PublishError, match="collides") as raised:
                await broker.publish(Message(topic=other, body=b"x"))
            assert raised.value.fault is Fault.REJECTED
            assert name in str(raised.value)
            assert other in str(raised.value)

    run(story())


def test_declare_makes_and_never_alters(kafka_server):  # noqa: F811
    async def story():
        async with opened(kafka_server) as broker:
            name = new_name("declared")
            options = TopicOptions(partitions=3, replication=1, max_age=3600, max_bytes=10_000_000)
            await broker.declare(name, options)
            assert await broker.topics.partitions(name) == 3
            await broker.declare(name)
            await broker.declare(name, options)
            for different, said in (
                (TopicOptions(partitions=4), "partitions 3, not 4"),
                (TopicOptions(replication=2), "replication 1, not 2"),
                (TopicOptions(max_age=60), "retention.ms 3600000, not 60000"),
                (TopicOptions(max_bytes=1), "retention.bytes 10000000, not 1"),
            ):
                with pytest.raises(ConfigError, match=said):
                    await broker.declare(name, different)
            assert await broker.topics.partitions(name) == 3
            with pytest.raises(ConfigError):
                await broker.declare(new_name("many"), TopicOptions(replication=9))

    run(story())


def test_met_by_many_at_once(kafka_server):  # noqa: F811
    async def story():
        async with opened(kafka_server) as first, opened(kafka_server) as second:
            name = new_name("at-once")
            messages = [Message(topic=name, key=b"k", body=b"%d" % number) for number in range(20)]
            results = await asyncio.gather(*(broker.publish(one) for one in messages for broker in (first, second)))
            assert sorted(result.offset for result in results) == list(range(40))

    run(story())


def test_without_create(kafka_server):  # noqa: F811
    async def story():
        async with opened(kafka_server, create=False) as broker:
            name = new_name("missing")
            with pytest.raises(PublishError, match="no topic") as raised:
                await broker.publish(Message(topic=name, body=b"x"))
            assert raised.value.fault is Fault.REJECTED
            assert isinstance(raised.value.__cause__, UnknownTopicError)
            async with opened(kafka_server) as other:
                await other.declare(name)
            assert (await broker.publish(Message(topic=name, body=b"x"))).offset == 0

    run(story())


def test_vanished_topic_is_asked_for_anew(kafka_server):  # noqa: F811
    async def story():
        quick = {"topic.metadata.propagation.max.ms": 500, "topic.metadata.refresh.interval.ms": 200}
        async with opened(kafka_server, driver_options=quick) as broker, Producer(broker) as producer:
            name = new_name("vanishing")
            await producer.produce(Message(topic=name, body=b"x"))
            for future in broker.topics.admin.delete_topics([name]).values():
                await broker.topics.answer(future)
            await asyncio.sleep(0.5)
            results = await producer.produce_many([Message(topic=name, body=b"x") for _ in range(3)])
            for result in results:
                assert isinstance(result, PublishError)
                assert result.fault is Fault.REJECTED
                assert isinstance(result.__cause__, UnknownTopicError)
            while isinstance(results[0], PublishError):  # it is made again, and the driver hears of it
                results = await producer.produce_many([Message(topic=name, body=b"x")])
            assert results[0].offset == 0

    run(story())


def test_auth_error_reaches_user():
    async def story(server):
        def login(password, mechanism="SCRAM-SHA-256"):
            return KafkaOptions(
                security=KafkaSecurity(
                    protocol="sasl_plaintext", mechanism=mechanism, username="ann", password=password
                )
            )

        async with KafkaBroker(server.bootstrap, options=login("right1")) as broker:
            assert (await broker.publish(Message(topic="orders", body=b"x"))).offset == 0
        for mechanism in ("PLAIN", "SCRAM-SHA-512"):
            began = time.monotonic()
            with pytest.raises(AuthenticationError) as raised:
                await KafkaBroker(server.bootstrap, options=login("wrong1", mechanism)).open()
            assert time.monotonic() - began < 10
            assert "wrong1" not in str(raised.value)

    with KafkaServer(sasl=Sasl(users={"ann": "right1"})) as server:
        run(story(server))
