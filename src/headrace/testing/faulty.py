"""Faulty: a broker around another one that fails the n-th call of each method it is told to."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from headrace.core.broker import (
    Broker,
    Capabilities,
    PublishOptions,
    Receipt,
    SubscribeOptions,
    Subscription,
    TopicOptions,
)
from headrace.core.clock import Clock
from headrace.core.delivery import Delivery, Outcome, Position
from headrace.core.errors import BrokerError, Fault, PublishError
from headrace.core.message import Message

__all__ = ["Faulty"]

_NO_OPTIONS = SubscribeOptions()
_NO_TOPIC_OPTIONS = TopicOptions()
_Check = Callable[[str], None]


class Faulty:
    """Passes everything on to `broker`, but for the calls that are to fail.

    ``faulty.fail("publish", 2)``: the second call of ``publish`` from now on raises ``PublishError`` (``UNAVAILABLE``),
    of any other method ``BrokerError``, or what is given. Methods: declare, publish, publish_batch, subscribe, pull,
    flush, stop, backlog, keep, aclose. ``calls`` counts them all.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._faults: dict[str, dict[int, BaseException]] = {}
        self.calls: Counter[str] = Counter()

    def fail(self, method: str, *calls: int, error: BaseException | None = None) -> None:
        """Fail these calls of `method`, counted from 1 and from now."""
        if error is None and method.startswith("publish"):
            error = PublishError("told to fail", fault=Fault.UNAVAILABLE)
        planned = self._faults.setdefault(method, {})
        for call in calls:
            planned[self.calls[method] + call] = error or BrokerError("told to fail")

    def _check(self, method: str) -> None:
        self.calls[method] += 1
        error = self._faults.get(method, {}).pop(self.calls[method], None)
        if error is not None:
            raise error

    @property
    def capabilities(self) -> Capabilities:
        """Those of the broker."""
        return self._broker.capabilities

    @property
    def clock(self) -> Clock:
        """That of the broker."""
        return self._broker.clock

    async def declare(self, topic: str, options: TopicOptions = _NO_TOPIC_OPTIONS) -> None:
        """Declare a topic."""
        self._check("declare")
        await self._broker.declare(topic, options)

    async def publish(self, message: Message, options: PublishOptions | None = None) -> Receipt:
        """Publish a message."""
        self._check("publish")
        return await self._broker.publish(message, options)

    async def publish_batch(self, messages: Sequence[Message]) -> list[Receipt | PublishError]:
        """Publish a batch; told to fail, each item fails."""
        try:
            self._check("publish_batch")
        except PublishError as error:
            return [error for _ in messages]
        return await self._broker.publish_batch(messages)

    def subscribe(
        self, topics: str | Sequence[str], options: SubscribeOptions = _NO_OPTIONS
    ) -> AbstractAsyncContextManager[Subscription]:
        """Open a subscription whose calls are counted and fail as told."""
        return self._subscribe(topics, options)

    @asynccontextmanager
    async def _subscribe(
        self, topics: str | Sequence[str], options: SubscribeOptions
    ) -> AsyncGenerator[Subscription, None]:
        self._check("subscribe")
        async with self._broker.subscribe(topics, options) as subscription:
            yield _FaultySubscription(subscription, self._check)

    async def aclose(self) -> None:
        """Close the broker."""
        self._check("aclose")
        await self._broker.aclose()


class _FaultySubscription:
    """A subscription around another one. Deliveries stay the inner one's, so settling goes straight there."""

    def __init__(self, subscription: Subscription, check: _Check) -> None:
        self._subscription = subscription
        self._check = check
        self.group = subscription.group
        self.lease = subscription.lease
        self.late_settles = 0  # the inner one counts: outcomes go straight there

    async def pull(self, limit: int, wait: float) -> Sequence[Delivery]:
        self._check("pull")
        return await self._subscription.pull(limit, wait)

    def start(self, delivery: Delivery) -> bool:
        return self._subscription.start(delivery)

    def settle(self, delivery: Delivery, outcome: Outcome) -> None:
        self._subscription.settle(delivery, outcome)

    def settle_acked(self, deliveries: Sequence[Delivery]) -> None:
        self._subscription.settle_acked(deliveries)

    def extend(self, delivery: Delivery) -> None:
        self._subscription.extend(delivery)

    def position(self, delivery: Delivery) -> Position | None:
        return self._subscription.position(delivery)

    def attributes(self, delivery: Delivery) -> Mapping[str, str | int]:
        return self._subscription.attributes(delivery)

    def keep(self) -> None:
        self._check("keep")
        self._subscription.keep()

    async def stop(self) -> None:
        self._check("stop")
        await self._subscription.stop()

    async def flush(self) -> None:
        self._check("flush")
        await self._subscription.flush()

    async def backlog(self) -> int | None:
        self._check("backlog")
        return await self._subscription.backlog()
