"""Lane: who hands over next, and how many places are free. Calls enter in the order in which they were made."""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["Lane"]


class Lane:
    """One turn, which calls get one after the other, and ``free`` of ``places`` places.

    Who has the turn may wait for a place, or for room in the driver; nobody overtakes. Without waiting there is
    nothing but the number: `clear` says so.
    """

    __slots__ = ("_closed", "_held", "_line", "_watcher", "free", "places")

    def __init__(self, places: int) -> None:
        self.places = places
        self.free = places
        self._held = False
        self._line: deque[asyncio.Future[None]] = deque()
        self._watcher: asyncio.Future[None] | None = None
        self._closed: Exception | None = None

    @property
    def clear(self) -> bool:
        """Whether a message may go at once, without a turn."""
        return self.free > 0 and not self._held

    @property
    def closed(self) -> bool:
        """Whether nobody gets in any more."""
        return self._closed is not None

    def check(self) -> None:
        """Raise what the lane was closed with."""
        if self._closed is not None:
            raise self._closed

    async def enter(self) -> None:
        """The turn. Cancelled or closed meanwhile: it is not had."""
        self.check()
        if not self._held:
            self._held = True
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(waiter)
        try:
            await waiter
            self.check()
        except BaseException:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.leave()  # handed over in the same turn of the loop: it is the next one's
            raise

    def leave(self) -> None:
        """Hand the turn on."""
        while self._line:
            waiter = self._line.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._held = False

    async def changed(self, timeout: float | None = None) -> None:
        """For who has the turn: until places are given back, or `timeout` seconds are over. Closed: it raises."""
        self.check()
        loop = asyncio.get_running_loop()
        self._watcher = watcher = loop.create_future()
        timer = None if timeout is None else loop.call_later(timeout, self.stir)
        try:
            await watcher
        finally:
            self._watcher = None
            if timer is not None:
                timer.cancel()
        self.check()

    def give(self, count: int) -> None:
        """Give places back."""
        self.free += count
        self.stir()

    def stir(self) -> None:
        """Let who has the turn look again."""
        if self._watcher is not None and not self._watcher.done():
            self._watcher.set_result(None)

    def close(self, error: Exception) -> None:
        """Nobody gets in any more: who waits gets `error`."""
        self._closed = error
        self.stir()
        line, self._line = self._line, deque()
        for waiter in line:
            if not waiter.done():
                waiter.set_exception(error)
