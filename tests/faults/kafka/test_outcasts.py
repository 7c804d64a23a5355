"""What ends a member for good ends the run with the broker's own reason: the driver says it once, then stands still."""

import asyncio

import pytest

from headrace.core.message import Message
from headrace.flow.worker import Worker
from headrace.kafka import KafkaBroker, KafkaOptions, KafkaSubscribeOptions
from headrace.kafka.codes import Code
from headrace.kafka.errors import AuthorizationError, CommitError, KafkaError
from headrace.testing.kafka.mock import Api
from headrace.testing.plugin import kafka_mock  # noqa: F401
from tests.integration.kafka.raw import committed, eventually, run

pytestmark = [pytest.mark.chaos, pytest.mark.servers, pytest.mark.timeout(120)]

STATIC = {"group_instance_id": "mill", "session_timeout": 6}
NEWER = {"group_protocol": "consumer"}
COUNT = 6
UNHEARD = 3
"""UNKNOWN_TOPIC_OR_PART, as a broker says that has not heard of the topic."""


def messages():
    return [Message(topic="orders", key=b"k%d" % number, body=b"x") for number in range(COUNT)]


def working(broker, done, **given):
    """A worker that notes what it handles."""

    async def handler(delivery):
        done.append(delivery.offset)

    options = KafkaSubscribeOptions(commit_interval=0.05, **given)
    return Worker(broker, "orders", handler, group="g", subscribe=options)


async def ended_by(worker):
    """What ends the run."""
    try:
        async with asyncio.timeout(15):
            await worker.run()
    except KafkaError as error:
        return error
    raise AssertionError("it ended without an error")


@pytest.mark.parametrize(
    ("api", "code", "given", "kind"),
    [
        (Api.HEARTBEAT, Code.FENCED_INSTANCE_ID, STATIC, KafkaError),
        (Api.OFFSET_COMMIT, Code.FENCED_INSTANCE_ID, STATIC, KafkaError),
        (Api.CONSUMER_GROUP_HEARTBEAT, Code.UNRELEASED_INSTANCE_ID, NEWER, KafkaError),
        (Api.CONSUMER_GROUP_HEARTBEAT, Code.UNSUPPORTED_VERSION, NEWER, KafkaError),
        (Api.CONSUMER_GROUP_HEARTBEAT, Code.GROUP_MAX_SIZE_REACHED, NEWER, KafkaError),
        (Api.CONSUMER_GROUP_HEARTBEAT, Code.GROUP_AUTHORIZATION_FAILED, NEWER, AuthorizationError),
    ],
    ids=lambda value: value.name if isinstance(value, Api | Code) else "",
)
def test_a_member_is_cast_out(api, code, given, kind, kafka_mock):  # noqa: F811
    kafka_mock.create_topic("orders", 2)
    kafka_mock.set_consumer_group_times(session=3, heartbeat=0.3)

    async def story():
        driver = {} if given is NEWER else {"heartbeat.interval.ms": 300}
        async with KafkaBroker(kafka_mock.bootstrap, options=KafkaOptions(driver_options=driver)) as broker:
            await broker.publish_batch(messages())
            done = []
            worker = working(broker, done, **given)
            ending = asyncio.create_task(ended_by(worker))
            await eventually(lambda: len(done) == COUNT)
            kafka_mock.push_errors(api, *[code] * 3)
            await broker.publish_batch(messages())
            error = await ending
            assert (error.code, error.name, type(error), error.fatal) == (code, code.name, kind, True)
            assert not broker.partitions()

    run(story(), 60)


@pytest.mark.parametrize(
    "code", [Code.INVALID_SESSION_TIMEOUT, Code.INCONSISTENT_GROUP_PROTOCOL, Code.GROUP_MAX_SIZE_REACHED]
)
def test_a_member_is_not_taken_in(code, kafka_mock):  # noqa: F811
    kafka_mock.create_topic("orders", 2)
    kafka_mock.push_errors(Api.JOIN_GROUP, *[code] * 20)

    async def story():
        async with KafkaBroker(kafka_mock.bootstrap) as broker:
            assert (await ended_by(working(broker, []))).code == code

    run(story(), 60)


@pytest.mark.parametrize("code", [Code.INVALID_COMMIT_OFFSET_SIZE, Code.INVALID_GROUP_ID])
def test_a_commit_that_never_works_ends_the_run(code, kafka_mock):  # noqa: F811
    kafka_mock.create_topic("orders", 1)

    async def story():
        async with KafkaBroker(kafka_mock.bootstrap) as broker:
            done = []
            ending = asyncio.create_task(ended_by(working(broker, done)))
            await broker.publish_batch(messages())
            await eventually(lambda: done)
            kafka_mock.push_errors(Api.OFFSET_COMMIT, *[code] * 20)
            await broker.publish_batch(messages())
            error = await ending
            assert isinstance(error, CommitError)
            assert error.code == code
            kafka_mock.clear_errors(Api.OFFSET_COMMIT)

    run(story(), 60)


def test_a_broker_that_has_not_heard_of_the_topic_ends_nothing(kafka_mock):  # noqa: F811
    """Neither as it answers to a commit, nor as it tells which topics there are."""
    kafka_mock.create_topic("orders", 1)

    async def stored():
        return (await asyncio.to_thread(committed, kafka_mock, "g", "orders", 1)).get(0)

    async def story():
        quick = {"topic.metadata.refresh.interval.ms": 100, "heartbeat.interval.ms": 300}
        options = KafkaOptions(driver_options=quick)
        async with KafkaBroker(kafka_mock.bootstrap, options=options) as broker:
            await broker.publish_batch(messages())
            done = []
            async with working(broker, done, session_timeout=2):
                await eventually(lambda: len(done) == COUNT)
                kafka_mock.push_errors(Api.OFFSET_COMMIT, *[UNHEARD] * 2)
                await broker.publish_batch(messages())
                await eventually(lambda: len(done) == 2 * COUNT)
                kafka_mock.set_topic_error("orders", UNHEARD)
                await asyncio.sleep(1)
                kafka_mock.set_topic_error("orders", 0)
                await broker.publish_batch(messages())
                await eventually(lambda: len(set(done)) == 3 * COUNT)
                while await stored() != 3 * COUNT:
                    await asyncio.sleep(0.1)

    run(story(), 100)
