"""All ways to send: one, without waiting, many with a report each, one after another until the first failure.

Run it against a Kafka: ``python examples/kafka_producer.py``. See settings.py for what the environment may say.
"""

import asyncio

import settings

from headrace import Message
from headrace.kafka import KafkaBroker, ProduceBatchError, Producer


def made(text: str) -> Message:
    """A message for the default topic."""
    return Message(topic="", key=b"alice", body=text.encode())


async def main() -> None:
    """Send, and print what each call answers."""
    given = settings.read()
    broker = KafkaBroker(given.brokers)  # not open: the producer opens and closes it
    async with asyncio.timeout(given.timeout), Producer(broker, default_topic=given.topic) as producer:
        print("produce      ", await producer.produce(made("one")))

        future = await producer.produce_async(made("two"))
        print("produce_async", await future)

        too_large = made("x" * 2_000_000)
        for report in await producer.produce_many([made("three"), too_large, made("four")]):
            print("produce_many ", repr(report)[:60])

        try:
            await producer.produce_batch([made("five"), too_large, made("six")])
        except ProduceBatchError as error:
            print("produce_batch", error.index, error.results, error.fault)


asyncio.run(main())
