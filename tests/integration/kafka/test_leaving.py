"""Who goes while it joins: the driver would say no word, and the others would wait until its session is over."""

import asyncio
import threading
from contextlib import AsyncExitStack

import pytest

from headrace.core.errors import BrokerTimeoutError
from headrace.core.message import Message
from headrace.kafka import KafkaBroker, KafkaSubscribeOptions
from headrace.kafka.consuming import opening, poller
from headrace.testing.plugin import kafka_mock  # noqa: F401
from tests.integration.kafka.raw import run

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]

LEAVE_GROUP = 13
ROUND_TRIP = 0.03
"""Seconds: a join of several requests lasts long enough to be met in each of its states."""


def test_a_broker_closes_all_that_it_has(kafka_mock, monkeypatch):  # noqa: F811
    """One of its subscriptions has a commit that nobody can take: it says so, and the rest is closed all the same."""
    monkeypatch.setattr(opening, "_CONFIRM", 0.3)
    monkeypatch.setattr(poller, "_LEAVING", 0.3)  # the driver needs minutes to close while its brokers are away
    kafka_mock.create_topic("orders", 1)
    kafka_mock.set_rebalance_delay(0)

    async def story():
        broker = KafkaBroker(kafka_mock.bootstrap)
        await broker.open()
        await broker.publish(Message(topic="orders", body=b"1"))
        options = [KafkaSubscribeOptions(group=group, commit_interval=60) for group in ("one", "two")]
        async with AsyncExitStack() as stack:
            for each in options:
                subscription = await stack.enter_async_context(broker.subscribe("orders", each))
                (delivery,) = await subscription.pull(1, 20)
                delivery.ack()
            kafka_mock.down()
            await asyncio.sleep(0.5)
            with pytest.raises(BrokerTimeoutError):
                await broker.aclose()
            threads = [thread.name for thread in threading.enumerate()]
            assert not [name for name in threads if name.startswith("headrace-kafka-headrace")], "it still sends"
            kafka_mock.up()

    run(story(), 100)


@pytest.mark.parametrize("protocol", ["cooperative", "eager"])
def test_every_member_says_that_it_leaves(protocol, kafka_mock):  # noqa: F811
    kafka_mock.create_topic("orders", 2)
    kafka_mock.set_rebalance_delay(0.05)

    async def story():
        async with KafkaBroker(kafka_mock.bootstrap) as broker:
            kafka_mock.slow(ROUND_TRIP)
            for step in range(16):
                options = KafkaSubscribeOptions(group=f"g{step}", group_protocol=protocol, prefetch=0)
                kafka_mock.track()
                async with broker.subscribe("orders", options):
                    await asyncio.sleep(step * ROUND_TRIP / 2)
                left = kafka_mock.requests(LEAVE_GROUP)
                kafka_mock.untrack()
                assert left, f"closed {step * ROUND_TRIP / 2:.3f} s after it subscribed, it left without a word"

    run(story(), 100)
