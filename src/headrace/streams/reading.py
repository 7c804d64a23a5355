"""What `messages` and `consume` share: pull one, stop, drain, errors, closing (jetstream.md 3.6.6-3.6.9)."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import msgspec

from headrace.core.errors import BrokerError, HeadraceError
from headrace.streams.errors import (
    LeadershipChangedError,
    NoHeartbeatError,
    OrderedConsumerResetError,
    PinLostError,
    ServerShutdownError,
    StreamError,
)
from headrace.streams.fetch import YIELD_EVERY, end
from headrace.streams.msg import Msg
from headrace.streams.session import PullSession

__all__ = ["ErrorHandler", "ReadStats", "Reading", "is_terminal", "pause_after"]

T = TypeVar("T")
ErrorHandler = Callable[[Any, Exception], "Awaitable[None] | None"]
"""``error_handler(context, error)``, plain or async."""

_logger = logging.getLogger("headrace.streams")
_LOG_EVERY = 10.0
_RETRY_WAIT = 1.0
_LONG = 30.0  # one look of a reader without a deadline; it only looks again
_AT_ONCE = (
    NoHeartbeatError,
    LeadershipChangedError,
    ServerShutdownError,
    PinLostError,
    OrderedConsumerResetError,
)


class ReadStats(msgspec.Struct, frozen=True, kw_only=True):
    """What a context has done so far.

    ``expired_in_buffer``: dropped unread because their lease was over; ``late_settles``: settled after it was.
    """

    handed_over: int = 0
    expired_in_buffer: int = 0
    late_settles: int = 0
    errors: int = 0


def is_terminal(error: Exception) -> bool:
    """Whether a reader that meets it is over. A broker's error is not, unless its class says so; all others are."""
    return error.terminal if isinstance(error, StreamError) else not isinstance(error, BrokerError)


def pause_after(error: Exception) -> float:
    """Seconds until a reader that goes on tries again."""
    return 0.0 if isinstance(error, _AT_ONCE) else _RETRY_WAIT


