"""Poller: room, pauses, and an end that everybody hears of; the rules that decide what a partition reads."""

import asyncio
import multiprocessing
import threading
import time

import pytest
from confluent_kafka import KafkaError, KafkaException

from headrace.core.errors import ClosedError, UsageError
from headrace.flow.worker import Worker
from headrace.kafka.broker import KafkaBroker
from headrace.kafka.codes import Code
from headrace.kafka.consuming import poller as poller_module
from headrace.kafka.errors import OffsetOutOfRangeError
from headrace.testing.virtual import virtual_time
from tests.unit.kafka.consuming_script import (
    TOPIC,
    Record,
    Script,
    Stepped,
    failed,
    fixed_plan,
    joined,
    member,
    options,
    pulled,
)
from tests.unit.kafka.test_consuming_revoke import in_loop, until


def numbers(deliveries):
    return [delivery.offset for delivery in deliveries]


@virtual_time
async def test_pause_resume_no_lost_wakeup():
    """Whatever becomes free between two looks of the thread is seen at the next one."""
    stepped = Stepped(Script(), prefetch=2)
    script, subscription = stepped.script, stepped.subscription
    script.give(0)
    script.arrive(*(Record(n) for n in range(9)))
    await stepped.turn(3)
    assert stepped.poller._taken == 2
    assert not script.paused
    asyncio.get_running_loop().clock.elapsed += 2
    await stepped.turn(2)
    assert script.paused == {(TOPIC, 0)}  # after a second of not asking
    assert numbers(await subscription.pull(5, 1)) == [0, 1]
    await stepped.turn(2)
    assert not script.paused
    assert stepped.poller._taken == 4
    pulling = asyncio.create_task(subscription.pull(5, 1))
    await asyncio.sleep(0)
    assert numbers(await pulling) == [2, 3]
    for _ in range(10):
        await stepped.turn(1)
        await subscription.pull(2, 0.001)
    assert stepped.poller._taken == stepped.poller.pulled == 9


