"""Who goes while it joins: the driver would say no word, and the others would wait until its session is over."""

import asyncio

import pytest

from headrace.kafka import KafkaBroker, KafkaSubscribeOptions
from headrace.testing.plugin import kafka_mock  # noqa: F401
from tests.integration.kafka.raw import run

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]

LEAVE_GROUP = 13
ROUND_TRIP = 0.03
"""Seconds: a join of several requests lasts long enough to be met in each of its states."""


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
