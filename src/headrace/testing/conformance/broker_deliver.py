"""Checks of one delivery and of one subscription: order, attempts, leases, pulling."""

from __future__ import annotations

import asyncio
import contextlib

from headrace.core.broker import Subscription
from headrace.core.errors import UsageError
from headrace.core.headers import Headers
from headrace.testing.conformance.check import COUNTS, DELAYED_NAK, LEASE, ONE_BY_ONE, ORDERED, BrokerCheck, OpenBroker
from headrace.testing.conformance.tools import (
    LEASE_SECONDS,
    PATIENCE,
    QUIET,
    acknowledge,
    bodies,
    failure_of,
    join,
    message,
    new_topic,
    publish_bodies,
    receive,
    stays_quiet,
    two_members,
)

__all__ = ["CHECKS"]


def _now() -> float:
    return asyncio.get_running_loop().time()


@BrokerCheck.of(ORDERED)
async def order_per_key(open_broker: OpenBroker) -> None:
    """First deliveries of one key come in the order in which they were published."""
    topic = new_topic("order")
    async with open_broker() as broker, broker.subscribe(topic, join("order")) as subscription:
        for key in (b"a", b"b"):
            await publish_bodies(broker, topic, [f"{key.decode()}{n}" for n in range(10)], key=key)
        got = await acknowledge(subscription, 20)
        for key in (b"a", b"b"):
            mine = [each.message.body for each in got if each.message.key == key]
            assert mine == [b"%s%d" % (key, n) for n in range(10)], f"key {key!r} came as {mine}"
            assert all(each.order_key == key for each in got if each.message.key == key), "order_key is not the key"


@BrokerCheck.of(COUNTS)
async def attempt_counts_up(open_broker: OpenBroker) -> None:
    """The attempt of a message that was handed back rises."""
    topic = new_topic("attempt")
    async with open_broker() as broker, broker.subscribe(topic, join("attempt")) as subscription:
        await publish_bodies(broker, topic, [1])
        seen: list[int] = []
        for _ in range(3):
            (delivery,) = await receive(subscription, 1)
            assert delivery.start()
            seen.append(delivery.attempt)
            delivery.nak()
        assert seen == [1, 2, 3], f"attempts were {seen}"


@BrokerCheck.of()
async def redelivery_identical(open_broker: OpenBroker) -> None:
    """A redelivery carries the same body, key, headers, id and time."""
    topic = new_topic("same")
    async with open_broker() as broker, broker.subscribe(topic, join("same")) as subscription:
        await broker.publish(message(topic, b"\x00body", key=b"k", headers=Headers([("A", "1"), ("A", b"\xff")])))
        (first,) = await receive(subscription, 1)
        before = (first.message, tuple(first.message.headers.items()), first.position)
        first.nak()
        (second,) = await receive(subscription, 1)
        after = (second.message, tuple(second.message.headers.items()), second.position)
        assert after == before, f"{before} came back as {after}"
        second.ack()


@BrokerCheck.of()
async def nak_zero_returns_at_once(open_broker: OpenBroker) -> None:
    """What was handed back without a delay comes again at once."""
    topic = new_topic("nak")
    async with open_broker() as broker, broker.subscribe(topic, join("nak")) as subscription:
        await publish_bodies(broker, topic, [1])
        (delivery,) = await receive(subscription, 1)
        assert delivery.start()
        delivery.nak()
        await _comes_at_once(subscription, b"1")


async def _comes_at_once(subscription: Subscription, body: bytes) -> None:
    again = await subscription.pull(1, QUIET * 3)
    assert bodies(again) == [body], f"{body!r} does not come back at once, but {bodies(again)}"
    again[0].ack()


@BrokerCheck.of(DELAYED_NAK)
async def nak_delay_never_early(open_broker: OpenBroker) -> None:
    """What was handed back with a delay comes again, and not before."""
    topic, delay = new_topic("later"), 1.0
    async with open_broker() as broker, broker.subscribe(topic, join("later")) as subscription:
        await publish_bodies(broker, topic, [1])
        (delivery,) = await receive(subscription, 1)
        assert delivery.start()
        asked = _now()
        delivery.nak(delay)
        (again,) = await receive(subscription, 1)
        waited = _now() - asked
        assert waited >= delay - 1e-6, f"asked for {delay} s, came after {waited:.3f} s"
        again.ack()


@BrokerCheck.of()
async def release_returns_at_once(open_broker: OpenBroker) -> None:
    """What was not run comes again as soon as anybody can take it."""
    topic = new_topic("release")
    async with open_broker() as broker, broker.subscribe(topic, join("release")) as subscription:
        await publish_bodies(broker, topic, [1])
        (delivery,) = await receive(subscription, 1)
        with contextlib.suppress(asyncio.CancelledError), delivery:
            raise asyncio.CancelledError
        await _comes_at_once(subscription, b"1")


@BrokerCheck.of(LEASE)
async def lease_expires(open_broker: OpenBroker) -> None:
    """What is neither settled nor prolonged comes again when its lease is over, and not before."""
    async with two_members(open_broker, "lease", publish=1, lease=LEASE_SECONDS) as (holder, other):
        (held,) = await receive(holder, 1)
        assert held.start()
        taken = _now()
        await stays_quiet(other, LEASE_SECONDS * 0.7)
        (again,) = await receive(other, 1)
        assert _now() - taken >= LEASE_SECONDS * 0.9, f"came after {_now() - taken:.3f} s of {LEASE_SECONDS} s"
        assert again.message.id == held.message.id
        again.ack()


