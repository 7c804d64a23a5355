"""Checkpoints and beginning anew: one partition without a group, from a store of the user's."""

import asyncio
import time
from contextlib import asynccontextmanager

import pytest
from confluent_kafka import KafkaError as DriverError
from confluent_kafka import KafkaException

from headrace.core.errors import BrokerTimeoutError, ClosedError, StoreError
from headrace.flow.retry import RetryPolicy
from headrace.kafka.codes import Code
from headrace.kafka.consuming.checkpoints import Checkpoints, Reconnecting, passes
from headrace.kafka.consuming.outofrange import OutOfRange
from headrace.kafka.consuming.partition import Partition
from headrace.kafka.consuming.plans import FixedPlan
from headrace.kafka.errors import (
    AuthenticationError,
    AuthorizationError,
    CommitError,
    KafkaError,
    OffsetOutOfRangeError,
    UnknownTopicError,
)
from headrace.kafka.reading import KafkaPartitionOptions
from headrace.testing.virtual import virtual_time
from tests.unit.kafka.consuming_script import TOPIC, Record, Script, failed, nothing_left, poller_of, pulled, reading
from tests.unit.kafka.test_consuming_revoke import in_loop, until

QUICK = RetryPolicy(initial=0.02, maximum=0.08, jitter=0)


class FullError(StoreError):
    retryable = True


class Store:
    """One that takes its time, and fails as it is told to."""

    def __init__(self, saved=None):
        self.saved = saved
        self.values = []
        self.delay = 0.0
        self.errors = []
        self.at_once = self.most_at_once = 0

    async def load(self, topic, partition):
        if self.errors:
            raise self.errors.pop(0)
        return self.saved

    async def save(self, topic, partition, next_offset):
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.shield(asyncio.sleep(self.delay))  # as in a thread: cancelling does not stop it
            if self.errors:
                raise self.errors.pop(0)
            self.values.append(next_offset)
            self.saved = next_offset
        finally:
            self.at_once -= 1


