"""What is handed out: order keys, attempts, what comes again and when, and that every count stays exact."""

import asyncio

import pytest

from headrace.core.broker import SubscribeOptions
from headrace.core.delivery import RELEASE, Nak
from headrace.core.errors import HandlerError, UsageError
from headrace.testing.virtual import virtual_time
from tests.unit.kafka.consuming_script import EOF, TOPIC, Record, Script, Stepped, failed, fixed_plan, options


def numbers(deliveries):
    return [delivery.offset for delivery in deliveries]


async def reader(*records, partitions=1, **given):
    """One that has partition 0, and these records on their way."""
    stepped = Stepped(Script(partitions), **given)
    stepped.script.give(*range(partitions))
    stepped.script.arrive(*records)
    await stepped.turn(2)
    return stepped


@virtual_time
async def test_order_key_table():
    def extract(message):
        return {b"text": "Grüße", b"bytes": b"\xff", b"none": None, b"empty": b"", b"": ""}[message.body]

    table = [
        # options, key, body, order key
        ({}, b"k", b"", b"k"),
        ({}, b"", b"", b""),
        ({}, None, b"", None),
        ({"order_keyless": True}, None, b"", "orders/0"),
        ({"order_keyless": True}, b"", b"", b""),
        ({"key_extractor": extract}, b"k", b"text", "Grüße".encode()),
        ({"key_extractor": extract}, None, b"bytes", b"\xff"),
        ({"key_extractor": extract}, b"k", b"none", b"k"),
        ({"key_extractor": extract}, b"k", b"empty", b"k"),
        ({"key_extractor": extract}, b"", b"", b""),
        ({"key_extractor": extract}, None, b"none", None),
        ({"key_extractor": extract, "order_keyless": True}, None, b"empty", "orders/0"),
    ]
    for given, key, body, wanted in table:
        stepped = await reader(Record(0, key=key, value=body), **given)
        (delivery,) = await stepped.subscription.pull(1, 1)
        assert delivery.order_key == wanted, (given, key, body)
        assert delivery.message.key == key


@pytest.mark.parametrize("answer", ["raises", "surrogate", "number"])
@virtual_time
async def test_extractor_error_ends_run(answer):
    """What stands before it is handed out and may be committed; nothing behind it is, and every pull says why."""

    def extract(message):
        if message.body == b"bad":
            if answer == "raises":
                raise ValueError("no such field")
            return "\udc80" if answer == "surrogate" else 7
        return message.key

    records = [Record(0), Record(1), Record(2, value=b"bad"), Record(3)]
    stepped = await reader(*records, key_extractor=extract)
    subscription = stepped.subscription
    found = await subscription.pull(10, 1)
    assert numbers(found) == [0, 1]
    assert subscription._out == 2
    for _ in range(2):
        with pytest.raises(HandlerError, match="key_extractor failed on orders orders/0/2") as caught:
            await subscription.pull(10, 1)
        assert caught.value.__cause__ is not None
    for delivery in found:
        assert delivery.start()
        delivery.ack()
    assert subscription._out == 0
    assert subscription.stays[0].held_bytes == 0
    stepped.script.arrive(Record(4))
    await stepped.turn(3)
    with pytest.raises(HandlerError):
        await subscription.pull(10, 1)
    stepped.script.take_away(0)
    await stepped.turn(2)
    assert {offset for _, offset, _, _ in stepped.script.commits} == {2}


@virtual_time
async def test_nak_and_release_order():
    """Before new ones, lowest offset first, as soon as due and never earlier."""
    loop = asyncio.get_running_loop()
    stepped = await reader(*(Record(n) for n in range(8)))
    pull = stepped.subscription.pull
    first = await pull(6, 1)
    assert numbers(first) == [0, 1, 2, 3, 4, 5]
    first[0].settle(Nak(3.0))
    first[4].settle(RELEASE)
    first[2].settle(RELEASE)
    first[5].settle(Nak(1.0))
    first[3].settle(Nak(1.0))
    again = await pull(3, 1)
    assert numbers(again) == [2, 4, 6]
    assert [one.message for one in again[:2]] == [first[2].message, first[4].message]
    assert numbers(await pull(5, 0.5)) == [7]
    began = loop.time()
    assert numbers(await pull(5, 10)) == [3, 5]
    assert loop.time() - began == pytest.approx(1.0)
    assert numbers(await pull(5, 10)) == [0]
    assert loop.time() - began == pytest.approx(3.0)
    assert await pull(5, 1) == []


