"""Partitions that go: what is waited for, what counts, what a late one may still do; members that end meanwhile."""

import asyncio
import functools
import logging
import time

import pytest

from headrace.core.delivery import ACK, RELEASE, Nak
from headrace.core.errors import ClosedError
from headrace.testing.virtual import virtual_time
from tests.unit.kafka.consuming_script import EOF, Record, Script, Stepped, failed, fixed_plan, member, options, pulled

LONG = 20.0
"""A drain_timeout that no test waits for."""
SOON = 5.0


def in_loop(test):
    @functools.wraps(test)
    def run(*arguments, **given):
        asyncio.run(asyncio.wait_for(test(*arguments, **given), 15))

    return run


async def until(condition):
    async with asyncio.timeout(SOON):
        while not condition():
            await asyncio.sleep(0.002)


def numbers(deliveries):
    return [delivery.offset for delivery in deliveries]


@in_loop
async def test_revoke_waits_for_running_not_for_waiting():
    script = Script(partitions=2)
    async with member(script, drain_timeout=LONG) as subscription:
        script.give(0, 1)
        script.arrive(*(Record(n) for n in range(4)), Record(0, partition=1))
        running, waiting, other = await pulled(subscription, 3)
        assert running.start()
        assert numbers([running, waiting, other]) == [0, 1, 2]
        script.take_away(0)
        await until(lambda: not subscription.stays[0].live)
        assert not waiting.start()  # nobody will run it, nothing waits for it
        assert (0, 1, "", False) not in script.commits
        running.ack()
        await until(lambda: len(subscription.stays) == 1)
        assert script.commits[-1][:2] == (0, 1)
        assert not script.commits[-1][3]
        assert numbers(await subscription.pull(5, 1)) == [0]
        assert subscription.late_settles == 0


@in_loop
async def test_parked_ends_the_wait():
    """It ran once, and waits in the worker for its next run: the sweep's question says that there will be none."""
    script = Script()
    async with member(script, drain_timeout=LONG) as subscription:
        script.give(0)
        script.arrive(Record(0))
        (parked,) = await pulled(subscription, 1)
        assert parked.start()
        script.take_away(0)
        await until(lambda: not subscription.stays[0].live)
        assert not parked.start()
        await until(lambda: not subscription.stays and not script.assigned)
    assert [commit[:2] for commit in script.commits] == [(0, 0)]  # how far it was read, nothing beyond


@in_loop
async def test_late_settle_after_revoke_is_noop(caplog):
    script = Script()
    async with member(script, drain_timeout=0.05) as subscription:
        script.give(0)
        script.arrive(Record(0), Record(1))
        late, naked = await pulled(subscription, 2)
        assert late.start()
        assert naked.start()
        with caplog.at_level(logging.WARNING, "headrace.kafka"):
            script.take_away(0)
            await until(lambda: not subscription.stays and not script.assigned)
        (warning,) = [record.getMessage() for record in caplog.records]
        assert "orders/0 was revoked while 2 of its messages ran" in warning
        assert "orders/0/0" in warning
        script.give(0)
        script.arrive(Record(0))
        await until(lambda: subscription.stays)
        late.ack()
        naked.nak()
        assert subscription.late_settles == 2
        (again,) = await pulled(subscription, 1)
        assert again.start()
        assert not late.start()
        assert await subscription.pull(1, 0.02) == []
        again.ack()
        await subscription.flush()
        assert [commit[:2] for commit in script.commits] == [(0, 1)]


@in_loop
async def test_lost_partition_is_neither_waited_for_nor_committed():
    script = Script()
    async with member(script, drain_timeout=LONG, commit_interval=60) as subscription:
        script.give(0)
        script.arrive(Record(0), Record(1))
        done, running = await pulled(subscription, 2)
        assert running.start()
        done.ack()
        script.take_away(0, lost=True)
        await until(lambda: not subscription.stays and not script.assigned)
        running.ack()
        assert subscription.late_settles == 1
    assert not script.commits


@in_loop
async def test_runs_of_an_epoch_before_are_waited_for_too():
    """Somebody went back in the log while a run went on: the run still holds its key at a revoke."""
    script = Script()
    async with member(script, drain_timeout=LONG) as subscription:
        script.give(0)
        script.arrive(Record(5))
        (before,) = await pulled(subscription, 1)
        assert before.start()
        script.arrive(Record(5))
        (again,) = await pulled(subscription, 1)
        assert subscription.stays[0].epoch.number == 2
        script.take_away(0)
        await until(lambda: not subscription.stays[0].live)
        await asyncio.sleep(0.05)
        assert subscription.stays, "another member may begin the same key while it runs here"
        before.ack()
        await until(lambda: not subscription.stays and not script.assigned)
        assert again.outcome is None


@in_loop
async def test_what_ended_late_is_let_go():
    """`Held` is not seen by the collector: a set that kept it would keep it for ever."""
    script = Script()
    async with member(script, drain_timeout=0) as subscription:
        script.give(0)
        script.arrive(Record(0), Record(1))
        late, never = await pulled(subscription, 2)
        assert late.start()
        assert never.start()
        stay = subscription.stays[0]
        script.take_away(0)
        await until(lambda: not subscription.stays and not script.assigned)
        late.ack()
        assert not stay.started


