"""The smallest possible engine: a list, handed out. What is measured over it is the worker's alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from headrace.core.broker import Capabilities, Groups, KeyOrder, Receipt, SubscribeOptions
from headrace.core.clock import SystemClock
from headrace.core.delivery import ACK, Delivery, Outcome, Position
from headrace.core.message import Message


class ListBroker:
    """A pre-filled list and no engine: what is measured is ours alone."""

    capabilities = Capabilities(
        key_order=KeyOrder.MEMBER, groups=Groups.MANY, broadcast=True, delayed_nak=True, max_delay=timedelta.max
    )
    clock = SystemClock()

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = messages
        self.subscription: ListSubscription | None = None

    async def declare(self, topic: str, options: Any = None) -> None:
        pass

    async def publish(self, message: Message, options: Any = None) -> Receipt:
        raise NotImplementedError

    async def publish_batch(self, messages: Sequence[Message]) -> list[Any]:
        raise NotImplementedError

    def subscribe(self, topics: Any, options: SubscribeOptions = SubscribeOptions()) -> Any:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[ListSubscription]:
        self.subscription = ListSubscription(self.messages)
        yield self.subscription

    async def aclose(self) -> None:
        pass


class ListSubscription:
    """Hands out a list; the smallest possible engine."""

    group = "g"
    lease = 30.0
    late_settles = 0

    def __init__(self, messages: Sequence[Message]) -> None:
        self.deliveries = [Delivery(message, 1, message.key, self) for message in messages]
        self.next = 0
        self.left = len(messages)
        self.done = asyncio.get_running_loop().create_future()

    async def pull(self, limit: int, wait: float) -> Sequence[Delivery]:
        taken = self.deliveries[self.next : self.next + limit]
        self.next += len(taken)
        if not taken:
            await asyncio.sleep(wait)
        return taken

    def settle(self, delivery: Delivery, outcome: Outcome) -> None:
        self.left -= 1
        if not self.left and not self.done.done():
            self.done.set_result(None)

    def settle_acked(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self.settle(delivery, ACK)

    def start(self, delivery: Delivery) -> bool:
        return True

    def extend(self, delivery: Delivery) -> None:
        pass

    def position(self, delivery: Delivery) -> Position | None:
        return None

    def attributes(self, delivery: Delivery) -> Mapping[str, str | int]:
        return {}

    def keep(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def flush(self) -> None:
        pass

    async def backlog(self) -> int | None:
        return 0
