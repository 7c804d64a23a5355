"""What brokers answer to commits, and brokers that go and come back: the driver's mock cluster does it when told to."""

import asyncio
import logging

import pytest

from headrace.core.message import Message
from headrace.flow.worker import Worker
from headrace.kafka import KafkaBroker, KafkaSubscribeOptions
from headrace.kafka.codes import Code
from headrace.kafka.errors import CommitError
from headrace.testing.kafka.mock import Api
from headrace.testing.plugin import kafka_mock  # noqa: F401
from tests.integration.kafka.raw import committed, eventually, run

pytestmark = [pytest.mark.chaos, pytest.mark.servers, pytest.mark.timeout(120)]

COUNT, KEYS, PARTITIONS = 60, 6, 2
PASSING = (
    Code.COORDINATOR_LOAD_IN_PROGRESS,
    Code.COORDINATOR_NOT_AVAILABLE,
    Code.NOT_COORDINATOR,
    Code.REQUEST_TIMED_OUT,
    Code.ILLEGAL_GENERATION,
    Code.UNKNOWN_MEMBER_ID,
    Code.REBALANCE_IN_PROGRESS,
)
FINAL = (Code.TOPIC_AUTHORIZATION_FAILED, Code.GROUP_AUTHORIZATION_FAILED)


def messages(count=COUNT):
    return [Message(topic="orders", key=b"k%d" % (number % KEYS), body=b"%d" % number) for number in range(count)]


@pytest.mark.parametrize("code", PASSING, ids=lambda code: code.name)
def test_commit_error_each_code(code, kafka_mock):  # noqa: F811
    """It fails twice: nobody hears of it but a log, and in the end all is committed, some of it handled again."""
    kafka_mock.create_topic("orders", PARTITIONS)
    done = set()

    async def stored():
        return sum((await asyncio.to_thread(committed, kafka_mock, "g", "orders", PARTITIONS)).values())

    async def handler(delivery):
        done.add((delivery.partition, delivery.offset))

    async def story():
        async with KafkaBroker(kafka_mock.bootstrap) as broker:
            await broker.publish_batch(messages())
            kafka_mock.push_errors(Api.OFFSET_COMMIT, 0, 0, code, code)  # the first two store where the group begins
            options = KafkaSubscribeOptions(commit_interval=0.05, session_timeout=6)
            async with Worker(broker, "orders", handler, group="g", subscribe=options):
                await eventually(lambda: len(done) == COUNT)
                await broker.publish_batch(messages())
                await eventually(lambda: len(done) == 2 * COUNT)
                while await stored() < 2 * COUNT:
                    await asyncio.sleep(0.2)

    run(story(), 100)


@pytest.mark.parametrize("code", FINAL, ids=lambda code: code.name)
def test_refused_commit_ends_the_run(code, kafka_mock):  # noqa: F811
    kafka_mock.create_topic("orders", PARTITIONS)

    async def story():
        async with KafkaBroker(kafka_mock.bootstrap) as broker:
            await broker.publish_batch(messages())
            options = KafkaSubscribeOptions(commit_interval=0.05)
            worker = Worker(broker, "orders", lambda delivery: None, group="g", subscribe=options)
            running = asyncio.create_task(worker.run())
            await eventually(lambda: worker.stats.acked)
            kafka_mock.push_errors(Api.OFFSET_COMMIT, *[code] * 20)
            await broker.publish_batch(messages())
            with pytest.raises(CommitError) as caught:
                await running
            kafka_mock.clear_errors(Api.OFFSET_COMMIT)
            assert caught.value.code == code

    run(story(), 100)


def test_broker_down_up_slow(kafka_mock, caplog):  # noqa: F811
    """All brokers away for seconds, then slow, under a worker and a publisher: all arrives, in order of keys."""
    kafka_mock.create_topic("orders", PARTITIONS)
    seen = {}

    async def handler(delivery):
        await asyncio.sleep(0.005)
        seen.setdefault(delivery.message.key, []).append(int(delivery.message.body))

    async def story():
        async with KafkaBroker(kafka_mock.bootstrap) as broker:
            options = KafkaSubscribeOptions(commit_interval=0.1)
            async with Worker(broker, "orders", handler, group="g", subscribe=options):
                await broker.publish_batch(messages(300))
                await eventually(lambda: seen)
                kafka_mock.down()
                sending = asyncio.create_task(broker.publish_batch(messages(600)[300:]))
                await asyncio.sleep(3)
                kafka_mock.up()
                kafka_mock.slow(0.3)
                receipts = await sending
                kafka_mock.slow(0)
                await eventually(lambda: sum(map(len, seen.values())) >= 600, 60)
            return receipts

    with caplog.at_level(logging.WARNING, "headrace.kafka"):
        receipts = run(story(), 100)
    assert not [receipt for receipt in receipts if isinstance(receipt, Exception)]
    for numbers in seen.values():
        first = list(dict.fromkeys(numbers))
        assert first == sorted(first)
    assert sum(len(set(numbers)) for numbers in seen.values()) == 600
    assert [record for record in caplog.records if record.levelno == logging.WARNING]
