"""Commits: one at a time, only what grew, asked for again where it failed; and what `flush` waits for."""

import asyncio
import time

import pytest
from confluent_kafka import KafkaError as DriverError
from confluent_kafka import TopicPartition

from headrace.core.errors import BrokerTimeoutError
from headrace.kafka import driver
from headrace.kafka.codes import Code
from headrace.kafka.consuming import opening
from headrace.kafka.errors import CommitError
from headrace.testing.virtual import virtual_time
from tests.unit.kafka.consuming_script import Record, Script, Stepped, member, pulled
from tests.unit.kafka.test_consuming_revoke import SOON, in_loop, until

MEMBERSHIP = [
    Code.ILLEGAL_GENERATION,
    Code.UNKNOWN_MEMBER_ID,
    Code.REBALANCE_IN_PROGRESS,
    Code.FENCED_INSTANCE_ID,
]
DOWN = driver.translated(DriverError(Code.LOCAL_ALL_BROKERS_DOWN))


async def stepped_with(*records, **given):
    stepped = Stepped(Script(), commit_interval=1.0, **given)
    stepped.script.give(0)
    stepped.script.arrive(*records)
    await stepped.turn(2)
    return stepped


def sent(script):
    return [commit[:2] for commit in script.commits]


@virtual_time
async def test_sent_only_when_it_grew_and_once_an_interval():
    stepped = await stepped_with(*(Record(n) for n in range(4)))
    first, second, third, _ = await stepped.subscription.pull(4, 1)
    second.ack()
    await asyncio.sleep(1)
    await stepped.turn(2)
    assert sent(stepped.script) == []
    first.ack()
    await stepped.turn(2)
    assert sent(stepped.script) == []  # the interval is not over
    await asyncio.sleep(1)
    await stepped.turn(2)
    assert sent(stepped.script) == [(0, 2)]
    await asyncio.sleep(3)
    await stepped.turn(3)
    assert sent(stepped.script) == [(0, 2)]
    third.reject("no")
    await asyncio.sleep(1)
    await stepped.turn(2)
    assert sent(stepped.script) == [(0, 2), (0, 3)]
    assert stepped.subscription.stays[0].epoch.committed == 3


@virtual_time
async def test_one_commit_is_under_way_at_a_time():
    """The driver sends a failed one again by itself: behind a later one it would put the group back."""
    stepped = await stepped_with(Record(0), Record(1))
    stepped.script.silent = True
    first, second = await stepped.subscription.pull(2, 1)
    for delivery in (first, second):
        delivery.ack()
        await asyncio.sleep(1)
        await stepped.turn(2)
    assert sent(stepped.script) == [(0, 1)]
    stepped.script.silent = False
    stepped.poller.commits.answered(None, [])
    await asyncio.sleep(1)
    await stepped.turn(2)
    assert sent(stepped.script) == [(0, 1), (0, 2)]


@pytest.mark.parametrize("code", [*MEMBERSHIP, Code.COORDINATOR_NOT_AVAILABLE, Code.REQUEST_TIMED_OUT])
@virtual_time
async def test_failed_commit_is_sent_again(code, caplog):
    stepped = await stepped_with(Record(0))
    (delivery,) = await stepped.subscription.pull(1, 1)
    delivery.ack()
    stepped.script.refuse.extend([code, code])
    for _ in range(4):
        await asyncio.sleep(1)
        await stepped.turn(2)
    assert stepped.poller.failure is None
    assert sent(stepped.script) == [(0, 1)] * 3
    assert len([record for record in caplog.records if "is repeated" in record.getMessage()]) == 1
    assert stepped.subscription.stays[0].epoch.committed == 1


@virtual_time
async def test_failed_commit_of_what_is_not_ours_is_forgotten():
    stepped = await stepped_with(Record(0))
    (delivery,) = await stepped.subscription.pull(1, 1)
    delivery.ack()
    stepped.script.refuse.append(Code.ILLEGAL_GENERATION)
    stepped.script.take_away(0)
    await stepped.turn()
    for _ in range(3):
        await asyncio.sleep(1)
        await stepped.turn(2)
    assert sent(stepped.script) == [(0, 1)]


@in_loop
async def test_refused_commit_ends_the_subscription():
    script = Script()
    async with member(script) as subscription:
        script.give(0)
        script.arrive(Record(0))
        (delivery,) = await pulled(subscription, 1)
        script.refuse.extend([Code.GROUP_AUTHORIZATION_FAILED] * 3)
        delivery.ack()
        with pytest.raises(CommitError, match="a commit was refused"):
            await subscription.pull(1, 5)
        await subscription.flush()  # heard of already


