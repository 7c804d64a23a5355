"""Transactions are committed and aborted while members come and go: no gap stops a commit, nothing aborted is seen."""

import asyncio
import random
import signal

import pytest
from confluent_kafka import Producer

from headrace.core.message import new_id
from headrace.testing.plugin import kafka_installed, kafka_server  # noqa: F401
from tests.faults.kafka.journal import judge
from tests.faults.kafka.published import places_of
from tests.faults.kafka.troupe import KEYS, PARTITIONS, at_work, everything
from tests.integration.kafka.raw import QUIET, committed

MOST = 40  # records of a transaction


class Transactions:
    """Of a driver's producer, a third of them aborted; what of them is to be seen."""

    def __init__(self, address, topic):
        self._producer = Producer(
            {"bootstrap.servers": address, "transactional.id": topic, "linger.ms": 0, "retry.backoff.ms": 10} | QUIET
        )
        self._producer.init_transactions(30)
        self._topic = topic
        self._chance = random.Random(11)
        self.published = {number: {} for number in range(PARTITIONS)}
        self.aborted = 0

    def write(self, count):
        """So many transactions."""
        for _ in range(count):
            self._producer.begin_transaction()
            stored = self._send(self._chance.randrange(1, MOST))
            if self._chance.random() < 1 / 3:
                self._producer.abort_transaction(30)
                self.aborted += len(stored)
                continue
            self._producer.commit_transaction(30)
            for record in stored:
                self.published[record.partition()][record.offset()] = record.key()

    def _send(self, count):
        stored = []

        def delivered(error, record):
            assert error is None
            stored.append(record)

        for number in self._chance.choices(range(KEYS), k=count):
            place = {"key": b"k%d" % number, "partition": number % PARTITIONS}
            self._producer.produce(self._topic, b"x", on_delivery=delivered, **place)
        assert self._producer.flush(30) == 0
        return stored


async def between(folder, server, topic, protocol, rounds):
    """Transactions while members join, are killed and leave; how they ended, and the judge's word."""
    server.create_topic(topic, PARTITIONS)
    transactions = await asyncio.to_thread(Transactions, server.bootstrap, topic)
    async with at_work(folder, server.bootstrap, topic, protocol, pace=0.1) as troupe:
        for how in (signal.SIGKILL, signal.SIGTERM) * rounds:
            await asyncio.to_thread(transactions.write, 50)
            await everything(folder, 1)
            await troupe.join()
            await troupe.end(min(troupe.alive), how)
        await everything(folder, places_of(transactions.published))
    return transactions, judge(folder, transactions.published, troupe.deaths)


@pytest.mark.chaos
@pytest.mark.servers
@pytest.mark.parametrize("protocol", ["cooperative", "eager"])
def test_transactions_under_members(protocol, tmp_path, kafka_server, in_ci):  # noqa: F811
    if in_ci and protocol != "cooperative":
        pytest.skip("the long run has it")
    topic = f"transactions-{new_id()}"
    written, verdict = asyncio.run(between(tmp_path, kafka_server, topic, protocol, 1 if in_ci else 10))
    print(f"{protocol}, beside {written.aborted} aborted records: {verdict}")
    assert not verdict.wrong, "\n".join(verdict.wrong[:20])
    assert written.aborted
    for partition, place in committed(kafka_server, topic, topic, PARTITIONS).items():
        behind = place - max(written.published[partition])
        assert behind in (1, 2), "behind the last record, or behind its marker where that was read, too"