class Reading:
    """One reader: hands messages over one by one until it is stopped, drained, full (``stop_after``) or failed."""

    def __init__(
        self,
        session: PullSession,
        *,
        stop_after: int | None,
        max_deliver: int | None,
        error_handler: ErrorHandler | None,
        buffers: bool = True,
    ) -> None:
        self.session = session
        self.error: Exception | None = None
        self.stopping = False
        self.draining = False
        self.closed = asyncio.Event()
        self.errors = 0
        self.handed = 0
        self.spare: deque[Msg] = deque()
        self._context: object = self
        self._stop_after = stop_after
        self._pause_at = 0
        self._take = session.take
        self._max_deliver = max_deliver
        self._error_handler = error_handler
        self._buffers = buffers
        self._expired = 0
        self._task: asyncio.Task[Any] | None = None
        self._interrupted = False
        self._logged: dict[type[Exception], float] = {}

    def speak_as(self, context: object) -> None:
        """Whom error handlers get."""
        self._context = context

    @property
    def stats(self) -> ReadStats:
        """What it has done so far."""
        return ReadStats(
            handed_over=self.handed,
            expired_in_buffer=self._expired + self.session.expired_in_buffer,
            late_settles=self.session.late_settles,
            errors=self.errors,
        )

    def stop(self) -> None:
        """Hand nothing more over; who waits is woken."""
        if self._buffers and self._max_deliver == 1 and not (self.stopping or self.draining):
            _logger.warning("what is buffered goes back with its only delivery (max_deliver 1) used up: drain instead")
        self.end()
        self._interrupt()

    def end(self) -> None:
        """Hand nothing more over."""
        self.stopping = True
        self._pause_at = 0

    def keep(self, messages: list[Msg]) -> None:
        """Pulled and not asked for yet: the next to come gets them."""
        self.spare.extend(messages)
        self._pause_at = 0

    async def drain(self) -> None:
        """Ask for nothing more; what is buffered is still handed over."""
        if self.draining or self.stopping:
            return
        self.draining = True
        self._interrupt()
        await self.session.stop()

    def ready(self) -> Msg | None:
        """The next message if it is at hand, without a coroutine; ``None``: `take` must be awaited.

        The last of all, and one in so many, always go that way: to end, and to let others run.
        """
        if self.handed >= self._pause_at:
            return None
        msg = self._take()
        if msg is not None:
            self.handed += 1
        return msg

    async def take(self, deadline: float | None) -> Msg | None:
        """The next message; ``None`` once it is over, or the deadline (loop time) has passed. Cancelling loses none.

        Raises what is terminal, and `NoHeartbeatError`; other errors go to the error handler and it goes on.
        """
        loop = asyncio.get_running_loop()
        looked = False
        while not self.stopping:
            if self.spare:
                msg = self.spare.popleft()
                if self._is_current(msg):
                    return self._hand_over(msg)
                continue
            if self.handed and self.handed >= self._pause_at:
                await asyncio.sleep(0)
            self._pause_at = self._next_pause()
            wait = 0.0 if self.draining else _LONG if deadline is None else deadline - loop.time()
            if wait <= 0 and looked and not self.draining:
                return None
            draining = self.draining
            messages = await self._pull(max(wait, 0.0))
            looked = True
            if messages:
                return self._hand_over(messages[0])
            if draining:
                self.end()
        return None

    async def close(self) -> None:
        """Give back what was not handed over, in order, and end the session. Never raises."""
        self.end()
        try:
            await end(self.session, self.spare)
        except HeadraceError as error:
            await self.report(error)
        finally:
            self.closed.set()

    async def report(self, error: Exception) -> None:
        """Give an error to the error handler; without one it is logged, once per kind per 10 s."""
        self.errors += 1
        if self._error_handler is None:
            now = asyncio.get_running_loop().time()
            if now >= self._logged.get(type(error), -_LOG_EVERY) + _LOG_EVERY:
                self._logged[type(error)] = now
                _logger.warning("reading goes on after %s: %s", type(error).__name__, error)
            return
        try:
            result = self._error_handler(self._context, error)
            if inspect.isawaitable(result):
                await result
        except Exception:
            _logger.exception("the error handler failed on %s", type(error).__name__)

    async def _pull(self, wait: float) -> list[Msg] | None:
        try:
            return await self._interruptible(self.session.pull(1, wait))
        except Exception as error:
            await self.report(error)
            if is_terminal(error):
                self.error = error
                self.end()
                raise
            if isinstance(error, NoHeartbeatError):
                raise
            wait = pause_after(error)
            if wait:
                await self._interruptible(asyncio.sleep(wait))
            return None

    async def _interruptible(self, awaitable: Coroutine[Any, Any, T]) -> T | None:
        """Await it; ``None`` where `stop` or `drain` broke in.

        They cancel and this takes the cancellation back (the way of ``asyncio.timeout``): so a pull needs no task of
        its own, and a cancellation from outside still gets through.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  (a coroutine is always run by a task)
        before = task.cancelling()
        self._task = task
        try:
            return await awaitable
        except asyncio.CancelledError:
            if self._interrupted and task.uncancel() <= before:
                return None
            raise
        finally:
            self._task = None
            self._interrupted = False

    def _interrupt(self) -> None:
        if self._task is not None and not self._interrupted and self._task is not asyncio.current_task():
            self._interrupted = True
            self._task.cancel()

    def _next_pause(self) -> int:
        pause = self.handed + YIELD_EVERY - 1
        return pause if self._stop_after is None else min(pause, self._stop_after - 1)

    def _is_current(self, msg: Msg) -> bool:
        """False for a spare whose lease ran out: it comes again, unless this was its last delivery."""
        if self.session.alive(msg) or (
            self._max_deliver is not None and self.session.facts_of(msg)[1] >= self._max_deliver
        ):
            return True
        self._expired += 1
        return False

    def _hand_over(self, msg: Msg) -> Msg:
        self.handed += 1
        if self.handed == self._stop_after:
            self.end()
        return msg
