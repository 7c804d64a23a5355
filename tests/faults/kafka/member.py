"""A member of a group as a process: ``python -m tests.faults.kafka.member address topic protocol journal pace``.

It writes down each run, and each commit as it is handed to the driver. SIGTERM ends it in good order.
"""

import asyncio
import random
import sys

from headrace.core.delivery import Delivery
from headrace.flow.worker import Worker
from headrace.kafka import KafkaBroker, KafkaSubscribeOptions, driver
from tests.faults.kafka.journal import Journal


class Recording:
    """The driver's consumer; what is committed and assigned through it is written down first."""

    def __init__(self, consumer, journal):
        self._consumer = consumer
        self._journal = journal

    def commit(self, offsets, asynchronous):
        for each in offsets:
            self._journal.write("C", each.partition, each.offset)
        return self._consumer.commit(offsets=offsets, asynchronous=asynchronous)

    def subscribe(self, topics, *, on_assign, on_revoke, on_lost):
        def assigned(_, given):
            for each in given:
                self._journal.write("B", each.partition, each.offset)
            on_assign(self, given)

        self._consumer.subscribe(
            topics,
            on_assign=assigned,
            on_revoke=lambda _, given: on_revoke(self, given),
            on_lost=lambda _, given: on_lost(self, given),
        )

    def __getattr__(self, name):
        return getattr(self._consumer, name)


def recorded(journal):
    """Have every consumer of the driver write down what is committed through it."""
    made = driver.consumer
    driver.consumer = lambda *arguments: Recording(made(*arguments), journal)


async def main(address, topic, protocol, path, pace):
    journal = Journal(path)
    recorded(journal)
    slow, chance = float(pace), random.Random(path)

    async def handler(delivery: Delivery):
        place = delivery.partition, delivery.offset, delivery.message.key
        journal.write("S", *place)
        await asyncio.sleep(chance.random() * slow)
        journal.write("F", *place)

    options = KafkaSubscribeOptions(
        group_protocol=protocol,
        drain_timeout=10,
        commit_interval=0.2,
        session_timeout=None if protocol == "consumer" else 6,
        max_in_flight=500,
    )
    async with KafkaBroker(address) as broker:
        print("ready", flush=True)
        await Worker(broker, topic, handler, group="storm", subscribe=options).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
