"""One partition read as a process: ``python -m tests.faults.kafka.checkpointer address topic journal store fuse pace``.

It writes down what a member does: C a checkpoint is handed to the store, A it is saved. `fuse`, a kind and a number, as
``F:17``: it kills itself behind the line of this kind that has this number. Without one SIGTERM ends it in good order.
"""

import asyncio
import os
import random
import signal
import sys

from headrace.core.delivery import Delivery
from headrace.kafka import DirectoryOffsetStore, KafkaBroker, KafkaPartitionOptions, PartitionConsumer
from tests.faults.kafka.journal import Journal

SPAN, IN_FLIGHT = 100, 50


class Fused(Journal):
    """A journal whose writer dies with a line of it."""

    def __init__(self, path, fuse):
        super().__init__(path)
        self._kind, _, number = fuse.partition(":")
        self._left = int(number or 0)

    def write(self, kind, partition, offset, key=b""):
        super().write(kind, partition, offset, key)
        if kind == self._kind:
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)


class Recording:
    """The store; what is loaded and saved is written down."""

    def __init__(self, store, journal):
        self._store = store
        self._journal = journal

    async def load(self, topic, partition):
        found = await self._store.load(topic, partition)
        self._journal.write("B", partition, found or 0)
        return found

    async def save(self, topic, partition, next_offset):
        self._journal.write("C", partition, next_offset)
        await self._store.save(topic, partition, next_offset)
        self._journal.write("A", partition, next_offset)


async def main(address, topic, *places):
    path, folder, fuse, pace = places
    journal, store = Fused(path, fuse), DirectoryOffsetStore(folder)
    slow, chance = float(pace), random.Random(path)

    async def handler(delivery: Delivery):
        place = delivery.partition, delivery.offset, delivery.message.key
        journal.write("S", *place)
        await asyncio.sleep(chance.random() * slow)
        journal.write("F", *place)

    options = KafkaPartitionOptions(
        partition=0,
        offset_store=Recording(store, journal),
        commit_interval=0.02,
        max_span=SPAN,
        max_in_flight=IN_FLIGHT,
    )
    await PartitionConsumer(KafkaBroker(address), topic, handler, subscribe=options).run()
    await store.aclose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
