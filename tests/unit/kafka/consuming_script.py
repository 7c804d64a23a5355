"""A consumer at the driver's boundary that does what a test says; poller, commits, plans and subscription are ours.

It is told on the loop (`arrive`, `give`, `take_away`, …) and asked by the poller's thread, as the driver's would be.
Or the test is the thread itself: `stepped` makes a poller that only moves when the test says so, for virtual time.
"""

import asyncio
import threading
from collections import deque
from contextlib import asynccontextmanager
from types import SimpleNamespace

from confluent_kafka import KafkaError as DriverError
from confluent_kafka import KafkaException, TopicPartition

from headrace.core.clock import current_clock
from headrace.kafka.consuming.handing import Handing
from headrace.kafka.consuming.opening import _confirm, _session
from headrace.kafka.consuming.outofrange import OutOfRange
from headrace.kafka.consuming.plans import FixedPlan, GroupPlan
from headrace.kafka.consuming.poller import Poller
from headrace.kafka.consuming.subscription import KafkaSubscription
from headrace.kafka.reading import KafkaSubscribeOptions

EOF = DriverError._PARTITION_EOF
TOPIC = "orders"


class Record:
    """What the driver hands out: a record, or an error in its place."""

    def __init__(self, offset, *, partition=0, key=b"k", value=b"v", error=None, leader=3, topic=TOPIC):
        self.given = topic, partition, offset, key, value, error, leader

    topic = property(lambda self: lambda: self.given[0])
    partition = property(lambda self: lambda: self.given[1])
    offset = property(lambda self: lambda: self.given[2])
    key = property(lambda self: lambda: self.given[3])
    value = property(lambda self: lambda: self.given[4])
    error = property(lambda self: lambda: self.given[5])
    leader_epoch = property(lambda self: lambda: self.given[6])

    def headers(self):
        return None

    def timestamp(self):
        return 1, 1_000


def failed(code, partition=0, offset=None):
    """A record that is an error."""
    return Record(offset, partition=partition, error=DriverError(code))


class Script:
    """The driver's consumer, as far as ours knows it."""

    def __init__(self, partitions=1, stored=None):
        self.partitions = partitions
        self.stored = dict(stored or {})
        self.commits = []
        """(partition, offset, text, asynchronous) of every commit that was handed over."""
        self.calls = []
        self.assigned = {}
        self.paused = set()
        self.refuse = deque()
        """Codes that the next commits fail with; `None` = one that works."""
        self.silent = False
        """Whether commits are not answered."""
        self.closed = False
        self.waits = True
        """Whether a poll waits for something to come, as the driver's does."""
        self.on_commit = self.on_error = None
        self.thread = None
        self._records = deque()
        self._events = deque()
        self._change = threading.Condition()
        self._callbacks = {}

    # -- what a test says --------------------------------------------------------------------------------------------

    def arrive(self, *records):
        with self._change:
            self._records.extend(records)
            self._change.notify_all()

    def do(self, event):
        """Out of the next poll, on its thread."""
        with self._change:
            self._events.append(event)
            self._change.notify_all()

    def give(self, *numbers):
        self.do(lambda: self._callbacks["on_assign"](self, [TopicPartition(TOPIC, number) for number in numbers]))

    def take_away(self, *numbers, lost=False):
        self.do(lambda: self._rebalance("on_lost" if lost else "on_revoke", numbers))

    def _rebalance(self, name, numbers):
        self._callbacks[name](self, [TopicPartition(TOPIC, number) for number in numbers])

    # -- what the driver does ----------------------------------------------------------------------------------------

    def subscribe(self, topics, **callbacks):
        self._callbacks = callbacks
        self.do(lambda: None if self.assigned else self.give())

    def memberid(self):
        """None: it has left, or never joined."""
        return "m" if self.assigned else None

    def unsubscribe(self):
        if self.assigned:
            self.take_away(*[number for _, number in self.assigned])

    def poll(self, timeout):
        self.thread = threading.current_thread()
        with self._change:
            if self.waits and timeout and not self._events and self._next() is None:
                self._change.wait(timeout)
            events, self._events = self._events, deque()
        for event in events:
            event()
        with self._change:
            found = self._next()
            if found is not None:
                self._records.remove(found)
            return found

    def consume(self, count, timeout):
        found = []
        while len(found) < count and (record := self.poll(0)) is not None:
            found.append(record)
        return found

    def _next(self):
        for record in self._records:
            if record.error() is not None and record.error().code() != EOF:
                return record
            place = record.topic(), record.partition()
            if place in self.assigned and place not in self.paused:
                return record
        return None

    def commit(self, offsets, asynchronous):
        for each in offsets:
            self.commits.append((each.partition, each.offset, each.metadata or "", asynchronous))
        code = self.refuse.popleft() if self.refuse else None
        error = None if code is None else DriverError(code)
        if error is None:
            self.stored |= {(each.topic, each.partition): (each.offset, each.metadata) for each in offsets}
        if asynchronous:
            if not self.silent:
                self.do(lambda: self.on_commit(error, offsets))
            return None
        if error is not None:
            raise KafkaException(error)
        return offsets

    def committed(self, places, timeout):
        found = []
        for each in places:
            offset, text = self.stored.get((each.topic, each.partition), (-1001, None))
            found.append(TopicPartition(each.topic, each.partition, offset, text or ""))
        return found

    def incremental_assign(self, places):
        self.assigned |= {(each.topic, each.partition): each.offset for each in places}

    assign = incremental_assign

    def incremental_unassign(self, places):
        for each in places:
            self.assigned.pop((each.topic, each.partition), None)
            self.paused.discard((each.topic, each.partition))
            with self._change:
                self._records = deque(one for one in self._records if one.partition() != each.partition)

    def unassign(self):
        self.incremental_unassign([TopicPartition(*key) for key in self.assigned])

    def pause(self, places):
        self.calls.append(("pause", [each.partition for each in places]))
        self.paused |= {(each.topic, each.partition) for each in places}

    def resume(self, places):
        self.calls.append(("resume", [each.partition for each in places]))
        with self._change:
            self.paused -= {(each.topic, each.partition) for each in places}
            self._change.notify_all()

    def seek(self, place):
        self.calls.append(("seek", place.partition, place.offset))

    def list_topics(self, topic, timeout):
        """All that is asked for is there."""
        return SimpleNamespace(topics={topic: SimpleNamespace(error=None, partitions={0: None})})

    def get_watermark_offsets(self, place, timeout=None, cached=False):
        return (-1001, -1001)

    def close(self):
        if self._callbacks and self.assigned:
            self._rebalance("on_revoke", [number for _, number in self.assigned])
        self.closed = True


