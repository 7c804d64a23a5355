"""Memory stays where it is: what is handled, committed and answered is forgotten."""

import os
from itertools import count, islice
from pathlib import Path

import pytest

from headrace.core.message import Message
from headrace.flow.worker import Worker
from headrace.kafka import KafkaBroker
from headrace.testing.plugin import kafka_installed, kafka_server  # noqa: F401
from tests.integration.kafka.raw import eventually, new_topic, run

pytestmark = [pytest.mark.chaos, pytest.mark.servers, pytest.mark.timeout(1200)]

ROUND = 10_000
WARM = 4
GROWTH = 16 * 1024 * 1024


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_soak_memory_flat(kafka_server, in_ci):  # noqa: F811
    """Every message has a key of its own, so that what is kept by key would pile up."""
    topic, rounds = new_topic(kafka_server, 4), 12 if in_ci else 100
    sizes, messages = [], (Message(topic=topic, key=b"%d" % number, body=b"x" * 100) for number in count())

    async def handler(delivery):
        pass

    async def story():
        async with (
            KafkaBroker(kafka_server.bootstrap) as broker,
            Worker(broker, topic, handler, group="soak") as worker,
        ):
            for turn in range(1, rounds + 1):
                for _ in range(ROUND // 1_000):
                    await broker.publish_batch(list(islice(messages, 1_000)))
                await eventually(lambda handled=turn * ROUND: worker.stats.acked == handled, 60)
                sizes.append(resident())

    run(story(), 1100)
    print([f"{size / 2**20:.0f} MiB" for size in sizes])
    assert max(sizes[-3:]) - max(sizes[:WARM]) < GROWTH
