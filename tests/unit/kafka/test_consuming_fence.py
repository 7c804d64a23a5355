"""A process that stood still: nothing begins until it has heard whether others have its partitions."""

import asyncio

from headrace.core.delivery import Nak
from headrace.testing.virtual import virtual_time
from tests.unit.kafka.consuming_script import TOPIC, Record, Script, Stepped

SESSION = 10.0
LONG = 6.0
"""More than half a session."""


def numbers(deliveries):
    return [delivery.offset for delivery in deliveries]


async def holding(count):
    """A member with so many records in hand, and its poller, which only moves when it is told to."""
    script = Script()
    stepped = Stepped(script, session_timeout=SESSION)
    script.give(0)
    script.arrive(*(Record(number) for number in range(count)))
    await stepped.turn(2)
    return stepped, await stepped.subscription.pull(count, 0.1)


@virtual_time
async def test_what_waited_does_not_begin():
    stepped, (first, second, third) = await holding(3)
    assert first.start()
    await asyncio.sleep(LONG)  # the thread gives no sign
    assert not second.start()
    assert not third.start()
    await stepped.turn()  # it lives again, and the driver has said nothing yet
    assert await stepped.subscription.pull(5, 0.01) == []
    stepped.script.take_away(0, lost=True)
    await stepped.turn()
    first.ack()
    assert stepped.subscription.late_settles == 1
    assert await stepped.subscription.pull(5, 0.01) == []
    assert not [commit for commit in stepped.script.commits if commit[1]]


@virtual_time
async def test_what_is_still_ours_comes_again_in_order():
    stepped, (first, second, third) = await holding(3)
    assert first.start()
    await asyncio.sleep(LONG)
    assert not third.start()
    assert not second.start()
    first.ack()
    for _ in range(5):
        await stepped.turn()
        await asyncio.sleep(0.5)
    await stepped.turn()
    again = await stepped.subscription.pull(5, 0)
    assert numbers(again) == [1, 2]
    assert [delivery.attempt for delivery in again] == [1, 1]
    assert [delivery.start() for delivery in again] == [True, True]
    [delivery.ack() for delivery in again]
    assert stepped.subscription.stays[0].epoch.tracker.committable == 3


@virtual_time
async def test_a_short_stop_is_nothing():
    stepped, (first,) = await holding(1)
    await asyncio.sleep(SESSION / 2 - 0.1)
    assert first.start()
    await stepped.turn()
    assert stepped.subscription.stays[0].topic == TOPIC


@virtual_time
async def test_who_waits_for_more_is_woken_when_the_doubt_is_over():
    stepped, (first,) = await holding(1)
    await asyncio.sleep(LONG)
    assert not first.start()
    pulling = asyncio.create_task(stepped.subscription.pull(1, 30))
    while not pulling.done():
        await stepped.turn()
        await asyncio.sleep(0.1)
    assert numbers(pulling.result()) == [0]


@virtual_time
async def test_what_is_parked_and_does_not_begin_comes_again():
    """Its judge keeps the nak of the run before: that is no outcome yet, and the sweep withdraws it."""
    stepped, (first, second) = await holding(2)
    assert first.start()
    first.settlement.judge = object()
    first.settlement.outcome = Nak(5.0)
    await asyncio.sleep(LONG)
    assert not first.start()
    second.ack()
    for _ in range(8):
        await asyncio.sleep(0.5)
        await stepped.turn()
    assert numbers(await stepped.subscription.pull(5, 0.1)) == [0]