@in_loop
async def test_flush_of_a_refused_commit_raises_at_once():
    script = Script()
    began = time.monotonic()
    async with member(script, commit_interval=60) as subscription:
        script.give(0)
        script.arrive(Record(0))
        (delivery,) = await pulled(subscription, 1)
        script.refuse.extend([Code.GROUP_AUTHORIZATION_FAILED] * 3)
        delivery.ack()
        with pytest.raises(CommitError):
            await subscription.flush()
        await until(lambda: subscription._failure is not None)  # else its end is the first to hear, and says it again
    assert time.monotonic() - began < SOON


@in_loop
async def test_flush_repeats_what_fails():
    script = Script()
    async with member(script, commit_interval=60) as subscription:
        script.give(0)
        script.arrive(*(Record(n) for n in range(3)))
        first, _, third = await pulled(subscription, 3)
        first.ack()
        third.ack()
        script.refuse.extend([Code.REQUEST_TIMED_OUT] * 2)
        await subscription.flush()
        assert sent(script) == [(0, 1)] * 3
        assert script.commits[-1][2].startswith("headrace/1 ")
        await subscription.flush()
        assert sent(script) == [(0, 1)] * 3


@in_loop
async def test_flush_returns_while_work_goes_on():
    """What was finished when it was called: not what comes meanwhile, which may never end."""
    script = Script()
    async with member(script, commit_interval=60, max_in_flight=10_000) as subscription:
        script.give(0)
        script.arrive(*(Record(n) for n in range(3_000)))
        found = await pulled(subscription, 3_000)

        def finish():
            for _ in range(3):
                found.pop(0).ack()

        real, finishing = script.poll, True
        finish()

        def poll(timeout):  # between each commit and its answer more is finished
            if finishing and len(found) > 10:
                subscription.poller.tell(finish)
                time.sleep(0.002)
            return real(min(timeout, 0.001))

        script.poll = poll
        async with asyncio.timeout(2):
            await subscription.flush()
        finishing = False
        assert found[10:]


@in_loop
async def test_flush_gives_up_when_the_coordinator_is_away(monkeypatch):
    """And so does the end of the membership: a commit that is waited for inside of the driver may take minutes."""
    monkeypatch.setattr(opening, "_CONFIRM", 0.1)
    script = Script()
    script.silent = True
    with pytest.raises(BrokerTimeoutError, match="the coordinator confirmed no commit"):
        async with member(script, commit_interval=60) as subscription:
            script.give(0)
            script.arrive(Record(0))
            (delivery,) = await pulled(subscription, 1)
            delivery.ack()
            script.do(lambda: script.on_error(DOWN))
            with pytest.raises(BrokerTimeoutError):
                await subscription.flush()
    await until(lambda: script.closed)
    assert script.commits
    assert all(commit[3] for commit in script.commits), "in the real driver it would hang here"


@in_loop
async def test_flush_waits_while_the_group_is_balanced(monkeypatch):
    """The driver sends a commit behind the join that it waits for: for two sessions of the dead nothing is answered."""
    monkeypatch.setattr(opening, "_CONFIRM", 0.1)
    script = Script()
    async with member(script, commit_interval=60, session_timeout=1) as subscription:
        script.give(0)
        script.arrive(Record(0))
        (delivery,) = await pulled(subscription, 1)
        script.silent = True
        delivery.ack()
        flushing = asyncio.create_task(subscription.flush())
        await asyncio.sleep(1)
        assert not flushing.done()
        script.silent = False
        late = Code.ILLEGAL_GENERATION
        script.do(lambda: script.on_commit(DriverError(late), [TopicPartition("orders", 0, 1)]))
        await flushing
        assert sent(script) == [(0, 1)] * 2


@in_loop
async def test_waiting_for_a_commit_is_no_standstill():
    """The thread polls: it is a member, and what it holds may begin."""
    script = Script()
    async with member(script, commit_interval=60, session_timeout=1) as subscription:
        script.give(0)
        script.arrive(Record(0), Record(1))
        first, second = await pulled(subscription, 2)
        script.silent = True
        first.ack()
        flushing = asyncio.create_task(subscription.flush())
        await asyncio.sleep(0.8)
        assert second.start()
        script.silent = False
        script.do(lambda: script.on_commit(None, [TopicPartition("orders", 0, 1)]))
        await flushing
        second.ack()


