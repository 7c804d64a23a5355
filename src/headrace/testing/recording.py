"""RecordingHandler: a handler that remembers what it was given and does what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from headrace.core.delivery import Delivery
from headrace.core.message import Message

__all__ = ["RecordingHandler"]


class RecordingHandler:
    """Remembers each run, in order; the n-th (from 1) fails if `fail` says so.

    ``fail(delivery, run)`` gives an exception to raise, or ``None``. ``then`` is awaited inside each run, for what the
    test wants to happen there.
    """

    def __init__(
        self,
        *,
        fail: Callable[[Delivery, int], BaseException | None] | None = None,
        then: Callable[[Delivery], Awaitable[None]] | None = None,
    ) -> None:
        self._fail = fail
        self._then = then
        self._more = asyncio.Event()
        self.deliveries: list[Delivery] = []
        """One per run, begun ones included."""

    async def __call__(self, delivery: Delivery) -> None:
        """Take one delivery."""
        self.deliveries.append(delivery)
        run = len(self.deliveries)
        self._more.set()
        if self._then is not None:
            await self._then(delivery)
        error = self._fail(delivery, run) if self._fail is not None else None
        if error is not None:
            raise error

    @property
    def messages(self) -> list[Message]:
        """The message of each run."""
        return [delivery.message for delivery in self.deliveries]

    @property
    def bodies(self) -> list[bytes]:
        """The body of each run."""
        return [delivery.message.body for delivery in self.deliveries]

    async def wait_for(self, runs: int) -> None:
        """Return once so many runs have begun."""
        while len(self.deliveries) < runs:
            self._more.clear()
            await self._more.wait()
