"""A key whose messages always fail: its neighbours in the same partition go on, and nothing is committed past it."""

import asyncio
from collections import defaultdict

import pytest

from headrace.flow.retry import RetryPolicy
from headrace.flow.worker import Worker
from headrace.kafka import KafkaBroker
from tests.integration.kafka.raw import committed, eventually, new_name, new_topic, numbered, run

pytestmark = pytest.mark.servers

KEYS, EACH = 20, 10
POISON = b"k3"


def test_poison_neighbours_flow(kafka_server):
    topic, group = new_topic(kafka_server), new_name("poison")
    seen, attempts = defaultdict(list), []

    async def failing(delivery):
        if delivery.message.key == POISON:
            attempts.append((delivery.offset, delivery.attempt))
            raise RuntimeError("poison")
        seen[delivery.message.key].append(int(delivery.message.body))

    async def healthy(delivery):
        seen[delivery.message.key].append(int(delivery.message.body))

    async def story():
        async with KafkaBroker(kafka_server.bootstrap) as broker:
            await broker.publish_batch(numbered(topic, KEYS * EACH, KEYS))
            retry = RetryPolicy(initial=0.05, maximum=0.05, jitter=0)
            async with Worker(broker, topic, failing, group=group, retry=retry):
                await eventually(lambda: sum(map(len, seen.values())) == (KEYS - 1) * EACH)
                await eventually(lambda: len(attempts) > 5)
            stands = await asyncio.to_thread(committed, kafka_server, group, topic)
            async with Worker(broker, topic, healthy, group=group):
                await eventually(lambda: len(seen[POISON]) == EACH)
            return stands[0]

    stands = run(story())
    assert {offset for offset, _ in attempts} == {3}  # the others of its key wait behind it
    assert [attempt for _, attempt in attempts] == list(range(1, len(attempts) + 1))
    assert stands == 3
    assert {key: numbers == sorted(numbers) for key, numbers in seen.items()} == dict.fromkeys(seen, True)
    assert sum(map(len, seen.values())) == KEYS * EACH  # none of the neighbours again
