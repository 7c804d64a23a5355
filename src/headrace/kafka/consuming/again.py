"""Again: what waits inside of the process to be handed out once more. Kafka cannot take one record back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heapify, heappop, heappush

from headrace.core.delivery import Delivery

__all__ = ["Again"]


class Again:
    """Deliveries by the time they are due, and then before new ones, lowest offset first."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._waiting: list[tuple[float, int, int, Delivery]] = []
        self._ready: list[tuple[int, int, Delivery]] = []
        self._number = 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._ready)

    def add(self, delivery: Delivery, offset: int, delay: float) -> None:
        """Hand it out again in so many seconds, never earlier."""
        self._number += 1
        if delay <= 0:
            heappush(self._ready, (offset, self._number, delivery))
            self._ring()
        else:
            due = asyncio.get_running_loop().time() + delay
            heappush(self._waiting, (due, offset, self._number, delivery))
            self._ring()  # whoever waits may have to wake sooner

    def due(self, limit: int) -> list[Delivery]:
        """Up to `limit` that may go now."""
        waiting, ready = self._waiting, self._ready
        if waiting:
            now = asyncio.get_running_loop().time()
            while waiting and waiting[0][0] <= now:
                _, offset, number, delivery = heappop(waiting)
                heappush(ready, (offset, number, delivery))
        return [heappop(ready)[2] for _ in range(min(limit, len(ready)))]

    def next_due(self) -> float | None:
        """Loop time of the next one; ``None``: none waits."""
        return self._waiting[0][0] if self._waiting else None

    def drop(self, gone: Callable[[Delivery], bool]) -> None:
        """Forget those that `gone` names."""
        self._waiting = [each for each in self._waiting if not gone(each[3])]
        self._ready = [each for each in self._ready if not gone(each[2])]
        heapify(self._waiting)
        heapify(self._ready)

    def clear(self) -> None:
        """Forget all."""
        self._waiting.clear()
        self._ready.clear()