@in_loop
async def test_every_record_arrives_with_a_thread_whose_wakes_cross():
    script = Script(partitions=3)
    total, found = 3_000, []
    async with member(script, prefetch=3, max_span=4, commit_interval=0.001) as subscription:
        script.give(0, 1, 2)
        script.arrive(*(Record(n // 3, partition=n % 3) for n in range(total)))
        while len(found) < total:
            got = await subscription.pull(7, 5)
            assert got, f"{len(found)} of {total}: it was not woken"
            for delivery in reversed(got):
                assert delivery.start()
                delivery.ack()
            found += got
        await subscription.flush()
        assert [script.stored[TOPIC, number][0] for number in range(3)] == [1_000] * 3
    for number in range(3):
        assert numbers(one for one in found if one.partition == number) == list(range(1_000))


@in_loop
async def test_blocked_key_stops_only_its_partition():
    script = Script(partitions=2)
    async with member(script, max_span=10, max_in_flight=500) as subscription:
        script.give(0, 1)
        for n in range(100):
            script.arrive(Record(n), Record(n, partition=1))
        blocked = None
        await until(lambda: len(subscription.stays) == 2)
        stays = {stay.number: stay for stay in subscription.stays}
        while not stays[0].paused or stays[1].position < 100:
            for delivery in await subscription.pull(4, 5):
                if delivery.partition == 0 and delivery.offset == 0:
                    blocked = delivery
                else:
                    delivery.ack()
        await subscription.poller.call(lambda consumer: None)
        for delivery in await subscription.pull(500, 0.1):
            delivery.ack()
        assert stays[0].paused
        assert stays[1].position == 100
        assert (TOPIC, 0) in script.paused
        assert (TOPIC, 1) not in script.paused
        assert stays[0].epoch.tracker.committable is None
        script.arrive(Record(100), Record(100, partition=1))
        assert [one.partition for one in await subscription.pull(4, 1)] == [1]
        blocked.ack()
        assert not stays[0].paused
        assert (await pulled(subscription, 1))[0].partition == 0


@virtual_time
async def test_span_is_counted_in_bytes_too():
    stepped = Stepped(Script(), max_span_bytes=100)
    script = stepped.script
    script.give(0)
    script.arrive(*(Record(n, value=b"x" * 40) for n in range(3)))
    await stepped.turn(2)
    first, second, third = await stepped.subscription.pull(5, 1)
    await stepped.turn()
    assert script.paused
    third.ack()
    await stepped.turn()
    assert script.paused  # 82 of 100: it goes on at half
    second.ack()
    await stepped.turn()
    assert not script.paused
    first.ack()


@virtual_time
async def test_pause_does_not_outlive_its_stay():
    """A partition that comes back holds nothing; nor does an epoch that begins where the log was cut."""
    stepped = Stepped(Script(), max_span=2)
    script = stepped.script
    script.give(0)
    script.arrive(Record(0), Record(1))
    await stepped.turn(2)
    await stepped.subscription.pull(5, 1)
    await stepped.turn()
    assert script.paused
    script.take_away(0, lost=True)
    script.paused = {(TOPIC, 0)}
    await stepped.turn()
    script.incremental_unassign = lambda places: None
    script.give(0)
    await stepped.turn()
    assert not stepped.subscription.stays[0].paused
    script.arrive(Record(0))
    await stepped.turn(2)
    assert numbers(await stepped.subscription.pull(5, 1)) == [0]


@in_loop
async def test_calls_end_with_the_thread():
    """Whoever asked hears of the end, also behind a pause that nobody waits for."""
    script = Script()
    async with member(script, plan=fixed_plan(options()), max_span=1) as subscription:
        script.arrive(Record(0))
        await pulled(subscription, 1)
        poller = subscription.poller
        stay = subscription.stays[0]
        poller._ending.set()
        await until(lambda: script.closed)
        poller._over.clear()  # as if it had been asked a moment before
        asking = asyncio.create_task(poller.call(lambda consumer: consumer.anything()))
        poller._work.clear()
        await asyncio.sleep(0)
        calls = list(poller._work)
        poller._work.clear()
        poller._work.extend([lambda consumer: consumer.pause([stay]), *calls])
        poller._end()
        with pytest.raises(ClosedError, match="the subscription has ended"):
            await asking
        with pytest.raises(ClosedError):
            await poller.call(lambda consumer: None)


@in_loop
async def test_rest_is_a_rest():
    """Something to do for the thread does not make it ask the coordinator again and again."""
    script = Script()
    asked = 0
    real = script.committed

    def committed(places, timeout):
        nonlocal asked
        asked += 1
        if asked < 3:
            raise_coordinator_away()
        return real(places, timeout)

    async with member(script) as subscription:
        script.committed = committed
        began = time.monotonic()
        script.give(0)
        for _ in range(20):
            subscription.poller.wake()
            await asyncio.sleep(0.01)
        await until(lambda: subscription.stays)
        assert time.monotonic() - began >= 0.4


def raise_coordinator_away():
    raise KafkaException(KafkaError(Code.COORDINATOR_NOT_AVAILABLE))


@virtual_time
async def test_record_of_a_stay_that_went_and_came_back_meanwhile():
    """Polled in one stay, sorted in the next: it would be begun before what stands in front of it."""
    stepped = Stepped(Script())
    script = stepped.script
    script.give(0)
    await stepped.turn()
    script.arrive(Record(50))
    real = script.consume

    def consume(count, timeout):
        script.consume = real
        script.take_away(0)
        script.give(0)
        return real(count, timeout)

    script.consume = consume
    await stepped.turn()
    script.arrive(Record(30))
    await stepped.turn()
    assert numbers(await stepped.subscription.pull(5, 1)) == [30]
    assert stepped.subscription.stays[0].epoch.number == 1


@in_loop
async def test_wait_0_asks_also_without_prefetch():
    script = Script()
    async with member(script, prefetch=0) as subscription:
        script.give(0)
        await until(lambda: subscription.stays)
        assert await subscription.pull(3, 0) == []
        script.arrive(Record(0))
        await asyncio.sleep(0.01)
        assert numbers(await subscription.pull(3, 0)) == [0]


def test_thread_ends_with_a_loop_that_was_not_closed_well():
    script = Script()

    async def main():
        subscription = joined(script, options())
        await subscription.poller.start()
        script.give(0)
        await until(lambda: subscription.stays)
        return subscription.poller

    poller = asyncio.run(main())
    poller._thread.join(5)
    assert not poller._thread.is_alive()
    assert script.closed


@in_loop
async def test_failure_in_make_is_raised_by_start():
    script = Script()
    subscription = joined(script, options())

    def make(*_):
        raise OSError("no memory")

    subscription.poller._make = make
    with pytest.raises(OSError, match="no memory"):
        await subscription.poller.start()
    await subscription.poller.join()


@in_loop
async def test_thread_that_cannot_start_is_not_waited_for(monkeypatch):
    subscription = joined(Script(), options())

    def start(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError):
        await subscription.poller.start()
    await subscription.poller.join()


@in_loop
async def test_out_of_range_while_something_else_polls_ends_it_too():
    """A flush polls as well: what it meets there must not be forgotten with it."""
    script = Script()
    async with member(script, commit_interval=60) as subscription:
        script.give(0)
        script.arrive(Record(0))
        (delivery,) = await pulled(subscription, 1)
        delivery.ack()
        real = script.poll

        def poll(timeout):
            script.poll = real
            return failed(Code.OFFSET_OUT_OF_RANGE)

        def work(consumer):
            script.poll = poll
            poller = subscription.poller
            poller.commits.settled(consumer, 1, lambda one: poller.take(consumer, [one]), lambda: False)

        await subscription.poller.call(work)
        with pytest.raises(OffsetOutOfRangeError):
            await subscription.pull(1, 5)


@pytest.mark.parametrize(
    ("policy", "log", "done", "wanted"),
    [
        ("earliest", (40, 60, 3), [], 40),
        ("latest", (40, 60, 3), [], 60),
        ("earliest", (0, 15, 20), [10, 11], 0),
        ("latest", (0, 15, 20), [10, 11], 12),  # 12 to 14 were read and are not finished: they must come again
        ("latest", (0, 15, 20), [], 10),
        ("latest", (13, 15, 20), [10], 13),
        ("latest", (0, 15, 20), list(range(10, 20)), 15),
    ],
)
@virtual_time
async def test_out_of_range(policy, log, done, wanted, caplog):
    """`log`: where it begins, where it ends, what was asked of it. The new place is committed, never past what runs."""
    low, high, asked = log
    first = 0 if asked == 3 else 10
    stepped = Stepped(Script(stored={(TOPIC, 0): (first, "")}), on_out_of_range=policy)
    script = stepped.script
    script.get_watermark_offsets = lambda place, timeout=None, cached=False: (low, high)
    script.give(0)
    script.arrive(*(Record(n) for n in range(first, asked)))
    await stepped.turn(2)
    deliveries = await stepped.subscription.pull(50, 1)
    for delivery in deliveries:
        if delivery.offset in done:
            delivery.ack()
    script.arrive(failed(Code.OFFSET_OUT_OF_RANGE, offset=asked))
    await stepped.turn(2)
    assert stepped.poller.failure is None
    assert script.assigned[TOPIC, 0] == wanted
    assert f"reading goes on at {wanted}" in caplog.text
    assert await stepped.subscription.pull(1, 0.1) == []
    (stay,) = stepped.subscription.stays
    assert stay.position == wanted
    if wanted > asked:
        assert stay.epoch.tracker.committable is None
        for delivery in deliveries:
            delivery.ack()
    assert stay.epoch.tracker.committable == wanted
    assert stepped.subscription._out == 0


@virtual_time
async def test_what_came_with_an_error_of_range_stands_before_the_jump():
    """In one poll: records, the error, and another partition's. A jump that overtook them was committed past them."""
    stepped = Stepped(Script(partitions=2), on_out_of_range="latest")
    script = stepped.script
    script.get_watermark_offsets = lambda place, timeout=None, cached=False: (40, 60)
    script.give(0, 1)
    await stepped.turn()
    polled = [Record(0), Record(1), failed(Code.OFFSET_OUT_OF_RANGE, offset=2), Record(0, partition=1)]
    stepped.poller.take(script, polled)
    await stepped.turn()
    found = await stepped.subscription.pull(10, 1)
    assert [(one.partition, one.offset) for one in found] == [(0, 0), (0, 1), (1, 0)]
    tracker = stepped.subscription.stays[0].epoch.tracker
    assert tracker.committable is None
    for one in found:
        one.ack()
    assert tracker.committable == 60


def _in_child(subscription, said):
    async def main():
        for call in (subscription.pull(1, 0), subscription.flush(), subscription.backlog()):
            try:
                await call
            except UsageError as error:
                said.put(str(error))
        await subscription.aclose()

    asyncio.run(main())


@in_loop
async def test_use_in_a_forked_child_is_refused(recwarn):
    fork = multiprocessing.get_context("fork")
    async with member(Script()) as subscription:
        said = fork.Queue()
        child = fork.Process(target=_forked, args=(subscription, said))
        child.start()
        texts = [await asyncio.to_thread(said.get, True, 10) for _ in range(3)]
        await asyncio.to_thread(child.join, 10)
        assert child.exitcode == 0
        assert all("opened before a fork" in text for text in texts)
    recwarn.clear()


def _forked(subscription, said):
    asyncio.events._set_running_loop(None)
    _in_child(subscription, said)


class Joined:
    """A broker of one subscription, for a worker."""

    def __init__(self, script, given):
        broker = KafkaBroker("127.0.0.1:1")
        self.capabilities, self.clock = broker.capabilities, broker.clock
        self.script, self.given = script, given

    def subscribe(self, topics, given):
        return member(self.script, **self.given)


@in_loop
async def test_revoke_and_return_same_key_never_twice():
    """The handler outlasts the revoke; its partition comes straight back, and with it the same record."""
    script, running, most, runs = Script(), 0, 0, []
    release = asyncio.Event()

    async def handler(delivery):
        nonlocal running, most
        running += 1
        most = max(most, running)
        runs.append(delivery.offset)
        try:
            if len(runs) == 1:
                await release.wait()
        finally:
            running -= 1

    handler.__annotations__ = {}
    worker = Worker(Joined(script, {"drain_timeout": 0.02}), TOPIC, handler, group="billing")
    async with worker:
        script.give(0)
        script.arrive(Record(0), Record(1))
        await until(lambda: runs == [0])
        script.take_away(0)
        await until(lambda: not script.assigned)
        script.give(0)
        script.arrive(Record(0), Record(1))
        await until(lambda: worker.stats.held in {3, 4})
        await asyncio.sleep(0.02)
        assert runs == [0]
        release.set()
        await until(lambda: runs == [0, 0, 1] and not worker.stats.held)
    assert most == 1
    assert worker.stats.late_settles == 1
    assert script.stored[TOPIC, 0][0] == 2


def test_tick_is_short():
    assert poller_module._TICK <= 0.05
