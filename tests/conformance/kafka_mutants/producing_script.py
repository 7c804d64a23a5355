"""A producer at the driver's boundary that reports what a test says, when it says so; the sender over it is ours."""

import threading
from collections import deque
from contextlib import contextmanager

import pytest
from confluent_kafka import KafkaError as DriverError

from headrace.kafka import driver
from headrace.kafka.codes import Code
from headrace.kafka.sending import client
from headrace.testing.kafka.mock import KafkaMock


class Stored:
    """What the driver says of a record that all replicas have."""

    def __init__(self, offset):
        self._offset = offset

    def timestamp(self):
        return 1, 1_000

    def partition(self):
        return 0

    def offset(self):
        return self._offset


class Producing:
    """The driver's producer, as far as ours knows it. Nothing is reported before it is told to (`answer`)."""

    def __init__(self, *, deaf=False):
        self.taken = []
        """The body of whatever was handed over, in that order."""
        self._open = []
        self._due = deque()
        self._deaf = deaf
        self._patient = True
        self._change = threading.Condition()

    # -- what a test says --------------------------------------------------------------------------------------------

    def answer(self, body, code=None):
        """The oldest with this body is stored, or failed."""
        with self._change:
            found = next(one for one in self._open if one[0] == body)
            self._open.remove(found)
            self._due.append((found[1], code))
            self._change.notify_all()

    def answer_all(self):
        """What it has is stored, and what comes."""
        with self._change:
            self._patient = False
            for body in [body for body, _ in self._open]:
                self.answer(body)

    # -- what the driver does ----------------------------------------------------------------------------------------

    def produce(self, topic, value, key, partition, told, *further):
        with self._change:
            self.taken.append(value)
            self._open.append((value, told))
            if not self._patient:
                self.answer(value)

    def poll(self, timeout):
        with self._change:
            if not self._due and timeout:
                self._change.wait(timeout)
            due, self._due = self._due, deque()
        for told, code in due:
            told(None if code is None else DriverError(code), Stored(len(self.taken)))
        return len(due)

    flush = poll

    def purge(self):
        for body in [] if self._deaf else [body for body, _ in self._open]:
            self.answer(body, Code.LOCAL_PURGE_QUEUE)

    def close(self):
        pass

    def __len__(self):
        return len(self._open) + len(self._due)


@contextmanager
def scripted(*, deaf=False):
    """The address of brokers with the topics `orders` and `dead.orders`, and the producer of whoever sends to them.

    `deaf`: it reports nothing in the end, which is not waited for as long as usual.
    """
    producing = Producing(deaf=deaf)
    with KafkaMock(1) as mock, pytest.MonkeyPatch.context() as patch:
        for topic in ("orders", "dead.orders"):
            mock.create_topic(topic, 1)
        patch.setattr(driver, "producer", lambda *_: producing)
        if deaf:
            patch.setattr(client, "_PATIENCE", 0.05)
        yield mock.bootstrap, producing
