"""Checks of how a delivery is settled: each outcome, once, and when the engine has confirmed it."""

from __future__ import annotations

import asyncio

from headrace.core.delivery import ACK
from headrace.core.errors import AlreadySettledError
from headrace.testing.conformance.check import LEASE, BrokerCheck, OpenBroker
from headrace.testing.conformance.tools import (
    LEASE_SECONDS,
    PATIENCE,
    acknowledge,
    bodies,
    join,
    new_topic,
    publish_bodies,
    receive,
    stays_quiet,
    two_members,
)

__all__ = ["CHECKS"]


@BrokerCheck.of(LEASE)
async def ack_is_final(open_broker: OpenBroker) -> None:
    """What was acknowledged never comes again to the group."""
    topic = new_topic("ack")
    async with open_broker() as broker:
        async with broker.subscribe(topic, join("ack", lease=LEASE_SECONDS)) as subscription:
            await publish_bodies(broker, topic, range(3))
            await acknowledge(subscription, 3)
            await subscription.flush()
            await stays_quiet(subscription, LEASE_SECONDS * 1.5)
        async with broker.subscribe(topic, join("ack", lease=LEASE_SECONDS)) as subscription:
            await stays_quiet(subscription)


@BrokerCheck.of()
async def acks_together_count_each(open_broker: OpenBroker) -> None:
    """Acks that are told in one call are final, each of them, and nothing else is."""
    topic = new_topic("together")
    async with open_broker() as broker:
        async with broker.subscribe(topic, join("together")) as subscription:
            await publish_bodies(broker, topic, range(6))
            got = await receive(subscription, 6)
            processed = [delivery for delivery in got if delivery.message.body in {b"1", b"2", b"4"}]
            for delivery in processed:
                assert delivery.start()
                delivery.settlement.outcome = ACK
            subscription.settle_acked(processed)
            await subscription.flush()
        async with broker.subscribe(topic, join("together")) as subscription:
            rest = await acknowledge(subscription, 3)
            assert sorted(bodies(rest)) == [b"0", b"3", b"5"]
            await subscription.flush()
            await stays_quiet(subscription)
            assert await subscription.backlog() in (0, None), "some of the acks were not counted"


@BrokerCheck.of(LEASE)
async def reject_is_final(open_broker: OpenBroker) -> None:
    """What was rejected never comes again to the group."""
    topic = new_topic("reject")
    async with (
        open_broker() as broker,
        broker.subscribe(topic, join("reject", lease=LEASE_SECONDS)) as subscription,
    ):
        await publish_bodies(broker, topic, [1])
        (delivery,) = await receive(subscription, 1)
        assert delivery.start()
        delivery.reject("never")
        await subscription.flush()
        await stays_quiet(subscription, LEASE_SECONDS * 1.5)


@BrokerCheck.of()
async def settle_once(open_broker: OpenBroker) -> None:
    """The first settle wins; a second one, or `extend` after it, raises; a view shares the settlement."""
    topic = new_topic("once")
    async with open_broker() as broker, broker.subscribe(topic, join("once")) as subscription:
        await publish_bodies(broker, topic, [1])
        (delivery,) = await receive(subscription, 1)
        view = delivery.with_message(delivery.message.replace(body=b"other"))
        assert delivery.start()
        view.ack()
        for again in (delivery.ack, delivery.nak, view.nak, delivery.extend):
            try:
                again()
            except AlreadySettledError:
                continue
            raise AssertionError("settled twice without an AlreadySettledError")
        await stays_quiet(subscription)


@BrokerCheck.of(LEASE)
async def settle_survives_second_cancel(open_broker: OpenBroker) -> None:
    """What was settled stays settled, although the task was cancelled, and once more while it was leaving."""
    topic = new_topic("cancel")
    async with open_broker() as broker:
        await publish_bodies(broker, topic, [1])
        settled = asyncio.Event()

        async def take_and_wait() -> None:
            async with broker.subscribe(topic, join("cancel", lease=LEASE_SECONDS)) as subscription:
                await acknowledge(subscription, 1)
                settled.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(take_and_wait())
        async with asyncio.timeout(PATIENCE):
            await settled.wait()
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with broker.subscribe(topic, join("cancel", lease=LEASE_SECONDS)) as subscription:
            await stays_quiet(subscription, LEASE_SECONDS * 1.5)


@BrokerCheck.of(LEASE)
async def flush_confirms(open_broker: OpenBroker) -> None:
    """After `flush` every outcome so far is with the engine: another member sees none of it, whatever becomes of us."""
    async with two_members(open_broker, "flush", publish=3, lease=LEASE_SECONDS) as (subscription, other):
        await acknowledge(subscription, 3)
        await subscription.flush()
        left = await subscription.backlog()
        assert not left, f"all is acknowledged and flushed, and the backlog is {left}"
        await stays_quiet(other, LEASE_SECONDS * 1.5)


@BrokerCheck.of(LEASE)
async def late_settle_counted(open_broker: OpenBroker) -> None:
    """A settle that comes when somebody else is done with the message does no harm, and is counted."""
    async with two_members(open_broker, "late", publish=1, lease=LEASE_SECONDS) as (holder, other):
        (held,) = await receive(holder, 1)
        assert held.start()
        await acknowledge(other, 1)
        await other.flush()
        held.ack()
        await holder.flush()
        assert holder.late_settles == 1, f"one settle was late, counted are {holder.late_settles}"
        await stays_quiet(other, LEASE_SECONDS * 1.5)


CHECKS: tuple[BrokerCheck, ...] = (
    ack_is_final,
    acks_together_count_each,
    reject_is_final,
    settle_once,
    settle_survives_second_cancel,
    flush_confirms,
    late_settle_counted,
)