@virtual_time
async def test_attempt_counts():
    """One more after a Nak, the same after a Release, from 1 again in the next stay."""
    stepped = await reader(Record(0))
    pull = stepped.subscription.pull
    for outcome, attempt in ((RELEASE, 1), (Nak(0.0), 1), (Nak(1.0), 2), (RELEASE, 3), (RELEASE, 3)):
        (delivery,) = await pull(1, 5)
        assert delivery.attempt == attempt
        delivery.settle(outcome)
    stepped.script.take_away(0)
    await stepped.turn()
    stepped.script.give(0)
    stepped.script.arrive(Record(0))
    await stepped.turn(2)
    (delivery,) = await pull(1, 5)
    assert delivery.attempt == 1


@virtual_time
async def test_waiting_while_nothing_may_be_handed_out_is_no_loop():
    """What is due while all places are taken, or nothing can be saved, waits for a place: not for the time."""
    loop = asyncio.get_running_loop()
    stepped = await reader(Record(0), Record(1), max_in_flight=1)
    (first,) = await stepped.subscription.pull(5, 1)
    first.settle(Nak(1.0))
    (second,) = await stepped.subscription.pull(5, 1)
    looks = 0
    real = stepped.subscription._again.next_due

    def counted():
        nonlocal looks
        looks += 1
        assert looks < 50
        return real()

    stepped.subscription._again.next_due = counted
    began = loop.time()
    loop.call_later(20, second.ack)
    assert numbers(await stepped.subscription.pull(5, 30)) == [0]
    assert loop.time() - began == pytest.approx(20)


@virtual_time
async def test_what_waits_in_an_epoch_that_is_over_does_not_come_again():
    stepped = await reader(Record(0), Record(1))
    subscription = stepped.subscription
    first, second = await subscription.pull(2, 1)
    first.settle(RELEASE)
    second.settle(Nak(1.0))
    stepped.script.arrive(Record(0), Record(1))
    await stepped.turn(2)
    # the released one stands before what has just come, and is none of it
    found = await subscription.pull(1, 1)
    found += await subscription.pull(5, 1)
    stay = subscription.stays[0]
    assert stay.epoch.number == 2
    assert [one for one in found if one.start()] == found[-2:]
    assert numbers(found[-2:]) == [0, 1]
    assert await subscription.pull(5, 10) == []
    for one in found:
        one.ack()
    assert subscription._out == 0
    assert stay.held_bytes == 0
    assert len(subscription._again) == 0
    assert stay.epoch.tracker.committable == 2


@virtual_time
async def test_records_that_go_back_in_one_batch():
    """Whatever order the driver hands them out in, each is begun in the epoch that it is settled in."""
    stepped = await reader(Record(3), Record(4), Record(4, leader=4), Record(5, leader=4), Record(4), Record(7))
    found = await stepped.subscription.pull(10, 1)
    assert numbers(found) == [3, 4, 4, 5, 4, 7]
    assert [one.start() for one in found] == [False] * 4 + [True] * 2
    for one in found:
        one.ack()
    assert stepped.subscription.late_settles == 4
    assert stepped.subscription._out == 0
    assert stepped.subscription.stays[0].epoch.tracker.committable == 8