def options(**given):
    return KafkaSubscribeOptions(**{"group": "billing", "commit_interval": 0.01, **given})


def reading(given, *, client_id="headrace"):
    """A subscription without a poller."""
    return KafkaSubscription(
        Handing(given, id_header="Headrace-Id"),
        group=given.group,
        max_in_flight=256 if given.max_in_flight is None else given.max_in_flight,
        client_id=client_id,
    )


def group_plan(given, partitions):
    return GroupPlan(
        given.group,
        [TOPIC],
        starts={(TOPIC, number): 0 for number in range(partitions)},
        create=True,
        protocol=given.group_protocol,
        static=given.group_instance_id is not None,
        drain_timeout=given.seconds("drain_timeout"),
        out_of_range=OutOfRange(given),
    )


def fixed_plan(given, partitions=1):
    return FixedPlan({(TOPIC, number): 0 for number in range(partitions)}, out_of_range=OutOfRange(given))


def poller_of(script, plan, listener, given):
    def make(on_error, on_commit):
        script.on_error, script.on_commit = on_error, on_commit
        return script

    prefetch = 1_000 if given.prefetch is None else given.prefetch
    interval = given.seconds("commit_interval")
    return Poller(
        make, plan, listener,
        prefetch=prefetch, commit_interval=interval, session=_session(given), clock=current_clock(None),
    )  # fmt: skip


def joined(script, given, plan=None):
    """A subscription and its poller, not started."""
    subscription = reading(given)
    poller = poller_of(script, group_plan(given, script.partitions) if plan is None else plan, subscription, given)
    subscription.poller = poller
    subscription.confirm = lambda: _confirm(poller, grouped=plan is None)
    subscription.count = nothing_left
    return subscription


async def pulled(subscription, count):
    """So many deliveries: a thread brings them one by one."""
    found = []
    async with asyncio.timeout(5):
        while len(found) < count:
            found += await subscription.pull(count - len(found), 1)
    return found


async def nothing_left():
    return 0


@asynccontextmanager
async def member(script, *, plan=None, **given):
    """A subscription whose poller has a thread of its own."""
    subscription = joined(script, options(**given), plan)
    await subscription.poller.start()
    script.commits.clear()  # where the group begins
    try:
        yield subscription
    finally:
        await subscription.aclose()
        assert not script.thread or not script.thread.is_alive()


class Stepped:
    """A subscription whose poller moves when it is told to: `turn`. No thread."""

    def __init__(self, script, *, plan=None, **given):
        self.script = script
        script.waits = False
        self.subscription = joined(script, options(**{"drain_timeout": 0, **given}), plan)
        self.poller = self.subscription.poller
        self.poller._consumer = self.poller._make(None, self.poller.commits.answered)
        self.poller._plan.begin(self.poller, script)
        script.commits.clear()

    async def turn(self, count=1):
        """So many turns, and what they tell."""
        for _ in range(count):
            self.poller._wanted.set()  # no real wait
            self.poller._turn(self.script)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
