"""Deduplicate: a message that was processed within a window is acknowledged without running. Receive side only."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Protocol

from headrace.core.clock import current_clock
from headrace.core.delivery import Delivery, Nak, Release
from headrace.core.duration import Duration, seconds_of
from headrace.core.errors import ConfigError
from headrace.core.message import Message

__all__ = ["DedupStore", "Deduplicate", "MemoryStore"]


class DedupStore(Protocol):
    """Where processed ids are kept; it keeps the window itself."""

    async def seen(self, id: Hashable) -> bool:
        """Whether it was recorded within the window."""
        ...

    async def record(self, id: Hashable) -> None:
        """It was processed now."""
        ...


def _topic_and_id(message: Message) -> Hashable:
    return message.topic, message.id


class MemoryStore:
    """Ids of this process: at most `max_ids`, each for `window` seconds; the oldest go first."""

    def __init__(self, window: float, max_ids: int) -> None:
        self._window = window
        self._max_ids = max_ids
        self._ids: OrderedDict[Hashable, float] = OrderedDict()

    async def seen(self, id: Hashable) -> bool:
        """Whether it was recorded within the window."""
        until = self._ids.get(id)
        return until is not None and until > current_clock().monotonic()

    async def record(self, id: Hashable) -> None:
        """It was processed now."""
        now = current_clock().monotonic()
        self._ids[id] = now + self._window
        self._ids.move_to_end(id)
        while self._ids and (len(self._ids) > self._max_ids or next(iter(self._ids.values())) <= now):
            self._ids.popitem(last=False)


class Deduplicate:
    """Skip what was processed before: an id is recorded only after success.

    ``window``: how long an id is remembered (120 s); ``max_ids``: how many (100,000); ``key``: what makes two messages
    the same (topic and id); ``store``: where ids are kept (default: in this process; it then keeps its own window).
    One that runs right now is waited for: success = skip, failure = run.
    """

    def __init__(
        self,
        window: Duration = 120.0,
        max_ids: int = 100_000,
        key: Callable[[Message], Hashable] = _topic_and_id,
        store: DedupStore | None = None,
    ) -> None:
        if isinstance(max_ids, bool) or not isinstance(max_ids, int) or max_ids < 1:
            raise ConfigError(f"max_ids must be an integer >= 1, got {max_ids!r}")
        self._key = key
        self._store: DedupStore = store or MemoryStore(seconds_of(window, "window"), max_ids)
        self._running: dict[Hashable, asyncio.Future[None]] = {}

    async def __call__(self, delivery: Delivery, call_next: Callable[[Delivery], Awaitable[None]]) -> None:
        """Run it once."""
        key = self._key(delivery.message)
        while (running := self._running.get(key)) is not None:
            await asyncio.shield(running)  # its own end must not depend on who waits for it
        # Taken before the first await: two of one key never get past here together.
        mine = self._running[key] = asyncio.get_running_loop().create_future()
        try:
            if not await self._store.seen(key):
                await call_next(delivery)
                if not isinstance(delivery.outcome, Nak | Release):  # handed back by the handler itself: not processed
                    await self._store.record(key)
        finally:
            del self._running[key]
            mine.set_result(None)
