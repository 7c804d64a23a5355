"""Publisher: sends, keeps the window, and lets nothing wait for ever (jetstream.md 3.4).

What is outstanding stands in the connection's table of replies (`futures.Flight`). The publisher listens to the
connection: behind a lost link it fails what may be stored and cannot be told apart, and writes again what can.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from functools import cached_property

from headrace.core.duration import seconds_of
from headrace.core.errors import (
    BrokerError,
    BrokerTimeoutError,
    ClosedError,
    ConnectionLostError,
    Fault,
    PublishError,
    PublishTimeoutError,
)
from headrace.core.headers import HeadersLike
from headrace.jetstream.protocol.api import Api
from headrace.jetstream.publishing.answers import not_sent
from headrace.jetstream.publishing.atomic import publish_atomic
from headrace.jetstream.publishing.frames import Frames
from headrace.jetstream.publishing.futures import Flight, Pending
from headrace.jetstream.publishing.many import Many
from headrace.jetstream.publishing.window import Window
from headrace.nats.errors import PermissionsError
from headrace.streams.config import StreamMessage, StreamPublishOptions
from headrace.streams.errors import TooManyPendingError
from headrace.streams.info import PubAck
from headrace.streams.names import WireBlock

__all__ = ["Publisher"]

logger = logging.getLogger(__name__)
_GRAIN = 0.005
"""The timer runs at most so often: a thousand deadlines in one millisecond are one look."""

_BLOCKED = 0.1
"""Seconds by which the timer may be late. Beyond, the loop was blocked: what it did not send or read gets more time."""


class Publisher:
    """Publishes messages to streams, and answers."""

    def __init__(self, api: Api) -> None:
        options = api.options
        self.connection = api.connection
        self.timeout = seconds_of(options.timeout, "timeout")
        self.most = options.max_pending
        self._stall = self.timeout if options.stall_wait is None else seconds_of(options.stall_wait, "stall_wait")
        self._on_error = options.on_publish_error
        self._replies = self.connection.replies
        self._ask, self._prefix, self._send = self._replies.ask, self._replies.prefix, self.connection.send
        self._frames = Frames(self.connection)
        self._window = Window(options.max_pending)
        self._due = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._granted = False
        self._closed = False
        self.connection.add_listener(self)

    async def publish(
        self,
        subject: str,
        data: bytes = b"",
        *,
        headers: HeadersLike | WireBlock | None = None,
        msg_id: str | None = None,
        options: StreamPublishOptions | None = None,
    ) -> PubAck:
        """Store one message; returns once a stream has acknowledged it.

        Cancelling it only stops the waiting. An acknowledgement of a server with default settings is no proof against
        a power cut: a single server syncs its files every two minutes.
        """
        pending = self._pending(subject, data, headers, msg_id, options, None)
        if self.connection.full:
            await self.room(self._timeout_of(options))
            pending.due = self.now() + self._timeout_of(options)
        self._launch(pending)
        return await pending

    async def publish_msg(self, message: StreamMessage, *, options: StreamPublishOptions | None = None) -> PubAck:
        """Like `publish`."""
        return await self.publish(
            message.subject, message.data, headers=message.headers, msg_id=message.msg_id, options=options
        )

    async def publish_many(self, messages: Sequence[StreamMessage]) -> list[PubAck | PublishError]:
        """One result per message, in order. Misuse raises before anything is sent."""
        self.check_open()
        messages = list(messages)
        return await Many(self, messages, *self._frames.parts(messages)).results_of_all()

    async def publish_async(
        self,
        subject: str,
        data: bytes = b"",
        *,
        headers: HeadersLike | WireBlock | None = None,
        msg_id: str | None = None,
        options: StreamPublishOptions | None = None,
    ) -> Pending:
        """Send without waiting for the answer; suspends only while the window or the connection is full."""
        window = self._window
        pending = self._pending(subject, data, headers, msg_id, options, window)
        if window.line or window.taken >= window.most or self.connection.full:
            await self._take_slot(options)
            pending.due = self.now() + self._timeout_of(options)
        else:
            window.taken += 1
        self._launch(pending)
        return pending

    async def publish_msg_async(
        self, message: StreamMessage, *, options: StreamPublishOptions | None = None
    ) -> Pending:
        """Like `publish_async`."""
        return await self.publish_async(
            message.subject, message.data, headers=message.headers, msg_id=message.msg_id, options=options
        )

    @property
    def publish_async_pending(self) -> int:
        """Answers of `publish_async` that are outstanding."""
        return self._window.taken

    async def publish_async_complete(self, timeout: float | None = None) -> None:
        """Until none is outstanding. ``BrokerTimeoutError``; failures stay in their futures."""
        self.check_open()
        try:
            async with asyncio.timeout(timeout):
                await self._window.empty()
        except TimeoutError as error:
            raise BrokerTimeoutError(f"{self._window.taken} publishes unanswered after {timeout:g} s") from error

    async def publish_atomic(self, messages: Sequence[StreamMessage]) -> PubAck:
        """All or nothing; see `atomic.publish_atomic`."""
        self.check_open()
        messages = list(messages)
        parts, results = self._frames.parts(messages)
        for result in results:
            if isinstance(result, PublishError):
                raise result
        return await publish_atomic(self, messages, parts)

    def close(self) -> None:
        """Every answer that is outstanding is a ``PublishInterruptedError``. Twice is fine."""
        if not self._closed:
            self._closed = True
            self.connection.remove_listener(self)
            self._end(None)

    # -- what flights ask ---------------------------------------------------------------------------------------------

    def check_open(self) -> None:
        """``ClosedError`` once it, or its connection, is closed."""
        if self._closed or self.connection.closed:
            raise ClosedError("the streams were closed")

    def now(self) -> float:
        """The loop's time."""
        return self._time()

    def watch(self, due: float) -> None:
        """The one timer looks at all flights then, unless it does so before."""
        if due < self._due:
            if self._timer is not None:
                self._timer.cancel()
            self._due = due
            self._timer = self.connection.loop.call_at(due, self._look)

    async def room(self, timeout: float) -> None:
        """Until the connection takes more. ``PublishTimeoutError``: nothing was sent."""
        try:
            async with asyncio.timeout(timeout):
                await self.connection.room()
        except TimeoutError as error:
            text = f"not sent: the connection took nothing more for {timeout:g} s"
            raise PublishTimeoutError(text, fault=Fault.UNAVAILABLE) from error

    def failed(self, message: StreamMessage, error: PublishError) -> None:
        """Tell of the failure of an async publish, once."""
        if self._on_error is None:
            logger.error("publish to %s failed: %s", message.subject, error)
            return
        try:
            self._on_error(message, error)
        except Exception:
            logger.exception("on_publish_error failed for %s", message.subject)

    # -- what the connection tells ------------------------------------------------------------------------------------

    def lost(self, error: BaseException) -> None:
        """Fail what may be stored, but for what can be written again; keep what has not left."""
        flushed = self.connection.flushed
        for token, flight in self._flights():
            flight.lost(token, flushed, error)

    def restored(self) -> None:
        """Write again, in the old order, before anything new."""
        self._frames.ask_most()
        for token, flight in self._flights():
            flight.restored(token)

    def closed(self, error: BaseException | None) -> None:
        """No answer will come any more."""
        self._end(error or ConnectionLostError("the connection was closed"))

    def forbidden(self, error: PermissionsError) -> None:
        """Fail what was sent on the subject: there will be no answer."""
        flushed = self.connection.flushed
        for token, flight in self._flights():
            flight.forbidden(token, flushed, error)

    # -- inside -------------------------------------------------------------------------------------------------------

    @cached_property
    def _time(self) -> Callable[[], float]:
        """The loop's, kept: it is asked for each message."""
        return self.connection.loop.time

    def _pending(  # noqa: PLR0917  (called for each message: keywords cost)
        self,
        subject: str,
        data: bytes,
        headers: HeadersLike | WireBlock | None,
        msg_id: str | None,
        options: StreamPublishOptions | None,
        window: Window | None,
    ) -> Pending:
        frames = self._frames
        wire = frames.subjects.get(subject) if type(subject) is str else None
        plain = headers is None and msg_id is None and options is None
        if plain and wire is not None and type(data) is bytes and len(data) <= frames.most:
            block = b""  # the commonest kind needs no further look
        else:
            wire, block = frames.part(subject, data, headers, msg_id, options)
        due = self._time() + (self.timeout if options is None else self._timeout_of(options))
        return Pending(self, due, subject, data, headers, msg_id, options, wire, block, window)

    def _timeout_of(self, options: StreamPublishOptions | None) -> float:
        given = None if options is None else options.timeout
        return self.timeout if given is None else seconds_of(given, "timeout")

    def _launch(self, pending: Pending) -> None:
        """Hand it to the connection; what is not taken gives its slot back."""
        token = self._ask(pending)
        try:
            if self._closed:
                self.check_open()
            pending.frame = self._send(pending.wire, b"%b%d" % (self._prefix, token), pending.block, pending.data)
        except BaseException as error:
            self._replies.forget(token)
            if pending.window is not None:
                pending.window.free()
            if isinstance(error, BrokerError):
                raise not_sent(pending.msg_id, error) from error
            raise
        if pending.due < self._due:
            self.watch(pending.due)

    async def _take_slot(self, options: StreamPublishOptions | None) -> None:
        """Wait for the window, then for the connection. ``TooManyPendingError``: nothing was sent, no slot is taken."""
        given = None if options is None else options.stall_wait
        wait = self._stall if given is None else seconds_of(given, "stall_wait")
        window = self._window
        if wait <= 0:
            raise self._stalled(wait)
        try:
            async with asyncio.timeout(wait):
                await window.take()
                try:
                    if self.connection.full:
                        await self.connection.room()
                except BaseException:
                    window.free()
                    raise
        except TimeoutError as error:
            raise self._stalled(wait) from error

    def _stalled(self, wait: float) -> TooManyPendingError:
        window = self._window
        full = f"{window.taken} publishes are outstanding, at most {window.most}"
        if not window.full:
            full = "the connection takes nothing more at the moment"
        return TooManyPendingError(f"{full}; no room in {wait:g} s")

    def _flights(self) -> list[tuple[int, Flight]]:
        """Ours, in the order of sending."""
        waiting = self._replies.waiting.items()
        return [(token, each) for token, each in waiting if isinstance(each, Flight) and each.desk is self]

    def _look(self) -> None:
        """The timer: end or wake what is due, and come again for the next."""
        now = self.now()
        behind = now - self._due
        self._timer, self._due = None, math.inf
        if behind > _BLOCKED and not self._granted:
            self._granted = True
            self.watch(now + min(behind, self.timeout))
            return
        self._granted = False
        for token, flight in self._flights():
            if flight.due <= now:
                flight.overdue(token)
        due = min((flight.due for _, flight in self._flights()), default=math.inf)
        if due < math.inf:
            self.watch(max(due, now + _GRAIN))

    def _end(self, cause: BaseException | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._due = None, math.inf
        for token, flight in self._flights():
            flight.interrupt(token, cause)
