"""Bell: the one who waits for a session, and what wakes it."""

from __future__ import annotations

import asyncio

__all__ = ["Bell"]


class Bell:
    """One task waits at a time; anybody rings. Ringing while nobody waits does nothing."""

    def __init__(self) -> None:
        self._waiter: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Wake the one who waits."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self, seconds: float | None) -> None:
        """Until it rings, or so many seconds have passed."""
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        timer = None if seconds is None else loop.call_later(max(0.0, seconds), self.ring)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()