@BrokerCheck.of(LEASE)
async def extend_keeps(open_broker: OpenBroker) -> None:
    """What is extended, or kept with all the others, does not come again."""
    async with two_members(open_broker, "extend", publish=1, lease=LEASE_SECONDS) as (holder, other):
        (held,) = await receive(holder, 1)
        assert held.start()
        for prolong in (held.extend, holder.keep):
            for _ in range(4):
                await stays_quiet(other, LEASE_SECONDS / 2)
                prolong()
        assert held.start(), "the lease was prolonged, and yet start() is False"
        held.ack()
        await holder.flush()
        await stays_quiet(other, LEASE_SECONDS * 1.5)


@BrokerCheck.of(LEASE)
async def start_false_after_lease(open_broker: OpenBroker) -> None:
    """Once somebody else has it, a run may not begin."""
    async with two_members(open_broker, "start", publish=1, lease=LEASE_SECONDS) as (holder, other):
        (held,) = await receive(holder, 1)
        (again,) = await receive(other, 1)
        await asyncio.sleep(LEASE_SECONDS / 4)  # a busy holder counts from when it read it, later than the engine
        assert not held.start(), "start() is True, and another member has the message"
        assert again.start(), "start() is False under a fresh lease"
        again.ack()


@BrokerCheck.of()
async def pull_limits(open_broker: OpenBroker) -> None:
    """At most `limit`, nothing after `wait`, at once with 0, one pull at a time."""
    topic = new_topic("pull")
    async with open_broker() as broker, broker.subscribe(topic, join("pull")) as subscription:
        started = _now()
        assert not await subscription.pull(5, 0.2), "a message from nowhere"
        assert _now() - started >= 0.2 - 1e-6, "the pull did not wait as long as it was told"
        assert not await subscription.pull(5, 0), "a message from nowhere"
        await publish_bodies(broker, topic, range(7))
        got = list(await subscription.pull(3, PATIENCE))
        assert 1 <= len(got) <= 3, f"at most 3 asked for, {len(got)} came"
        got += await receive(subscription, 7 - len(got), limit=2)
        assert len(got) == 7, f"7 messages were published, {len(got)} came"
        first = asyncio.create_task(subscription.pull(1, QUIET))
        await asyncio.sleep(0)
        await failure_of(lambda: subscription.pull(1, 0), UsageError)
        assert not await first, f"arrived twice: {bodies(await first)}"


@BrokerCheck.of()
async def cancelled_pull_loses_nothing(open_broker: OpenBroker) -> None:
    """A pull that is cancelled, wherever it stands, has taken nothing with it."""
    topic, count = new_topic("cut"), 40
    async with open_broker() as broker, broker.subscribe(topic, join("cut")) as subscription:
        got: list[bytes] = []
        for number in range(count):
            pull = asyncio.create_task(subscription.pull(1, PATIENCE))
            publish = asyncio.create_task(broker.publish(message(topic, b"%d" % number)))
            for _ in range(number % 20):
                await asyncio.sleep(0)
            if number % 2:
                await publish
            pull.cancel()
            for outcome in await asyncio.gather(pull, return_exceptions=True):
                if not isinstance(outcome, BaseException):
                    got += bodies(outcome)
            await publish
        got += bodies(await receive(subscription, count - len(got), wait=QUIET * 3))
        assert sorted(got) == sorted(b"%d" % n for n in range(count)), f"{count} published, {len(set(got))} arrived"


@BrokerCheck.of()
async def max_in_flight_holds(open_broker: OpenBroker) -> None:
    """Never more than ``max_in_flight`` unsettled; a place that is free is used."""
    topic = new_topic("full")
    async with open_broker() as broker, broker.subscribe(topic, join("full", max_in_flight=3)) as subscription:
        await publish_bodies(broker, topic, range(8))
        held = await receive(subscription, 3, limit=10)
        assert len(held) == 3, f"3 may be in flight, {len(held)} are"
        await stays_quiet(subscription)
        held[0].ack()
        assert len(await subscription.pull(10, PATIENCE)) == 1, "one place is free, and not one message came"


@BrokerCheck.of(ONE_BY_ONE)
async def prefetch_leaves_the_rest(open_broker: OpenBroker) -> None:
    """With ``prefetch=0`` a member that is full leaves the others the rest."""
    async with two_members(open_broker, "flight", publish=8, max_in_flight=3) as (full, other):
        held = await receive(full, 3, limit=10)
        rest = await receive(other, 3, limit=10)
        assert not set(bodies(held)) & set(bodies(rest)), "two members hold the same message"


CHECKS: tuple[BrokerCheck, ...] = (
    order_per_key,
    attempt_counts_up,
    redelivery_identical,
    nak_zero_returns_at_once,
    nak_delay_never_early,
    release_returns_at_once,
    lease_expires,
    extend_keeps,
    start_false_after_lease,
    pull_limits,
    cancelled_pull_loses_nothing,
    max_in_flight_holds,
    prefetch_leaves_the_rest,
)