class Consumers:
    """Scripts, one for each time it begins; what each `make` is to raise first."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.scripts = []
        self.begun = []

    def make(self, subscription, options, store):
        async def make(listener):
            self.begun.append(time.monotonic())
            if self.errors and (error := self.errors.pop(0)) is not None:
                raise error
            self.scripts.append(Script())
            offset = await store.load(TOPIC, 0) or 0
            plan = FixedPlan({(TOPIC, 0): offset}, out_of_range=OutOfRange(options))
            return poller_of(self.scripts[-1], plan, listener, options)

        return make


@asynccontextmanager
async def partition(store, consumers, **given):
    """As `Opening.partition` puts it together."""
    options = KafkaPartitionOptions(
        **{"partition": 0, "offset_store": store, "reconnect": QUICK, "commit_interval": 0.01, **given}
    )
    subscription = reading(options)
    checkpoints = Checkpoints(subscription, TOPIC, options)
    reconnecting = Reconnecting(subscription, checkpoints, options, consumers.make(subscription, options, store))
    subscription.confirm = lambda: checkpoints.confirm(1.0)
    subscription.count = nothing_left
    await reconnecting.open()
    checkpoints.start()
    try:
        yield subscription
    finally:
        await reconnecting.stop()
        await checkpoints.stop()
        await subscription.aclose()
        for script in consumers.scripts:
            assert not script.thread or not script.thread.is_alive()


@asynccontextmanager
async def saving(store, **given):
    """Checkpoints over a subscription that never gets a poller; what is finished is said by hand."""
    options = KafkaPartitionOptions(
        **{"partition": 0, "offset_store": store, "reconnect": QUICK, "commit_interval": 1.0, **given}
    )
    subscription = reading(options)
    stay = Partition(TOPIC, 0, 0)
    subscription.stays.append(stay)
    checkpoints = Checkpoints(subscription, TOPIC, options)
    checkpoints.start()
    try:
        yield subscription, checkpoints, lambda *offsets: finish(stay, *offsets)
    finally:
        await checkpoints.stop()


def finish(stay, *offsets):
    stay.begin(list(offsets), 1, 0)
    for offset in offsets:
        stay.epoch.tracker.finish(offset)


def lost():
    return KafkaException(DriverError(Code.LOCAL_TRANSPORT))


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (FullError("full"), True),
        (StoreError("corrupt"), False),
        (OSError("away"), True),
        (BrokerTimeoutError("late"), True),
        (KafkaError(code=Code.LOCAL_TRANSPORT), True),
        (KafkaError(code=Code.LOCAL_FATAL, fatal=True), False),
        (AuthenticationError("no"), False),
        (AuthorizationError("no"), False),
        (UnknownTopicError("no"), False),
        (OffsetOutOfRangeError("gone"), False),
        (CommitError("no"), True),
        (ValueError("a bug"), False),
        (ClosedError("closed"), False),
    ],
)
def test_what_passes(error, wanted):
    if isinstance(error, UnknownTopicError):
        error.retriable = False
    assert passes(error) is wanted


@virtual_time
async def test_save_monotonic_single_flight():
    store = Store()
    store.delay = 3.0
    async with saving(store) as (_, checkpoints, done):
        done(0, 1, 2)
        await asyncio.sleep(1.5)  # the save of 3 is under way
        done(3)
        asks = [asyncio.create_task(checkpoints.confirm(20)) for _ in range(3)]
        await asyncio.sleep(0.1)
        done(4)
        await asyncio.gather(*asks)
        await checkpoints.confirm(20)
        await asyncio.sleep(10)
    assert store.values == [3, 5]
    assert store.most_at_once == 1


@virtual_time
async def test_save_that_is_cancelled_is_still_the_only_one():
    """Stopping, or a limit of time, leaves it on its way: the next one waits for it."""
    store = Store()
    store.delay = 3.0
    async with saving(store) as (_, checkpoints, done):
        done(0)
        await asyncio.sleep(1.5)
        done(1)
        await checkpoints.stop()
        await checkpoints.confirm(20)
        assert store.values == [1, 2]
        done(2)
        with pytest.raises(BrokerTimeoutError, match="the checkpoint of orders/0 was not saved within 1 s"):
            await checkpoints.confirm(1)
        done(3)
        asking = asyncio.create_task(checkpoints.confirm(20))
        await asyncio.sleep(0.1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert store.values == [1, 2, 3, 4]  # awaited, also when cancelled
    assert store.most_at_once == 1


@virtual_time
async def test_save_failure_stops_pulling():
    store = Store()
    store.errors = [FullError("no space")] * 3
    async with saving(store, reconnect=RetryPolicy(initial=2.0, maximum=8.0, jitter=0)) as (subscription, _, done):
        done(0)
        await asyncio.sleep(1.5)
        assert subscription.held_back
        done(1)
        await asyncio.sleep(12)
        assert subscription.held_back
        assert store.values == []
        await asyncio.sleep(4)
        assert not subscription.held_back
        assert store.values == [2], "the newest value, not the one that failed"


@in_loop
async def test_nothing_is_handed_out_while_a_save_fails():
    store, consumers = Store(), Consumers()
    async with partition(store, consumers, reconnect=RetryPolicy(initial=0.1, maximum=0.1, jitter=0)) as subscription:
        consumers.scripts[0].arrive(Record(0), Record(1))
        (first,) = await subscription.pull(1, 5)
        store.errors = [OSError("read-only")]
        first.ack()
        await until(lambda: subscription.held_back)
        assert await subscription.pull(1, 0.01) == []
        assert [one.offset for one in await subscription.pull(1, 5)] == [1]
        assert store.values == [1]


@in_loop
async def test_reconnect_schedule_resets():
    """Growing waits while nothing is handled; a record handled, and the next failure is a first one."""
    store, consumers = Store(), Consumers()
    async with partition(store, consumers) as subscription:
        for number in range(4):  # a record arrives each time, and is not handled
            script = consumers.scripts[number]
            script.arrive(Record(0))
            await pulled(subscription, 1)
            script.do(break_off)
            await until(lambda: len(consumers.begun) == number + 2)  # noqa: B023
            await until(lambda: len(subscription.stays) == 1)
        (delivery,) = await take_one(subscription, consumers.scripts[-1])
        delivery.ack()
        consumers.scripts[-1].do(break_off)
        await until(lambda: len(consumers.begun) == 6)
    waits = [after - before for before, after in zip(consumers.begun, consumers.begun[1:], strict=False)]
    for wait, least in zip(waits, [0.02, 0.04, 0.08, 0.08, 0.02], strict=True):
        assert wait >= least
    assert waits[4] < 0.08 + 0.06


async def take_one(subscription, script):
    script.arrive(Record(0))
    return await pulled(subscription, 1)


def break_off():
    raise lost()


@pytest.mark.parametrize("error", [failed(Code.TOPIC_AUTHORIZATION_FAILED), failed(Code.OFFSET_OUT_OF_RANGE)])
@in_loop
async def test_terminal_errors_end_partition_mode(error):
    """At once; what was finished is saved all the same."""
    store, consumers = Store(), Consumers()
    async with partition(store, consumers, commit_interval=60) as subscription:
        consumers.scripts[0].arrive(Record(0))
        (delivery,) = await pulled(subscription, 1)
        delivery.ack()
        consumers.scripts[0].arrive(error)
        with pytest.raises(KafkaError):
            await subscription.pull(1, 5)
        with pytest.raises(KafkaError):
            await subscription.pull(1, 0)
    assert len(consumers.begun) == 1
    assert store.values == [1]


@in_loop
async def test_corrupt_store_ends_it():
    """Also where records keep coming: they are not what a pull is to return."""
    store, consumers = Store(), Consumers()
    async with partition(store, consumers) as subscription:
        consumers.scripts[0].arrive(*(Record(n) for n in range(500)))
        (delivery,) = await subscription.pull(1, 5)
        store.errors = [StoreError("corrupt")] * 2
        delivery.ack()
        with pytest.raises(StoreError, match="corrupt"):
            while True:
                await subscription.pull(1, 5)
                await asyncio.sleep(0.005)


@in_loop
async def test_first_open_waits_for_what_passes_and_raises_what_does_not():
    consumers = Consumers(KafkaError(code=Code.LOCAL_TRANSPORT), OSError("away"))
    async with partition(Store(), consumers):
        assert len(consumers.begun) == 3
    with pytest.raises(UnknownTopicError):
        async with partition(Store(), Consumers(UnknownTopicError("no"))):
            pass


@in_loop
async def test_open_that_is_cancelled_leaves_no_thread():
    store, consumers = Store(), Consumers()

    async def held():
        async with partition(store, consumers):
            await asyncio.sleep(60)

    opening = asyncio.create_task(held())
    await until(lambda: consumers.scripts)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await until(lambda: not consumers.scripts[0].thread or not consumers.scripts[0].thread.is_alive())


@in_loop
async def test_pull_and_stop_reach_the_next_poller():
    """An open pull is asked of whoever reads from then on; what was stopped stays stopped."""
    store, consumers = Store(), Consumers()
    async with partition(store, consumers, prefetch=0, reconnect=QUICK) as subscription:
        pulling = asyncio.create_task(subscription.pull(1, 5))
        await asyncio.sleep(0.01)
        consumers.scripts[0].do(break_off)
        await until(lambda: len(consumers.scripts) == 2)
        consumers.scripts[1].arrive(Record(0))
        assert [one.offset for one in await pulling] == [0]
        consumers.scripts[1].do(break_off)
        await until(lambda: not subscription.stays)
        assert await subscription.pull(1, 0) == []  # between two of them there is nobody to ask
        await subscription.stop()
        await until(lambda: len(consumers.scripts) == 3 and subscription.stays)
        consumers.scripts[2].arrive(*(Record(n) for n in range(5)))
        await asyncio.sleep(0.05)
        assert subscription.poller._taken == 0


@in_loop
async def test_what_fails_while_it_closes_begins_nothing_anew():
    store, consumers = Store(), Consumers()
    async with partition(store, consumers) as subscription:
        consumers.scripts[0].do(break_off)
        await until(lambda: not subscription.stays)
        await subscription.aclose()
        await asyncio.sleep(0.05)
    assert all(not script.thread or not script.thread.is_alive() for script in consumers.scripts)


@in_loop
async def test_three_records_then_three_more():
    """The vector of rule 25."""
    store = Store()
    for first in (0, 3):
        consumers = Consumers()
        async with partition(store, consumers, commit_interval=60) as subscription:
            script = consumers.scripts[0]
            assert script.assigned[TOPIC, 0] == first
            script.arrive(*(Record(n) for n in range(first, first + 3)))
            for delivery in await pulled(subscription, 3):
                assert delivery.start()
                delivery.ack()
    assert store.values == [3, 6]
