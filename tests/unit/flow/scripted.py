"""A test engine at the seam: lists in memory, every outcome written down. It keeps the contract of core/broker.py."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta

from headrace.core.broker import (
    Capabilities,
    Groups,
    KeyOrder,
    PublishOptions,
    Receipt,
    StartKind,
    SubscribeOptions,
    TopicOptions,
)
from headrace.core.clock import Clock, current_clock
from headrace.core.delivery import ACK, Delivery, Nak, Outcome, Position, Release
from headrace.core.duration import seconds_or_none
from headrace.core.errors import PublishError
from headrace.core.message import Message, check_message

CAPABILITIES = Capabilities(
    key_order=KeyOrder.MEMBER,
    ordered=True,
    counts=True,
    groups=Groups.MANY,
    broadcast=True,
    delayed_nak=True,
    extend=True,
    replay=frozenset(StartKind),
    wildcards=True,
    batch_key_order=True,
    max_delay=timedelta(seconds=900),
)


class ScriptedBroker:
    """Messages by topic; one group per topic is enough here."""

    def __init__(self, **capabilities: object) -> None:
        self.capabilities = dataclasses.replace(CAPABILITIES, **capabilities)  # type: ignore[arg-type]
        self.clock: Clock = current_clock()
        self.stored: dict[str, list[Message]] = defaultdict(list)
        self.declared: list[str] = []
        self.options: list[PublishOptions | None] = []
        self.refuse: list[Exception] = []
        self.lost: set[str] = set()
        self.subscriptions: list[ScriptedSubscription] = []

    async def declare(self, topic: str, options: TopicOptions = TopicOptions()) -> None:
        self.declared.append(topic)

    async def publish(self, message: Message, options: PublishOptions | None = None) -> Receipt:
        check_message(message)
        if self.refuse:
            raise self.refuse.pop(0)
        self.options.append(options)
        stored = self.stored[message.topic]
        stored.append(message)
        for subscription in self.subscriptions:
            if message.topic in subscription.topics:
                subscription.offer(message)
        return Receipt(position=Position(message.topic, len(stored)))

    async def publish_batch(self, messages: Sequence[Message]) -> list[Receipt | PublishError]:
        results: list[Receipt | PublishError] = []
        for message in messages:
            try:
                results.append(await self.publish(message))
            except PublishError as error:
                results.append(error)
        return results

    def subscribe(
        self, topics: str | Sequence[str], options: SubscribeOptions = SubscribeOptions()
    ) -> AbstractAsyncContextManager[ScriptedSubscription]:
        return self._open((topics,) if isinstance(topics, str) else tuple(topics), options)

    @asynccontextmanager
    async def _open(self, topics: Sequence[str], options: SubscribeOptions) -> AsyncIterator[ScriptedSubscription]:
        subscription = ScriptedSubscription(topics, options, self.lost)
        self.subscriptions.append(subscription)
        for topic in topics:
            for message in self.stored[topic]:
                subscription.offer(message)
        yield subscription
        subscription.closed = True

    async def aclose(self) -> None:
        pass


class ScriptedSubscription:
    """One member; what it hands back comes to it again."""

    def __init__(self, topics: Sequence[str], options: SubscribeOptions, lost: set[str]) -> None:
        self.topics = topics
        self.options = options
        self.group = options.group
        self.lease: float | None = seconds_or_none(options.lease, "lease") or 30.0
        self.late_settles = 0
        self.available: list[Delivery] = []
        self.counts: dict[int, int] = {}
        self.settled: list[tuple[str, Outcome]] = []
        self.lost = lost
        self.log: list[str] = []
        self.pulls: list[int] = []
        self.keeps = 0
        self.delayed = 0
        self.out = 0
        self.most_out = 0
        self.most_pull = 10_000
        self.fail_pull: BaseException | None = None
        self.stopped = self.closed = False
        self._more = asyncio.Event()
        self._next = 0

    def offer(self, message: Message) -> None:
        self._next += 1
        self.counts[self._next] = 1
        self.available.append(Delivery(message, 1, message.key, self, self._next))
        self._more.set()

    async def pull(self, limit: int, wait: float) -> Sequence[Delivery]:
        self.pulls.append(limit)
        try:
            async with asyncio.timeout(wait):
                while (not self.available or self.stopped) and self.fail_pull is None:
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            return []
        if self.fail_pull is not None:
            raise self.fail_pull
        count = min(limit, self.most_pull)
        taken, self.available = self.available[:count], self.available[count:]
        self.out += len(taken)
        self.most_out = max(self.out, self.most_out)
        return taken

    def fail(self, error: BaseException) -> None:
        self.fail_pull = error
        self._more.set()

    def start(self, delivery: Delivery) -> bool:
        if delivery.message.id in self.lost:
            self.out -= 1
            return False
        return True

    def settle(self, delivery: Delivery, outcome: Outcome) -> None:
        self.out -= 1
        self.settled.append((delivery.message.body.decode("latin-1"), outcome))
        self.log.append(f"{type(outcome).__name__} {delivery.message.body.decode('latin-1')}")
        if isinstance(outcome, Nak):
            self.delayed += 1
            asyncio.get_running_loop().call_later(outcome.delay, self._again, delivery)
        elif isinstance(outcome, Release) and not self.stopped:
            self._again(delivery)

    def settle_acked(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self.settle(delivery, ACK)

    def _again(self, delivery: Delivery) -> None:
        self.delayed = max(0, self.delayed - 1)
        self.counts[delivery.token] += 1
        again = Delivery(delivery.message, self.counts[delivery.token], delivery.order_key, self, delivery.token)
        self.available.append(again)
        self._more.set()

    def extend(self, delivery: Delivery) -> None:
        pass

    def position(self, delivery: Delivery) -> Position | None:
        return Position(delivery.message.topic, delivery.token)

    def attributes(self, delivery: Delivery) -> Mapping[str, str | int]:
        return {"scripted.token": delivery.token}

    def keep(self) -> None:
        self.keeps += 1

    async def stop(self) -> None:
        self.stopped = True
        self.log.append("stop")

    async def flush(self) -> None:
        self.log.append("flush")

    async def backlog(self) -> int | None:
        return len(self.available) + self.delayed
