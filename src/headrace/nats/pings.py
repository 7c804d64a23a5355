"""Pings: is the server still there, and has it got everything up to here? One queue for both: answers come in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from headrace.core.errors import BrokerTimeoutError
from headrace.nats.errors import StaleConnectionError, error_for_waiter
from headrace.nats.outgoing import PING, Outgoing

__all__ = ["Pings"]


class Pings:
    """`stale` is called when more than `most` pings in a row, one per `interval` seconds, have no answer."""

    def __init__(
        self, outgoing: Outgoing, stale: Callable[[StaleConnectionError], None], *, interval: float, most: int
    ) -> None:
        self._outgoing = outgoing
        self._stale = stale
        self._interval = interval
        self._most = most
        self._grace = min(1.0, interval / 4)
        self._unanswered = 0
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: deque[asyncio.Future[None] | None] = deque()  # one for each PING on its way; None: our own

    def start(self) -> None:
        """There is a link."""
        self._unanswered = 0
        self._timer = asyncio.get_running_loop().call_later(self._interval, self._tick)

    def stop(self, error: BaseException) -> None:
        """The link is gone: nobody will answer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, deque()
        for waiter in waiting:
            if waiter is not None and not waiter.done():
                waiter.set_exception(error_for_waiter(error))
                waiter.exception()  # its flush may have been cancelled in this very turn

    def pong(self) -> None:
        """An answer came."""
        self._unanswered = 0
        if self._waiting:
            waiter = self._waiting.popleft()
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    async def flush(self, timeout: float) -> None:
        """A PING behind everything sent, and its answer. ``BrokerTimeoutError``."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        frame = self._outgoing.control(PING)
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout(timeout):
                await waiter
        except TimeoutError:
            raise BrokerTimeoutError(f"the server did not answer a flush within {timeout:g} s") from None
        finally:
            if self._outgoing.withdraw(frame):  # never sent: no answer will come for it
                self._waiting.remove(waiter)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        self._unanswered += 1
        if self._unanswered > self._most:
            self._timer = loop.call_later(self._grace, self._judge)
            return
        self._outgoing.control(PING)
        self._waiting.append(None)
        self._timer = loop.call_later(self._interval, self._tick)

    def _judge(self) -> None:
        """After a turn of the loop more: if that was blocked, the answers lie in the socket and are read first."""
        if self._unanswered > self._most:
            self._stale(StaleConnectionError(f"{self._most} pings, {self._interval:g} s apart, were not answered"))
        else:
            self._tick()
