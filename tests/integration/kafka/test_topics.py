"""Topics on a real broker: made, met, never altered; and logins that do not work."""

import asyncio
import time
from contextlib import asynccontextmanager
from itertools import count

import pytest

from headrace.core.broker import Start, TopicOptions
from headrace.core.errors import ConfigError, Fault, PublishError
from headrace.core.message import Message
from headrace.kafka.broker import KafkaBroker
from headrace.kafka.errors import AuthenticationError, AuthorizationError, UnknownTopicError
from headrace.kafka.options import KafkaOptions, KafkaSecurity
from headrace.kafka.producer import Producer
from headrace.kafka.reading import KafkaSubscribeOptions
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


def test_a_topic_that_was_deleted_is_made_again_for_who_subscribes(kafka_server):  # noqa: F811
    """A supervisor starts its worker anew, on the same broker."""

    async def story():
        async with opened(kafka_server) as broker:
            name = new_name("deleted")
            options = KafkaSubscribeOptions(group=new_name("group"), start=Start.all())
            await broker.publish(Message(topic=name, body=b"old"))
            await broker.topics.answer(broker.topics.admin.delete_topics([name])[name])
            while name in (await broker.topics.metadata()).topics:
                await asyncio.sleep(0.05)
            assert name in broker.topics.known
            async with broker.subscribe(name, options) as subscription, Producer(broker) as producer:
                await producer.produce(Message(topic=name, body=b"new"))
                assert [each.message.body for each in await subscription.pull(1, 20)] == [b"new"]

    run(story())


def test_a_topic_that_may_not_be_seen_is_no_unknown_one(kafka_installed):  # noqa: F811
    """Brokers tell of it only who asks by its name."""
    acls = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:root;User:ANONYMOUS",
    }

    def login(name):
        return KafkaOptions(
            security=KafkaSecurity(
                protocol="sasl_plaintext", mechanism="SCRAM-SHA-256", username=name, password=f"{name}1"
            )
        )

    async def story(server):
        async with KafkaBroker(server.bootstrap, options=login("root")) as broker:
            await broker.declare("secret")
        for create in (False, True):
            async with KafkaBroker(server.bootstrap, options=login("ann"), create=create) as broker:
                with pytest.raises(PublishError, match="'secret'") as raised:
                    await broker.publish(Message(topic="secret", body=b"x"))
                assert raised.value.fault is Fault.REJECTED
                assert isinstance(raised.value.__cause__, AuthorizationError)
                with pytest.raises(AuthorizationError, match="'secret'"):
                    async with broker.subscribe("secret", KafkaSubscribeOptions(group="g")):
                        pass

    with KafkaServer(sasl=Sasl(users={"root": "root1", "ann": "ann1"}), config=acls, libs=kafka_installed) as server:
        run(story(server))


def test_asking_makes_no_topic(kafka_installed):  # noqa: F811
    """Where the server makes what a producer asks for, too."""

    async def story(server):
        async with KafkaBroker(server.bootstrap, create=False) as broker:
            for _ in range(2):
                with pytest.raises(UnknownTopicError):
                    async with broker.subscribe("missing", KafkaSubscribeOptions(group="g")):
                        pass
                await asyncio.sleep(0.5)
            assert "missing" not in (await broker.topics.metadata()).topics

    with KafkaServer(config={"auto.create.topics.enable": "true"}, libs=kafka_installed) as server:
        run(story(server))


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
