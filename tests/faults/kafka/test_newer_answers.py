"""What brokers answer to commits in the words of the newer protocol (KIP-848): the driver's mock cluster does it."""

import asyncio
import logging

import pytest

from headrace.flow.worker import Worker
from headrace.kafka import KafkaBroker, KafkaSubscribeOptions
from headrace.kafka.codes import Code
from headrace.testing.kafka.mock import Api
from headrace.testing.plugin import kafka_mock  # noqa: F401
from tests.integration.kafka.raw import committed, eventually, numbered, run

pytestmark = [pytest.mark.chaos, pytest.mark.servers, pytest.mark.timeout(120)]

COUNT, KEYS, PARTITIONS = 60, 6, 2
CODES = (Code.FENCED_MEMBER_EPOCH, Code.STALE_MEMBER_EPOCH)


class Mocked:
    """A worker on a mock cluster, what it has finished, and the commits that the brokers were asked for."""

    def __init__(self, mock, protocol):
        self.mock = mock
        self.options = KafkaSubscribeOptions(
            group_protocol=protocol, commit_interval=0.05, session_timeout=None if protocol == "consumer" else 6
        )
        self.done = set()

    async def handler(self, delivery):
        self.done.add((delivery.partition, delivery.offset))

    async def stored(self):
        found = await asyncio.to_thread(committed, self.mock, "g", "orders", PARTITIONS)
        return sum(found.values())

    async def all_of(self, broker, count):
        await broker.publish_batch(numbered("orders", COUNT, KEYS))
        await eventually(lambda: len(self.done) == count)

    @property
    def commits(self):
        return len(self.mock.requests(Api.OFFSET_COMMIT))


@pytest.mark.parametrize("protocol", ["cooperative", "consumer"])
@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
def test_commit_error_of_the_newer_protocol(code, protocol, kafka_mock, caplog):  # noqa: F811
    """It fails twice: nobody hears of it but a log, and in the end all is committed, some of it handled again."""
    kafka_mock.create_topic("orders", PARTITIONS)
    one = Mocked(kafka_mock, protocol)

    async def story():
        async with KafkaBroker(kafka_mock.bootstrap) as broker:
            async with Worker(broker, "orders", one.handler, group="g", subscribe=one.options):
                await one.all_of(broker, COUNT)
                while await one.stored() < COUNT:
                    await asyncio.sleep(0.1)
                kafka_mock.track()
                kafka_mock.push_errors(Api.OFFSET_COMMIT, code, code)
                await one.all_of(broker, 2 * COUNT)
                while await one.stored() < 2 * COUNT:
                    await asyncio.sleep(0.2)
            assert one.commits >= 3  # the two that were refused, and one that was not

    with caplog.at_level(logging.WARNING, "headrace.kafka"):
        run(story(), 100)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "headrace.kafka"]
    assert "a commit failed and is repeated" in line
    assert code.name in line


@pytest.mark.parametrize("protocol", ["cooperative", "consumer"])
@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
def test_the_place_where_a_group_begins_is_refused_so(code, protocol, kafka_mock):  # noqa: F811
    """Others were faster: the member joins all the same, and begins where it was told to."""
    kafka_mock.create_topic("orders", PARTITIONS)
    one = Mocked(kafka_mock, protocol)

    async def story():
        async with KafkaBroker(kafka_mock.bootstrap) as broker:
            await broker.publish_batch(numbered("orders", COUNT, KEYS))
            kafka_mock.track()
            kafka_mock.push_errors(Api.OFFSET_COMMIT, code, code)
            async with Worker(broker, "orders", one.handler, group="g", subscribe=one.options):
                await eventually(lambda: len(one.done) == COUNT)
                while await one.stored() < COUNT:
                    await asyncio.sleep(0.1)
            assert one.commits >= 3

    run(story(), 100)