@in_loop
async def test_a_text_too_long_for_the_broker_is_left_out():
    """What is finished beyond comes again then at the next member; the place itself is kept."""
    script = Script()
    async with member(script, commit_interval=60) as subscription:
        script.give(0)
        script.arrive(*(Record(n) for n in range(5)))
        found = await pulled(subscription, 5)
        found[0].ack()
        found[2].ack()
        script.refuse.append(Code.OFFSET_METADATA_TOO_LARGE)
        await subscription.flush()
        found[1].ack()
        found[4].ack()
    assert [(offset, bool(text)) for _, offset, text, _ in script.commits] == [(1, True), (1, False), (3, False)]


@pytest.mark.parametrize("code", [Code.OFFSET_METADATA_TOO_LARGE, Code.INVALID_COMMIT_OFFSET_SIZE])
@in_loop
async def test_a_commit_that_can_never_work_ends_it(code):
    script = Script()
    async with member(script, commit_interval=60) as subscription:
        script.give(0)
        script.arrive(Record(0))
        (delivery,) = await pulled(subscription, 1)
        script.refuse.extend([code] * 3)
        delivery.ack()
        with pytest.raises(CommitError):
            await subscription.flush()
        await until(lambda: subscription._failure is not None)


@in_loop
async def test_cancelled_flush_leaves_the_thread_free():
    """And nobody waits as long once more: neither the next flush nor the end."""
    script = Script()
    began = time.monotonic()
    with pytest.raises(BrokerTimeoutError):
        async with member(script, commit_interval=60) as subscription:
            script.give(0)
            script.arrive(Record(0))
            (delivery,) = await pulled(subscription, 1)
            script.silent = True
            delivery.ack()
            flushing = asyncio.create_task(subscription.flush())
            await until(lambda: script.commits)
            flushing.cancel()
            assert await subscription.poller.call(lambda consumer: consumer) is script
            with pytest.raises(BrokerTimeoutError):
                await subscription.flush()
    assert time.monotonic() - began < SOON


@virtual_time
async def test_what_another_finished_beyond_its_commit_is_not_done_again():
    stepped = Stepped(Script(stored={("orders", 0): (2, "")}), commit_interval=1.0)
    script = stepped.script
    script.give(0)
    script.arrive(*(Record(n) for n in range(2, 7)))
    await stepped.turn(2)
    found = await stepped.subscription.pull(5, 1)
    found[1].ack()
    found[3].ack()
    script.take_away(0)
    # the loop sums up while the thread waits: here they are one, so by hand
    stepped.subscription.stays[0].epoch.sum_up()
    await stepped.turn()
    assert script.stored["orders", 0][0] == 2
    script.give(0)
    script.arrive(*(Record(n) for n in range(2, 7)))
    await stepped.turn(2)
    assert [one.offset for one in await stepped.subscription.pull(5, 1)] == [2, 4, 6]


@virtual_time
async def test_what_another_finished_takes_no_place_of_a_pull():
    """A pull that meets only such records goes on to the next: what is here already rings for nobody."""
    stepped = Stepped(Script(stored={("orders", 0): (2, "")}))
    stepped.script.give(0)
    await stepped.turn()
    (stay,) = stepped.subscription.stays
    stay.before, stay.before_leader = {2, 3, 4, 6}, 9
    stepped.script.arrive(*(Record(n) for n in range(2, 9)))
    await stepped.turn(2)
    for wanted in (5, 7, 8):
        assert [one.offset for one in await asyncio.wait_for(stepped.subscription.pull(1, 30), 1)] == [wanted]


@virtual_time
async def test_what_another_finished_is_forgotten_where_the_log_was_cut():
    """The same offsets in what was written anew are other records."""
    stepped = Stepped(Script(stored={("orders", 0): (2, "")}))
    script = stepped.script
    script.give(0)
    await stepped.turn()
    stay = stepped.subscription.stays[0]
    stay.before.update({4, 5})
    script.arrive(Record(2), Record(3))
    await stepped.turn()
    await stepped.subscription.pull(5, 1)
    script.arrive(*(Record(n, leader=9) for n in range(3, 6)))
    await stepped.turn()
    assert [one.offset for one in await stepped.subscription.pull(5, 1)] == [3, 4, 5]
