"""A member of a consumer group: messages of two keys in order per key, one of which fails twice before it succeeds.

Run it against a Kafka: ``python examples/kafka_group.py``. See settings.py for what the environment may say.
"""

import asyncio

import settings

from headrace import DeadLetter, Message, RetryPolicy
from headrace.core.delivery import Delivery
from headrace.kafka import GroupConsumer, KafkaBroker, KafkaSubscribeOptions
from headrace.testing import run_until_idle


async def handle(delivery: Delivery) -> None:
    """Print it; what fails is run again in its place, and other keys go on meanwhile."""
    message = delivery.message
    if message.body == b"two" and delivery.attempt < 3:
        raise ConnectionError("no answer")
    print(f"{delivery.position} key={message.key!r} attempt={delivery.attempt} {message.body!r}")


async def main() -> None:
    """Publish, then handle until nothing is left."""
    given = settings.read()
    async with KafkaBroker(given.brokers) as broker, asyncio.timeout(given.timeout):
        for key, body in ((b"alice", b"one"), (b"alice", b"two"), (b"bob", b"three")):
            await broker.publish(Message(topic=given.topic, key=key, body=body))
        consumer = GroupConsumer(
            broker,
            given.topic,
            handle,
            group=given.group,
            retry=RetryPolicy(max_attempts=5, initial=0.1, maximum=10.0),
            on_exhausted=DeadLetter(),
            subscribe=KafkaSubscribeOptions(drain_timeout=10),
        )
        print(consumer)
        await run_until_idle(consumer)  # a service says: await consumer.run()


asyncio.run(main())
