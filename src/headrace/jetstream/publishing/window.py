"""Window: how many async publishes may be outstanding, and who is next."""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["Window"]


class Window:
    """At most ``most`` slots are taken. A freed one goes to the first in line, and stays taken meanwhile."""

    __slots__ = ("_emptied", "line", "most", "taken")

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken = 0
        self.line: deque[asyncio.Future[None]] = deque()
        """Who waits for a slot: nobody overtakes them."""
        self._emptied: list[asyncio.Future[None]] = []

    @property
    def full(self) -> bool:
        """Whether one has to wait for a slot."""
        return self.taken >= self.most or bool(self.line)

    async def take(self) -> None:
        """A slot, in the order of asking. Cancelled: none is taken."""
        if not self.full:
            self.taken += 1
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.line.append(waiter)
        try:
            await waiter
        except BaseException:
            if waiter in self.line:
                self.line.remove(waiter)
            elif not waiter.cancelled():  # handed over and cancelled in the same turn: it is the next one's
                self.free()
            raise

    def free(self) -> None:
        """A slot is not needed any more."""
        while self.line:
            waiter = self.line.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self.taken -= 1
        if not self.taken and self._emptied:
            for waiter in self._emptied:
                if not waiter.done():
                    waiter.set_result(None)

    async def empty(self) -> None:
        """Until no slot is taken."""
        if self.taken:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._emptied.append(waiter)
            try:
                await waiter
            finally:
                self._emptied.remove(waiter)
