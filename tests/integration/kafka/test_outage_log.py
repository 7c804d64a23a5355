"""What a process that only consumes says of outages: one WARNING for each, and nobody tells it that one is over."""

import asyncio
import logging

import pytest

from headrace.kafka.broker import KafkaBroker
from headrace.kafka.reading import KafkaSubscribeOptions
from tests.integration.kafka.raw import eventually, run

pytestmark = pytest.mark.servers

OUTAGE = 8.0
"""Seconds. After a shorter one the driver goes on with the links that it had, and repeats no line for half a minute."""
GOOD = 5.0


def test_two_outages_are_two_warnings(kafka_mock, caplog):
    kafka_mock.create_topic("orders", 2)

    def told():
        return sum(record.levelno >= logging.WARNING for record in caplog.records)

    async def story():
        options = KafkaSubscribeOptions(group="g", session_timeout=6)
        async with KafkaBroker(kafka_mock.bootstrap) as broker, broker.subscribe("orders", options):
            for number in (1, 2):
                await asyncio.sleep(GOOD)
                kafka_mock.down()
                await eventually(lambda number=number: told() == number)
                await asyncio.sleep(OUTAGE if number == 1 else 1)
                assert told() == number
                kafka_mock.up()

    with caplog.at_level(logging.DEBUG, "headrace.kafka"):
        run(story())
