"""A wrong engine per broker check: the real one behind a wrapper that breaks one promise."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from headrace.core.broker import PublishOptions, Receipt, SubscribeOptions, TopicOptions
from headrace.core.delivery import ACK, Ack, Delivery, Nak, Reject, Release
from headrace.core.errors import ClosedError, ConfigError, Fault, PublishError
from headrace.core.headers import Headers
from headrace.testing.conformance.broker_group import HANDLED_BEFORE
from headrace.testing.conformance.tools import LEASE_SECONDS


class WrongBroker:
    """Passes everything on; a mutant overrides the one method that it gets wrong."""

    def __init__(self, broker, opened=1):
        self.inner = broker
        self.opened = opened
        self.subscription = getattr(self, "Subscription", WrongSubscription)

    @property
    def capabilities(self):
        return self.inner.capabilities

    @property
    def clock(self):
        return self.inner.clock

    async def declare(self, topic, options=TopicOptions()):
        await self.inner.declare(topic, options)

    async def publish(self, message, options=None):
        return await self.inner.publish(message, options)

    async def publish_batch(self, messages):
        return await self.inner.publish_batch(messages)

    def options(self, options):
        return options

    @asynccontextmanager
    async def subscribe(self, topics, options=SubscribeOptions()):
        async with self.inner.subscribe(topics, self.options(options)) as subscription:
            wrong = self.subscription(subscription)
            try:
                yield wrong
            finally:
                await wrong.leaving()

    async def aclose(self):
        await self.inner.aclose()


class WrongSubscription:
    """Hands out deliveries of its own, so that every settlement comes through here."""

    def __init__(self, subscription):
        self.inner = subscription
        self.group = subscription.group
        self.lease = subscription.lease

    @property
    def late_settles(self):
        return self.inner.late_settles

    def wrap(self, delivery):
        return self.kind(delivery.message, delivery.attempt, delivery.order_key, self, delivery)

    kind = Delivery

    async def pull(self, limit, wait):
        return [self.wrap(delivery) for delivery in await self.inner.pull(limit, wait)]

    def start(self, delivery):
        return self.inner.start(delivery.token)

    def settle(self, delivery, outcome):
        delivery.token.settle(outcome)

    def settle_acked(self, deliveries):
        for delivery in deliveries:
            self.settle(delivery, ACK)

    def extend(self, delivery):
        delivery.token.extend()

    def position(self, delivery):
        return self.inner.position(delivery.token)

    def attributes(self, delivery):
        return self.inner.attributes(delivery.token)

    def keep(self):
        self.inner.keep()

    async def stop(self):
        await self.inner.stop()

    async def flush(self):
        await self.inner.flush()

    async def backlog(self):
        return await self.inner.backlog()

    async def leaving(self):
        pass


# --- publishing ----------------------------------------------------------------------------------


class DropsAHeader(WrongBroker):
    async def publish_batch(self, messages):
        return await self.inner.publish_batch(
            [message.replace(headers=Headers(list(message.headers.items())[1:])) for message in messages]
        )


class DeclaresOnce(WrongBroker):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.declared = set()

    async def declare(self, topic, options=TopicOptions()):
        if topic in self.declared:
            raise ConfigError(f"{topic} exists")
        self.declared.add(topic)
        await self.inner.declare(topic, options)


class ShiftsResults(WrongBroker):
    async def publish_batch(self, messages):
        results = await self.inner.publish_batch(messages)
        return results[1:] + results[:1]


class BatchFailsTogether(WrongBroker):
    async def publish_batch(self, messages):
        results = await self.inner.publish_batch(messages)
        failed = [result for result in results if isinstance(result, PublishError)]
        return [failed[0]] * len(results) if failed else results


class OvertakesInBatch(WrongBroker):
    async def publish_batch(self, messages):
        return [result for message in messages for result in await self.inner.publish_batch([message])]


class StoresTwice(WrongBroker):
    async def publish(self, message, options=None):
        return await self.inner.publish(
            message.replace(id=f"{message.id}-{id(object())}-{self.clock.now_ns()}"), options
        )


class IgnoresExpect(WrongBroker):
    async def publish(self, message, options=None):
        return await self.inner.publish(message, options and replace(options, expect=None))


class IgnoresDelay(WrongBroker):
    async def publish(self, message, options=None):
        return await self.inner.publish(message, options and replace(options, delay=None))


class IgnoresOptions(WrongBroker):
    async def publish(self, message, options=None):
        return await self.inner.publish(message, PublishOptions())


class ForgetsTheLimit(WrongBroker):
    async def publish(self, message, options=None):
        try:
            return await self.inner.publish(message, options)
        except PublishError:
            raise PublishError("too large", fault=Fault.REJECTED) from None


class LosesWhenBusy(WrongBroker):
    busy = 0

    async def publish(self, message, options=None):
        self.busy += 1
        try:
            if self.busy > 3:
                return Receipt()
            return await self.inner.publish(message, options)
        finally:
            self.busy -= 1


class PublishesWhenClosed(WrongBroker):
    async def publish(self, message, options=None):
        try:
            return await self.inner.publish(message, options)
        except ClosedError:
            return Receipt()


class HangsWhenClosing(WrongBroker):
    closing = False

    async def publish(self, message, options=None):
        receipt = await self.inner.publish(message, options)
        if self.closing:
            await asyncio.Event().wait()
        return receipt

    async def aclose(self):
        self.closing = True
        await self.inner.aclose()


# --- delivering ----------------------------------------------------------------------------------


class Reverses(WrongSubscription):
    async def pull(self, limit, wait):
        return (await super().pull(limit, wait))[::-1]


class AttemptStuck(WrongSubscription):
    def wrap(self, delivery):
        delivery.attempt = 1
        return super().wrap(delivery)


class RedeliversOther(WrongSubscription):
    def wrap(self, delivery):
        if delivery.attempt > 1:
            delivery.message = delivery.message.replace(headers=Headers(list(delivery.message.headers.items())[:1]))
        return super().wrap(delivery)


class LosesNaks(WrongSubscription):
    def settle(self, delivery, outcome):
        super().settle(delivery, ACK if isinstance(outcome, Nak) else outcome)


class IgnoresNakDelay(WrongSubscription):
    def settle(self, delivery, outcome):
        super().settle(delivery, Nak() if isinstance(outcome, Nak) else outcome)


class ForgetsReleases(WrongSubscription):
    def settle(self, delivery, outcome):
        if not isinstance(outcome, Release):
            super().settle(delivery, outcome)


class LeaseNeverEnds(WrongBroker):
    def options(self, options):
        return replace(options, lease=3600.0)


class ExtendDoesNothing(WrongSubscription):
    def extend(self, delivery):
        pass


class AlwaysStarts(WrongSubscription):
    def start(self, delivery):
        return True


class RedeliversAcked(WrongSubscription):
    def settle(self, delivery, outcome):
        super().settle(delivery, Nak(LEASE_SECONDS / 2) if isinstance(outcome, Ack) else outcome)


class KeepsTheLastAck(WrongSubscription):
    def settle_acked(self, deliveries):
        super().settle_acked(deliveries[:-1])


class RedeliversRejected(WrongSubscription):
    def settle(self, delivery, outcome):
        super().settle(delivery, Nak(LEASE_SECONDS / 2) if isinstance(outcome, Reject) else outcome)


class TwiceSettled(Delivery):
    def settle(self, outcome):
        self.owner.settle(self, outcome)


class SettlesTwice(WrongSubscription):
    kind = TwiceSettled

    def settle(self, delivery, outcome):
        delivery.token.settlement.outcome = None
        super().settle(delivery, outcome)


class SettlesWhenLeaving(WrongSubscription):
    """Keeps outcomes to itself until it is left, and may be cancelled there."""

    def __init__(self, subscription):
        super().__init__(subscription)
        self.kept = []

    def settle(self, delivery, outcome):
        self.kept.append((delivery, outcome))

    async def leaving(self):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for delivery, outcome in self.kept:
            delivery.token.settle(outcome)


class FlushReturnsEarly(SettlesWhenLeaving):
    async def flush(self):
        pass

    async def backlog(self):
        return 0


class LateSettleRaises(WrongSubscription):
    def settle(self, delivery, outcome):
        if not self.inner.start(delivery.token):
            raise ClosedError("too late")
        super().settle(delivery, outcome)


class PullsOneTooMany(WrongSubscription):
    async def pull(self, limit, wait):
        return await super().pull(limit + 1, wait)


class PullLosesWhenCancelled(WrongSubscription):
    async def pull(self, limit, wait):
        got = await super().pull(limit, wait)
        for _ in range(5):
            await asyncio.sleep(0)
        return got


class NoBound(WrongBroker):
    def options(self, options):
        return replace(options, max_in_flight=None)


class TakesMoreAhead(WrongBroker):
    def options(self, options):
        return replace(options, prefetch=None)


# --- groups, workers -----------------------------------------------------------------------------


class EverybodySeesAll(WrongBroker):
    members = 0

    def options(self, options):
        self.members += 1
        return replace(options, group=f"{options.group}-{self.members}")


class OneGroupForAll(WrongBroker):
    def options(self, options):
        return replace(options, group="the-one")


class LeavesToTheLease(WrongSubscription):
    def wrap(self, delivery):
        self.inner.start(delivery)
        return super().wrap(delivery)


class RestartsAtTheBeginning(WrongBroker):
    def options(self, options):
        return replace(options, group=f"{options.group}-{self.opened}")


class IgnoresStart(WrongBroker):
    def options(self, options):
        return replace(options, start=None)


class StartsAnewWithStart(WrongBroker):
    def options(self, options):
        return (
            options if options.start is None else replace(options, group=f"{options.group}-{options.start.kind.value}")
        )


class BroadcastStays(WrongBroker):
    def options(self, options):
        return options if options.group else replace(options, group="everybody")


class ForgetsTheKey(WrongSubscription):
    def wrap(self, delivery):
        delivery.order_key = None
        return super().wrap(delivery)


class JudgesOnArrival(WrongSubscription):
    async def pull(self, limit, wait):
        got = await super().pull(limit, wait)
        for delivery in got:
            if delivery.attempt > 5:
                delivery.reject("too often")
        return [delivery for delivery in got if delivery.outcome is None]


class LetterKeepsTheId(WrongBroker):
    async def publish(self, message, options=None):
        original = message.headers.get("Headrace-Dead-Id")
        return await self.inner.publish(message.replace(id=original) if original else message, options)

    async def publish_batch(self, messages):
        return [await self.publish(message) for message in messages]


class LeaksContext(WrongSubscription):
    def start(self, delivery):
        HANDLED_BEFORE.set("somebody else's")
        return super().start(delivery)


class LosesOneInAThousand(WrongSubscription):
    async def pull(self, limit, wait):
        got = await super().pull(limit, wait)
        for delivery in got:
            if int(delivery.message.body) % 1_000 == 999:
                with suppress(Exception):
                    delivery.start()
                    delivery.ack()
        return [delivery for delivery in got if delivery.outcome is None]


def with_subscription(kind):
    """A broker whose subscriptions are of this kind."""
    return type(kind.__name__, (WrongBroker,), {"Subscription": kind})


MUTANTS = {
    "round_trip_exact": DropsAHeader,
    "declare_idempotent": DeclaresOnce,
    "batch_one_result_per_item": ShiftsResults,
    "batch_item_fails_alone": BatchFailsTogether,
    "batch_key_order_kept": OvertakesInBatch,
    "dedup_window": StoresTwice,
    "expect_conflict": IgnoresExpect,
    "delay_honoured_or_refused": IgnoresDelay,
    "too_large_named": ForgetsTheLimit,
    "unsupported_is_loud": IgnoresOptions,
    "concurrent_publishers": LosesWhenBusy,
    "close_twice_then_closed": PublishesWhenClosed,
    "close_resolves_open_publishes": HangsWhenClosing,
    "order_per_key": with_subscription(Reverses),
    "attempt_counts_up": with_subscription(AttemptStuck),
    "redelivery_identical": with_subscription(RedeliversOther),
    "nak_zero_returns_at_once": with_subscription(LosesNaks),
    "nak_delay_never_early": with_subscription(IgnoresNakDelay),
    "release_returns_at_once": with_subscription(ForgetsReleases),
    "lease_expires": LeaseNeverEnds,
    "extend_keeps": with_subscription(ExtendDoesNothing),
    "start_false_after_lease": with_subscription(AlwaysStarts),
    "ack_is_final": with_subscription(RedeliversAcked),
    "acks_together_count_each": with_subscription(KeepsTheLastAck),
    "reject_is_final": with_subscription(RedeliversRejected),
    "settle_once": with_subscription(SettlesTwice),
    "settle_survives_second_cancel": with_subscription(SettlesWhenLeaving),
    "flush_confirms": with_subscription(FlushReturnsEarly),
    "late_settle_counted": with_subscription(LateSettleRaises),
    "pull_limits": with_subscription(PullsOneTooMany),
    "cancelled_pull_loses_nothing": with_subscription(PullLosesWhenCancelled),
    "max_in_flight_holds": NoBound,
    "prefetch_leaves_the_rest": TakesMoreAhead,
    "each_message_to_one_member": EverybodySeesAll,
    "two_members_share": EverybodySeesAll,
    "third_group_sees_all": OneGroupForAll,
    "member_leaves_hands_over": with_subscription(LeavesToTheLease),
    "group_resumes_after_reopen": RestartsAtTheBeginning,
    "start_positions": IgnoresStart,
    "existing_group_ignores_start": StartsAnewWithStart,
    "broadcast_leaves_nothing": BroadcastStays,
    "key_never_twice_at_once": with_subscription(ForgetsTheKey),
    "hand_back_never_exhausts": with_subscription(JudgesOnArrival),
    "dead_letter_into_dedup_stored": LetterKeepsTheId,
    "contextvar_not_seen_by_next": with_subscription(LeaksContext),
    "worker_end_to_end": with_subscription(LosesOneInAThousand),
}