@virtual_time
async def test_end_of_partition_moves_position_and_commit_past_markers():
    stepped = await reader(Record(0), Record(1), failed(EOF, offset=5), partitions=2)
    subscription = stepped.subscription
    stay = subscription.stays[0]
    assert stay.position == 0
    found = await subscription.pull(1, 1)
    assert stay.position == 1
    found += await subscription.pull(1, 1)
    assert stay.position == 5
    assert stay.epoch.tracker.committable is None
    found[0].ack()
    assert stay.epoch.tracker.committable == 1
    found[1].ack()
    assert stay.epoch.tracker.committable == 5
    stepped.script.arrive(failed(EOF, offset=9))
    await stepped.turn()
    assert await subscription.pull(1, 0.1) == []
    assert stay.position == stay.epoch.tracker.committable == 9


@virtual_time
async def test_backlog_counts_what_is_handed_back_while_it_asks():
    stepped = await reader(Record(0))
    subscription = stepped.subscription
    (delivery,) = await subscription.pull(1, 1)

    async def count():
        delivery.settle(RELEASE)
        return 0

    subscription.count = count
    assert await subscription.backlog() == 1


@virtual_time
async def test_one_pull_at_a_time_and_a_cancelled_one_loses_nothing():
    stepped = await reader()
    subscription = stepped.subscription
    pulling = asyncio.create_task(subscription.pull(5, 30))
    await asyncio.sleep(1)
    with pytest.raises(UsageError, match="one pull at a time"):
        await subscription.pull(1, 1)
    stepped.script.arrive(Record(0))
    stepped.poller._wanted.set()
    stepped.poller._turn(stepped.script)
    await asyncio.sleep(0)  # it arrives, and the pull is to wake
    pulling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pulling
    assert stepped.poller.demand == 0
    assert numbers(await subscription.pull(5, 1)) == [0]


@virtual_time
async def test_counts_stay_exact_when_runs_are_dropped():
    """`pulled` tells the thread how much room there is: what is thrown away is room again."""
    stepped = await reader(*(Record(n, partition=n % 2) for n in range(20)), partitions=2)
    subscription, poller = stepped.subscription, stepped.poller
    found = await subscription.pull(3, 1)
    assert poller._taken == 20
    stepped.script.take_away(0)
    await stepped.turn()
    left = await subscription.pull(50, 1)
    assert {one.partition for one in left} == {1}
    assert poller.pulled == poller._taken == 20
    assert subscription._out == sum(one.partition == 1 for one in [*found, *left])
    await subscription.stop()
    stepped.script.arrive(Record(90, partition=1))
    await stepped.turn(3)
    assert poller.pulled == poller._taken


@virtual_time
async def test_facts_and_positions():
    stepped = await reader(Record(4, key=b"\xff"), Record(5, value=None), Record(6, key=None), order_keyless=True)
    odd, null, keyless = await stepped.subscription.pull(3, 1)
    assert str(odd.position) == "orders/0@4"
    assert odd.attributes() == {
        "messaging.system": "kafka",
        "messaging.destination.partition.id": "0",
        "messaging.kafka.offset": 4,
        "messaging.client.id": "headrace",
        "headrace.kafka.epoch": 1,
    }
    assert null.attributes()["messaging.kafka.message.key"] == "k"
    assert null.attributes()["messaging.kafka.message.tombstone"] is True
    assert keyless.attributes()["headrace.order_key"] == "orders/0"
    assert odd.timestamp_type == "create"
    assert odd.received_at.utcoffset().total_seconds() == 0
    view = odd.with_message(null.message)
    assert (view.offset, view.partition, view.message) == (4, 0, null.message)
    odd.ack()
    assert view.outcome == odd.outcome
    assert TOPIC == "orders"
    assert SubscribeOptions().group is None


@virtual_time
async def test_alone_nothing_is_committed():
    """Without a group there is nobody to tell."""
    stepped = Stepped(Script(), plan=fixed_plan(options()))
    stepped.script.arrive(Record(0))
    await stepped.turn(2)
    (delivery,) = await stepped.subscription.pull(1, 1)
    delivery.ack()
    await asyncio.sleep(5)
    await stepped.turn(2)
    assert not stepped.script.commits
