"""A user without rights, on a real broker that checks them: a typed error within ten seconds, and no secret in it."""

import asyncio
import time
import traceback

import pytest
from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, ResourcePatternType, ResourceType

from headrace.core.broker import Start
from headrace.core.errors import Fault, PublishError
from headrace.core.message import Message
from headrace.flow.worker import Worker
from headrace.kafka import (
    AuthorizationError,
    KafkaBroker,
    KafkaOptions,
    KafkaPartitionOptions,
    KafkaSecurity,
    KafkaSubscribeOptions,
    Producer,
    ProduceResult,
)
from headrace.testing.kafka import KafkaServer, Sasl
from tests.integration.kafka.raw import ask, eventually, run, write

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]

WORD = "hushhush1"
PROTOCOLS = ("cooperative", "eager", "consumer")
RIGHTS = {  # of whom, to what, which; "ann" has none at all
    "bob": [("TOPIC", "seen", "DESCRIBE"), ("GROUP", "bobs", "READ")],
    "carl": [("TOPIC", "seen", "DESCRIBE"), ("TOPIC", "written", "WRITE")],
    "dora": [("TOPIC", "read", "READ"), *(("GROUP", f"doras-{name}", "READ") for name in PROTOCOLS)],
}
TOPICS = ("hidden", "seen", "written", "read")
CHECKED = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",  # the broker's own listener
}
ALONE = {
    "alone": KafkaSubscribeOptions(start=Start.all()),
    "partition": KafkaPartitionOptions(partition=0),
}


class Inner:
    """A server as the driver's own tools are to meet it: where nobody has to log in."""

    def __init__(self, server):
        self.bootstrap = server.inner


@pytest.fixture(scope="module")
def guarded(kafka_installed):
    sasl = Sasl(users=dict.fromkeys(("ann", *RIGHTS), WORD), mechanisms=("SCRAM-SHA-256",))
    with KafkaServer(libs=kafka_installed, config=CHECKED, sasl=sasl) as server:
        for name in TOPICS:
            server.create_topic(name)
            write(Inner(server), name, b"stored")
        ask(Inner(server), lambda admin: admin.create_acls([*map(binding, rights())]))
        run(until_known(server))
        yield server


def rights():
    return [(user, *right) for user, each in RIGHTS.items() for right in each]


def binding(right):
    user, kind, name, operation = right
    return AclBinding(
        ResourceType[kind], name, ResourcePatternType.LITERAL, f"User:{user}", "*",
        AclOperation[operation], AclPermissionType.ALLOW,
    )  # fmt: skip


def broker_of(server, user, **options):
    security = KafkaSecurity(protocol="sasl_plaintext", mechanism="SCRAM-SHA-256", username=user, password=WORD)
    return KafkaBroker(server.bootstrap, options=KafkaOptions(security=security), **options)


async def until_known(server):
    """The broker hears of rights a moment after they were given."""
    for user, topic in (("bob", "seen"), ("carl", "written"), ("dora", "read")):
        async with broker_of(server, user) as broker:
            while topic not in (await broker.topics.metadata()).topics:
                await asyncio.sleep(0.05)


async def refused(kind, work):
    """What `work` raises, within ten seconds and without the secret."""
    began = time.monotonic()
    with pytest.raises(kind) as caught:
        await work
    assert time.monotonic() - began < 10
    assert WORD not in "".join(traceback.format_exception(caught.value))
    return caught.value


async def produce(producer, **given):
    async with producer:
        return await producer.produce(Message(body=b"x", **given))


async def publish(broker, **given):
    async with broker:
        return await broker.publish(Message(body=b"x", **given))


def in_group(name, protocol):
    return KafkaSubscribeOptions(group=name, group_protocol=protocol)


async def work(broker, topic, options):
    async with broker:
        await Worker(broker, topic, lambda delivery: None, subscribe=options).run()


# -- sending -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("user", "topic"), [("ann", "hidden"), ("ann", "missing"), ("carl", "seen")])
def test_sending_without_the_right(user, topic, guarded, caplog):
    async def story():
        for call in (
            publish(broker_of(guarded, user), topic=topic),
            produce(Producer(broker_of(guarded, user)), topic=topic),
            produce(Producer(broker_of(guarded, user), default_topic=topic), topic=""),
        ):
            error = await refused(PublishError, call)
            assert error.fault is Fault.REJECTED
            assert isinstance(error.__cause__, AuthorizationError)
            assert error.__cause__.name == "TOPIC_AUTHORIZATION_FAILED"

    run(story())
    assert WORD not in caplog.text


def test_without_the_right_to_any_topic_nothing_is_known_of_the_message(guarded):
    """Numbers for its batches are refused, which ends the client of the driver: nothing is certain after that."""

    async def story():
        error = await refused(PublishError, publish(broker_of(guarded, "bob"), topic="seen"))
        assert isinstance(error.__cause__, AuthorizationError)
        assert error.__cause__.name == "CLUSTER_AUTHORIZATION_FAILED"
        return error.fault

    assert run(story()) is Fault.UNKNOWN


def test_a_neighbour_with_the_right_is_stored(guarded):
    async def story():
        async with Producer(broker_of(guarded, "carl")) as producer:
            return await producer.produce_many([Message(topic=name, body=b"x") for name in ("seen", "written", "seen")])

    first, second, third = run(story())
    assert isinstance(second, ProduceResult)
    for error in (first, third):
        assert error.fault is Fault.REJECTED
        assert isinstance(error.__cause__, AuthorizationError)


def test_making_a_topic_without_the_right(guarded):
    async def story():
        async with broker_of(guarded, "ann") as broker:
            await refused(AuthorizationError, broker.declare("missing"))
            await refused(AuthorizationError, broker.declare("hidden"))

    run(story())


# -- reading -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [*(in_group("bobs", name) for name in PROTOCOLS), *ALONE.values()])
def test_reading_a_topic_that_is_hidden(options, guarded, caplog):
    async def story():
        await refused(AuthorizationError, work(broker_of(guarded, "ann"), "hidden", options))
        await refused(AuthorizationError, work(broker_of(guarded, "ann", create=False), "hidden", options))

    run(story())
    assert WORD not in caplog.text


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_reading_a_topic_that_may_only_be_seen(protocol, guarded, caplog):
    async def story():
        error = await refused(AuthorizationError, work(broker_of(guarded, "bob"), "seen", in_group("bobs", protocol)))
        assert error.name == "TOPIC_AUTHORIZATION_FAILED"

    run(story())
    assert WORD not in caplog.text


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_joining_a_group_without_the_right(protocol, guarded, caplog):
    async def story():
        error = await refused(
            AuthorizationError, work(broker_of(guarded, "dora"), "read", in_group("others", protocol))
        )
        assert error.name == "GROUP_AUTHORIZATION_FAILED"

    run(story(), 20)
    assert WORD not in caplog.text


async def read(server, options):
    """What dora gets of the topic that she may read."""
    found = []

    async def handler(delivery):
        found.append(delivery.message.body)

    async with broker_of(server, "dora") as broker, Worker(broker, "read", handler, subscribe=options):
        await eventually(lambda: found)
        await asyncio.sleep(0.5)
    return found


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_allowed_is_done(protocol, guarded):
    """What is refused above is refused for the missing right and nothing else."""
    run(publish(broker_of(guarded, "carl"), topic="written"))
    assert run(read(guarded, in_group(f"doras-{protocol}", protocol))) == [b"stored"]


@pytest.mark.parametrize("kind", ALONE)
def test_who_reads_alone_needs_no_right_to_a_group(kind, guarded):
    assert run(read(guarded, ALONE[kind])) == [b"stored"]
