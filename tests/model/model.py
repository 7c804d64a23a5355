"""The stream model as a page of plain Python: no files, threads or clock. What it says is what must happen.

Where the specification leaves something open (the order among messages that fall due together, where exactly the floor
stands in a gap), the model does not choose: it checks that what the engine did is one of the things it may do.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field

WRONG_LAST_SEQUENCE, WRONG_LAST_ID, STORE_FULL, DUPLICATE_IN_BATCH = 10071, 10070, 10077, 10201
NOT_FOUND, IN_A_GAP, OUTSIDE = 10037, 10043, 10057


def matches(pattern, subject):
    return pattern.endswith(">") or pattern == subject


@dataclass
class Config:
    max_messages: int | None = None
    max_per_subject: int | None = None
    discard_new: bool = False
    workqueue: bool = False
    window: float = 2.05
    max_age: float | None = None


@dataclass
class Stored:
    subject: str
    data: bytes
    time: float


@dataclass
class Pending:
    first: int
    deliveries: int
    due: float
    nacked: bool = False
    later: bool = False
    left: bool = False
    """Its holder closed cleanly, and left it to its lease."""


@dataclass
class Consumer:
    filter: str = ">"
    ack_wait: float = 3.0
    max_ack_pending: int | None = None
    max_deliver: int | None = None
    next: int = 1
    delivered: tuple = (0, 0)
    settled: int = 0
    pending: dict = field(default_factory=dict)
    exhausted: set = field(default_factory=set)
    disturbed: bool = False
    paused_until: float = 0.0


class RefusedError(Exception):
    """The engine answers with this code."""

    def __init__(self, code):
        super().__init__(code)
        self.code = code


class Model:
    def __init__(self, config):
        self.config = config
        self.now = 0.0
        self.last = 0
        self.first = 1
        self.stored: dict[int, Stored] = {}
        self.ids = {}
        self.last_id = None
        self.consumers: dict[str, Consumer] = {}

    # -- storing ------------------------------------------------------------------------------------

    def pass_time(self, now):
        self.now = now
        if self.config.max_age is not None:
            for sequence in [n for n, one in self.stored.items() if one.time + self.config.max_age <= now]:
                self._remove(sequence)

    def on(self, subject):
        return [n for n, one in self.stored.items() if matches(subject, one.subject)]

    def publish(self, subject, data, msg_id=None, *, last=None, last_for_topic=None, last_id=None, rollup=None):
        newest = self.on(subject)
        if last_for_topic is not None and last_for_topic != (newest[-1] if newest else 0):
            raise RefusedError(WRONG_LAST_SEQUENCE)
        if last is not None and last != self.last:
            raise RefusedError(WRONG_LAST_SEQUENCE)
        known = self.ids.get(msg_id)
        if known is not None and self.now - known[1] < self.config.window:
            return known[0], True
        if last_id is not None and last_id != self.last_id:
            raise RefusedError(WRONG_LAST_ID)
        if self.config.discard_new and self.config.max_messages and len(self.stored) >= self.config.max_messages:
            raise RefusedError(STORE_FULL)
        self.last += 1
        self.stored[self.last] = Stored(subject, data, self.now)
        self.last_id = msg_id
        if msg_id is not None:
            self.ids[msg_id] = (self.last, self.now)
        self._limit(subject)
        if rollup is not None:
            for sequence in self.on(subject if rollup == "sub" else ">"):
                if sequence < self.last:
                    self._remove(sequence)
        return self.last, False

    def publish_atomic(self, messages):
        """[(subject, data, msg_id)], all or none: sequence of the last, and how many."""
        trial = deepcopy(self)
        for message in messages:
            if trial.publish(*message)[1]:
                raise RefusedError(DUPLICATE_IN_BATCH)
        self.__dict__ = trial.__dict__
        return self.last, len(messages)

    def _limit(self, subject):
        mine = self.on(subject)
        if self.config.max_per_subject is not None:
            for sequence in mine[: -self.config.max_per_subject]:
                self._remove(sequence)
        if self.config.max_messages is not None:
            for sequence in list(self.stored)[: -self.config.max_messages]:
                self._remove(sequence)

    def _remove(self, sequence):
        del self.stored[sequence]
        for consumer in self.consumers.values():
            consumer.pending.pop(sequence, None)
            consumer.exhausted.discard(sequence)
            consumer.disturbed = True

    def purge(self, subject=">", sequence=None, keep=0):
        gone = self.on(subject)
        if sequence is not None:
            gone = [n for n in gone if n < sequence]
        elif keep:
            gone = gone[:-keep]
        for one in gone:
            self._remove(one)
        if sequence is not None and subject == ">":
            self.last = max(self.last, sequence - 1)  # as on a server: beyond the end it moves the end
        return len(gone)

    def delete(self, sequence):
        if sequence not in self.stored:
            low, high = (min(self.stored), self.last) if self.stored else (1, 0)
            raise RefusedError(IN_A_GAP if low <= sequence <= high else OUTSIDE)
        self._remove(sequence)

    # -- consuming ----------------------------------------------------------------------------------

    def add_consumer(self, name, start, **fields):
        consumer = self.consumers[name] = Consumer(**fields)
        consumer.next = self.last + 1 if start == "new" else 1
        lowest = min(self.stored, default=self.last + 1)
        consumer.delivered = (0, max(consumer.next, lowest) - 1)
        consumer.settled = consumer.delivered[1]

    def coming(self, consumer):
        return [n for n, one in self.stored.items() if n >= consumer.next and matches(consumer.filter, one.subject)]

    def due(self, consumer):
        return {n for n, one in consumer.pending.items() if one.due <= self.now + 1e-6}

    def pulled(self, name, limit, got):
        """Check what a pull brought, [(sequence, delivery count, consumer sequence, data)], and take it over."""
        consumer = self.consumers[name]
        if consumer.paused_until > self.now:
            assert got == [], f"paused until {consumer.paused_until}, at {self.now} came {got}"
            return
        due = self.due(consumer)
        for sequence in list(due):
            if consumer.max_deliver and consumer.pending[sequence].deliveries >= consumer.max_deliver:
                due.discard(sequence)
                consumer.disturbed = True
                if len(got) < limit:
                    del consumer.pending[sequence]
                    consumer.exhausted.add(sequence)
        again = [each for each in got if each[0] in due]
        fresh = got[len(again) :]
        assert len({each[0] for each in got}) == len(got), f"twice in one pull: {got}"
        assert got[: len(again)] == again, f"new ones came before those that are due ({sorted(due)}): {got}"
        assert len(again) == min(limit, len(due)), f"due are {sorted(due)}, came {again}"
        wanted = self.coming(consumer)[: limit - len(again)]
        if consumer.max_ack_pending is not None:
            wanted = wanted[: max(0, consumer.max_ack_pending - len(consumer.pending))]
        assert [each[0] for each in fresh] == wanted, f"new ones should be {wanted}, came {fresh}"
        for sequence, deliveries, number, data in got:
            self._delivered(consumer, sequence, deliveries, number)
            assert data == self.stored[sequence].data, f"{sequence} says {data!r}"

    def _delivered(self, consumer, sequence, deliveries, number):
        count = consumer.delivered[0] + 1
        assert number == count, f"consumer sequence of {sequence} is {number}, not {count}"
        one = consumer.pending.get(sequence)
        if one is None:
            one = consumer.pending[sequence] = Pending(count, 0, 0.0)
            consumer.next = sequence + 1
            consumer.delivered = (count, sequence)
        consumer.delivered = (count, consumer.delivered[1])
        one.deliveries += 1
        one.due, one.nacked, one.left = self.now + consumer.ack_wait, False, False
        assert deliveries == one.deliveries, f"{sequence} was delivered {deliveries} times, not {one.deliveries}"

    def ack(self, name, sequence):
        consumer = self.consumers[name]
        if consumer.pending.pop(sequence, None) or sequence in consumer.exhausted:
            consumer.exhausted.discard(sequence)
            consumer.settled = max(consumer.settled, 0)
            if self.config.workqueue and sequence in self.stored:
                del self.stored[sequence]

    def nak(self, name, sequence, delay):
        one = self.consumers[name].pending.get(sequence)
        if one is not None:
            one.due, one.nacked = self.now + delay, True

    def in_progress(self, name, sequence):
        one = self.consumers[name].pending.get(sequence)
        if one is not None and one.due > self.now + 1e-6:  # what ran out is due, whoever had it
            one.due = self.now + self.consumers[name].ack_wait

    def crash(self):
        """Whoever held something is dead: it falls due at once, but for what waits for a nak."""
        for one in self._held():
            one.due = self.now

    def close(self):
        """Whoever holds something leaves it to its lease."""
        for one in self._held():
            one.left = True

    def _held(self):
        every = [one for consumer in self.consumers.values() for one in consumer.pending.values()]
        return [one for one in every if not one.nacked and not one.left]
