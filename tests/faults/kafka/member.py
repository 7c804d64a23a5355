"""A member of a group as a process: ``python -m tests.faults.kafka.member address topic protocol journal pace [more]``.

It writes down each run, each commit as it is handed to the driver, and each that was confirmed. `more` is JSON:
``group``, ``options`` of the subscription, ``driver`` options, ``fault`` (seconds). SIGTERM ends it in good order; for
so many seconds SIGUSR1 keeps its thread from polling, and SIGUSR2 has the next handler block the loop.
"""

import asyncio
import json
import random
import signal
import sys
import threading
import time

from headrace.core.delivery import Delivery
from headrace.flow.worker import Worker
from headrace.kafka import KafkaBroker, KafkaOptions, KafkaSubscribeOptions, driver
from tests.faults.kafka.journal import Journal


class Fault:
    """Once a signal has come, who comes by here next stands still."""

    def __init__(self, number, journal, seconds):
        self._journal = journal
        self._seconds = seconds
        self._due = threading.Event()
        asyncio.get_running_loop().add_signal_handler(number, self._due.set)

    def strike(self):
        if self._due.is_set():
            self._due.clear()
            self._journal.write("Z", -1, 0)
            time.sleep(self._seconds)
            self._journal.write("T", -1, 0)


class Recording:
    """The driver's consumer; what is committed and assigned through it is written down first."""

    def __init__(self, consumer, journal, frozen):
        self._consumer = consumer
        self._journal = journal
        self._frozen = frozen

    def poll(self, timeout):
        self._frozen.strike()
        return self._consumer.poll(timeout)

    def commit(self, offsets, asynchronous):
        for each in offsets:
            self._journal.write("C", each.partition, each.offset)
        answered = self._consumer.commit(offsets=offsets, asynchronous=asynchronous)
        if not asynchronous:
            confirmed(self._journal, None, answered)
        return answered

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


def confirmed(journal, error, offsets):
    """The broker's answer to a commit."""
    for each in offsets if error is None else ():
        if each.error is None:
            journal.write("A", each.partition, each.offset)


def recorded(journal, frozen):
    """Have every consumer of the driver write down what is committed through it."""
    made = driver.consumer

    def make(config, *arguments):
        told = config["on_commit"]

        def answered(error, offsets):
            confirmed(journal, error, offsets)
            told(error, offsets)

        return Recording(made({**config, "on_commit": answered}, *arguments), journal, frozen)

    driver.consumer = make


def handling(journal, path, pace, blocked):
    """The handler: it sleeps at random."""
    slow, chance = float(pace), random.Random(path)

    async def handler(delivery: Delivery):
        place = delivery.partition, delivery.offset, delivery.message.key
        journal.write("S", *place)
        blocked.strike()
        await asyncio.sleep(chance.random() * slow)
        journal.write("F", *place)

    return handler


async def main(address, topic, protocol, path, *further):
    pace, more = (*further, "{}")[:2]
    journal, extra = Journal(path), json.loads(more)
    fault = extra.get("fault", 0)
    recorded(journal, Fault(signal.SIGUSR1, journal, fault))
    options = {
        "group_protocol": protocol,
        "drain_timeout": 10,
        "commit_interval": 0.2,
        "session_timeout": None if protocol == "consumer" else 6,
        "max_in_flight": 500,
    } | extra.get("options", {})
    handler = handling(journal, path, pace, Fault(signal.SIGUSR2, journal, fault))
    async with KafkaBroker(address, options=KafkaOptions(driver_options=extra.get("driver", {}))) as broker:
        print("ready", flush=True)
        group = extra.get("group", "storm")
        await Worker(broker, topic, handler, group=group, subscribe=KafkaSubscribeOptions(**options)).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