@in_loop
async def test_failure_does_not_keep_the_thread_waiting():
    """The consumer fails while a handler runs: it ends, its work is committed, and the thread with it, at once."""
    script = Script()
    began = time.monotonic()
    async with member(script, drain_timeout=LONG, commit_interval=60) as subscription:
        script.give(0)
        script.arrive(Record(0))
        (running,) = await pulled(subscription, 1)
        assert running.start()
        script.arrive(failed(29))  # not authorized
        with pytest.raises(Exception, match="TOPIC_AUTHORIZATION_FAILED"):
            await subscription.pull(1, 5)
        running.ack()
        await until(lambda: script.closed)
    assert time.monotonic() - began < SOON
    assert [commit[:2] for commit in script.commits] == [(0, 1)]


@in_loop
async def test_failure_is_raised_before_what_is_buffered():
    """Nothing of it could begin any more."""
    script = Script()
    async with member(script) as subscription:
        script.give(0)
        script.arrive(*(Record(n) for n in range(10)), failed(29))
        await until(lambda: subscription.poller.failure is not None)
        await until(lambda: script.closed)
        with pytest.raises(Exception, match="TOPIC_AUTHORIZATION_FAILED"):
            await subscription.pull(1, 5)


@in_loop
async def test_close_ends_the_wait_of_a_revoke():
    script = Script()
    began = time.monotonic()
    async with member(script, drain_timeout=LONG) as subscription:
        script.give(0)
        script.arrive(Record(0), Record(1))
        done, running = await pulled(subscription, 2)
        assert running.start()
        done.ack()
        script.take_away(0)
        await until(lambda: not subscription.stays[0].live)
    assert time.monotonic() - began < SOON
    assert script.commits[-1][:2] == (0, 1)
    running.ack()
    assert subscription.late_settles == 1


@in_loop
async def test_closed_starts_nothing():
    for plan in (None, fixed_plan(options())):
        script = Script()
        async with member(script, plan=plan) as subscription:
            script.give(0) if plan is None else None
            script.arrive(Record(0), Record(1))
            first, second = await pulled(subscription, 2)
            assert first.start()
        assert not second.start()
        first.ack()
        second.settle(RELEASE)
        with pytest.raises(ClosedError):
            await subscription.pull(1, 0)
        await subscription.aclose()


@in_loop
async def test_second_close_waits_for_the_end():
    script = Script()
    async with member(script) as subscription:
        script.give(0)
        await until(lambda: subscription.stays)
        first = asyncio.create_task(subscription.aclose())
        await asyncio.sleep(0)
        await subscription.aclose()
        assert script.closed
        await first


@in_loop
async def test_cancelled_close_still_ends_the_thread():
    script = Script()
    async with member(script) as subscription:
        script.give(0)
        script.arrive(Record(0))
        (done,) = await pulled(subscription, 1)
        done.ack()
        script.silent = True
        closing = asyncio.create_task(subscription.aclose())
        await asyncio.sleep(0.02)
        for _ in range(3):
            closing.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await closing
    assert script.closed


@in_loop
async def test_open_pull_of_a_closed_one_returns_nothing():
    script = Script()
    async with member(script) as subscription:
        script.give(0)
        await until(lambda: subscription.stays)
        pulling = asyncio.create_task(subscription.pull(1, 30))
        await asyncio.sleep(0.01)
        await subscription.aclose()
        assert await pulling == []


@in_loop
async def test_stopped_then_revoked():
    script = Script()
    async with member(script, drain_timeout=LONG) as subscription:
        script.give(0)
        script.arrive(Record(0), Record(1))
        running, waiting = await pulled(subscription, 2)
        assert running.start()
        await subscription.stop()
        script.arrive(Record(2))
        waiting.settle(RELEASE)
        script.take_away(0)
        await until(lambda: not subscription.stays[0].live)
        running.ack()
        await until(lambda: not subscription.stays and not script.assigned)
        assert script.commits[-1][:2] == (0, 1)
        assert await subscription.pull(5, 0.01) == []


@in_loop
async def test_several_partitions_are_quiet_once_all_are():
    script = Script(partitions=3)
    async with member(script, drain_timeout=LONG) as subscription:
        script.give(0, 1, 2)
        script.arrive(*(Record(n, partition=part) for part in range(3) for n in range(2)))
        found = await pulled(subscription, 6)
        running = [one for one in found if one.partition != 2 and one.start()]
        script.take_away(0, 1, 2)
        await until(lambda: not subscription.stays[0].live)
        for delivery in [*running[:3], *(one for one in found if one.partition == 2)]:
            delivery.ack()
        await asyncio.sleep(0.03)
        assert len(subscription.stays) == 3
        running[3].ack()
        await until(lambda: not subscription.stays and not script.assigned)
        assert {commit[:2] for commit in script.commits if not commit[3]} <= {(0, 2), (1, 2), (2, 2)}
        assert script.stored["orders", 0][0] == script.stored["orders", 1][0] == script.stored["orders", 2][0] == 2


@virtual_time
async def test_nak_after_revoke_does_not_come_again():
    stepped = Stepped(Script())
    stepped.script.give(0)
    stepped.script.arrive(Record(0), Record(1), Record(EOF and 2))
    await stepped.turn(2)
    naked, parked, late = await pulled(stepped.subscription, 3)
    parked.settle(Nak(0.5))
    stepped.script.take_away(0)
    await stepped.turn()
    naked.settle(Nak(0.1))
    late.settle(ACK)
    assert stepped.subscription.late_settles == 2
    assert await stepped.subscription.pull(3, 10) == []
