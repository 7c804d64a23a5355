"""A revoke that did not wait for handlers to the end: what they finish afterwards is committed by nobody."""

import asyncio

import pytest

from headrace.core.message import Message
from headrace.flow.worker import Worker
from headrace.kafka import KafkaBroker, KafkaOptions, KafkaSubscribeOptions
from headrace.testing.kafka.mock import Api
from headrace.testing.plugin import kafka_mock  # noqa: F401
from tests.integration.kafka.raw import eventually, run

pytestmark = [pytest.mark.chaos, pytest.mark.servers, pytest.mark.timeout(120)]

COUNT, PARTITIONS, INTERVAL = 40, 2, 0.05


class Member:
    """A worker whose handlers stand still until their partition, or all, is let go."""

    def __init__(self, broker, protocol):
        self.started = {number: set() for number in range(PARTITIONS)}
        self.gates = {number: asyncio.Event() for number in range(PARTITIONS)}
        times = {} if protocol == "consumer" else {"session_timeout": 2}
        options = KafkaSubscribeOptions(
            group_protocol=protocol, commit_interval=INTERVAL, drain_timeout=0.3, max_poll_interval=10, **times
        )
        self.worker = Worker(broker, "orders", self.handle, group="g", concurrency=COUNT, subscribe=options)

    async def handle(self, delivery):
        self.started[delivery.partition].add(delivery.offset)
        await self.gates[delivery.partition].wait()

    def let_go(self):
        for gate in self.gates.values():
            gate.set()


@pytest.mark.parametrize("protocol", ["cooperative", "eager"])
def test_no_commit_after_revoke(protocol, kafka_mock):  # noqa: F811
    """Requests are counted: none for what ends late, and some as soon as anything is finished in time."""
    kafka_mock.create_topic("orders", PARTITIONS)
    quick = {"heartbeat.interval.ms": 300}

    def commits():
        return len(kafka_mock.requests(Api.OFFSET_COMMIT))

    async def story():
        options = KafkaOptions(driver_options=quick)
        async with KafkaBroker(kafka_mock.bootstrap, options=options) as broker:
            await broker.publish_batch([Message(topic="orders", key=b"k%d" % n, body=b"x") for n in range(COUNT)])
            first, second = Member(broker, protocol), Member(broker, protocol)
            async with first.worker:
                await eventually(lambda: all(first.started.values()))
                async with second.worker:
                    await eventually(lambda: any(second.started.values()), 60)
                    moved = next(number for number, offsets in second.started.items() if offsets)
                    late = len(first.started[moved])
                    kafka_mock.track()
                    first.gates[moved].set()
                    await eventually(lambda: first.worker.stats.late_settles == late)
                    await asyncio.sleep(10 * INTERVAL)
                    assert not commits()
                    first.let_go()
                    second.let_go()
                    await eventually(commits)

    run(story(), 100)
