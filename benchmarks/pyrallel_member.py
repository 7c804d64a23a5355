"""A group's member on pyrallel-consumer: ``python -m benchmarks.pyrallel_member ADDRESS TOPIC PROTOCOL JOURNAL PACE``.

It keeps the journal of tests/faults/kafka/member.py, which is ours: each run, and commits and stays as they come.
The protocol is the driver's own choice, "eager": it has no option. SIGTERM ends it as in its own example.
"""

import asyncio
import os
import random
import signal
import sys
from importlib.util import find_spec

from benchmarks.pyrallel import MEMBER, PYTHON
from tests.faults.kafka.journal import Journal

GROUP = "storm"
SESSION_MS = 6_000
"""As ours: with its default of 60 s nobody would take over from the killed before the end."""


def recorded(journal):
    """Have its consumer write down what is committed and assigned through it, first."""
    from confluent_kafka import Consumer
    from pyrallel_consumer.control_plane import broker_poller

    class Recording(Consumer):
        def commit(self, *, offsets, asynchronous):
            for each in offsets:
                journal.write("C", each.partition, each.offset)
            stored = super().commit(offsets=offsets, asynchronous=asynchronous)
            for each in stored or ():
                if each.error is None:
                    journal.write("A", each.partition, each.offset)
            return stored

        def subscribe(self, topics, *, on_assign, on_revoke):
            def assigned(consumer, given):
                for each in given:
                    journal.write("B", each.partition, each.offset)
                on_assign(consumer, given)

            super().subscribe(topics, on_assign=assigned, on_revoke=on_revoke)

    broker_poller.Consumer = Recording


async def main(address, topic, protocol, path, pace):
    from pyrallel_consumer import KafkaConfig, PyrallelConsumer

    journal = Journal(path)
    recorded(journal)
    slow, chance = float(pace), random.Random(path)
    leave = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leave.set)

    async def worker(item):
        place = item.tp.partition, item.offset, item.key
        journal.write("S", *place)
        await asyncio.sleep(chance.random() * slow)
        journal.write("F", *place)

    config = KafkaConfig(BOOTSTRAP_SERVERS=address, CONSUMER_GROUP=GROUP, SESSION_TIMEOUT_MS=SESSION_MS)
    consumer = PyrallelConsumer(config=config, worker=worker, topic=topic)
    await consumer.start()
    print("ready", flush=True)
    leaving, closed = asyncio.create_task(leave.wait()), asyncio.create_task(consumer.wait_closed())
    await asyncio.wait((leaving, closed), return_when=asyncio.FIRST_COMPLETED)
    leaving.cancel()
    await consumer.stop()
    await closed


if __name__ == "__main__":
    if find_spec("pyrallel_consumer") is None:  # started beside ours: the process stays, its Python changes
        os.execv(PYTHON, [str(PYTHON), "-m", MEMBER, *sys.argv[1:]])
    asyncio.run(main(*sys.argv[1:]))
