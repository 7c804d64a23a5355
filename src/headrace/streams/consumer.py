"""Consumer: a named place in a stream, and the ways to read from it. Engines subclass it and write `session`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime

from headrace.core.duration import Duration, seconds_of
from headrace.core.errors import ConfigError, UnsupportedError
from headrace.streams.consume import ConsumeContext, MessageHandler, MessagesContext
from headrace.streams.errors import NoMessagesError
from headrace.streams.fetch import MessageBatch
from headrace.streams.info import ConsumerInfo
from headrace.streams.msg import Msg
from headrace.streams.options import FetchOptions, PullOptions, check_heartbeat
from headrace.streams.reading import ErrorHandler, Reading
from headrace.streams.session import PullSession, SessionOptions

__all__ = ["Consumer", "session_options"]

UNBOUNDED_BATCH = 1_000_000
"""Messages a pull asks for when only bytes bound it."""
_HEARTBEAT = 5.0
_LONG_FETCH = 10.0
_NO_OPTIONS = FetchOptions()
_NO_PULL_OPTIONS = PullOptions()


def session_options(options: PullOptions) -> SessionOptions:
    """What a session for `messages` or `consume` may hold: it hands over one by one and buffers the rest."""
    bound = options.message_bound
    if options.stop_after is not None:
        bound = min(options.stop_after, bound or options.stop_after)
    threshold = options.threshold_messages
    return SessionOptions(
        max_messages=bound,
        max_bytes=options.max_bytes,
        threshold_messages=_half(bound) if threshold is None else min(threshold, bound or threshold),
        threshold_bytes=_half(options.max_bytes) if options.threshold_bytes is None else options.threshold_bytes,
        expires=seconds_of(options.expires, "expires"),
        heartbeat=options.heartbeat_seconds,
        prefetch=(bound or UNBOUNDED_BATCH) - 1,
        stop_after=options.stop_after,
        group=options.group,
        min_pending=options.min_pending,
        min_ack_pending=options.min_ack_pending,
        priority=options.priority,
    )


def _half(bound: int | None) -> int | None:
    return None if bound is None else (bound + 1) // 2


class Consumer(ABC):
    """A named place in a stream. Two readers of one consumer share its messages."""

    @property
    def name(self) -> str:
        """Its name."""
        return self.cached_info.name

    @property
    def stream(self) -> str:
        """The name of its stream."""
        return self.cached_info.stream

    @property
    @abstractmethod
    def cached_info(self) -> ConsumerInfo:
        """As last seen, without I/O."""

    @abstractmethod
    async def info(self) -> ConsumerInfo:
        """As it is now. ``ConsumerNotFoundError``."""

    @abstractmethod
    def session(self, options: SessionOptions) -> PullSession:
        """A reader of its own, the primitive under all others; no I/O."""

    @abstractmethod
    async def pause(self, until: datetime) -> None:
        """Hand out nothing until then (an aware datetime); pulls stay open."""

    @abstractmethod
    async def resume(self) -> None:
        """Hand out again."""

    async def unpin(self, group: str) -> None:
        """Let another client of the priority group be pinned [S]; ``UnsupportedError`` elsewhere."""
        raise UnsupportedError(f"this engine has no priority groups, got {group!r}")

    async def reset(self, sequence: int | None = None) -> None:
        """Set it back to behind its ack floor, or to stream `sequence` [S]; ``UnsupportedError`` elsewhere."""
        raise UnsupportedError("this engine cannot reset a consumer: delete it and make it anew")

    def fetch(
        self,
        batch: int,
        *,
        max_wait: Duration = 30.0,
        heartbeat: Duration | None = None,
        options: FetchOptions = _NO_OPTIONS,
    ) -> MessageBatch:
        """Up to `batch` messages, or what comes within `max_wait` (> 0); fewer or none is no error.

        ``heartbeat`` (server): default 5 s from 10 s of `max_wait` on, else none; at most half of it.
        """
        _check_positive(batch, "batch")
        return self._fetch(batch, None, max_wait, heartbeat, options)

    def fetch_bytes(
        self,
        max_bytes: int,
        *,
        max_wait: Duration = 30.0,
        heartbeat: Duration | None = None,
        options: FetchOptions = _NO_OPTIONS,
    ) -> MessageBatch:
        """Messages of up to `max_bytes` in all: subject, acknowledgement subject, headers and payload count."""
        _check_positive(max_bytes, "max_bytes")
        return self._fetch(UNBOUNDED_BATCH, max_bytes, max_wait, heartbeat, options)

    def fetch_no_wait(self, batch: int) -> MessageBatch:
        """Up to `batch` messages that are there now."""
        _check_positive(batch, "batch")
        return MessageBatch(self.session, SessionOptions(max_messages=batch, no_wait=True), max_wait=0.0)

    async def next(self, *, max_wait: Duration = 30.0) -> Msg:
        """One message; ``NoMessagesError`` when none comes within `max_wait`."""
        messages = await self.fetch(1, max_wait=max_wait)
        if not messages:
            raise NoMessagesError(f"no message in {seconds_of(max_wait, 'max_wait'):g} s")
        return messages[0]

    def messages(
        self, options: PullOptions = _NO_PULL_OPTIONS, *, error_handler: ErrorHandler | None = None
    ) -> MessagesContext:
        """Messages without end, one after the other; use it as ``async with``, then ``async for``."""
        reading = self._reading(options, error_handler)
        return MessagesContext(reading, error_on_missing_heartbeat=options.error_on_missing_heartbeat)

    def consume(
        self,
        handler: MessageHandler,
        options: PullOptions = _NO_PULL_OPTIONS,
        *,
        error_handler: ErrorHandler | None = None,
    ) -> ConsumeContext:
        """Run `handler` on each message, one at a time, from now on; it settles them itself.

        A handler that raises with the message unsettled: nak with 1, 2, 4 … 30 s (``RejectError``: term,
        ``RetryLaterError``: its delay), the error handler gets ``HandlerError``, and it goes on.
        """
        if not callable(handler):
            raise ConfigError(f"handler must be callable, got {handler!r}")
        return ConsumeContext(self._reading(options, error_handler), handler)

    def _fetch(
        self,
        batch: int,
        max_bytes: int | None,
        max_wait: Duration,
        heartbeat: Duration | None,
        options: FetchOptions,
    ) -> MessageBatch:
        wait = seconds_of(max_wait, "max_wait")
        if wait == 0:
            raise ConfigError(f"max_wait must be > 0, got {max_wait!r}: use fetch_no_wait")
        check_heartbeat(heartbeat, wait)
        default = _HEARTBEAT if wait >= _LONG_FETCH else None
        session = SessionOptions(
            max_messages=batch,
            max_bytes=max_bytes,
            expires=wait,
            heartbeat=default if heartbeat is None else seconds_of(heartbeat, "heartbeat"),
            group=options.group,
            min_pending=options.min_pending,
            min_ack_pending=options.min_ack_pending,
            priority=options.priority,
        )
        return MessageBatch(self.session, session, max_wait=wait)

    def _reading(self, options: PullOptions, error_handler: ErrorHandler | None) -> Reading:
        if error_handler is not None and not callable(error_handler):
            raise ConfigError(f"error_handler must be callable, got {error_handler!r}")
        return Reading(
            self.session(session_options(options)),
            stop_after=options.stop_after,
            max_deliver=self._max_deliver(),
            error_handler=error_handler,
            buffers=options.message_bound != 1,
        )

    def _max_deliver(self) -> int | None:
        return self.cached_info.config.max_deliver


def _check_positive(value: int, field: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{field} must be an integer >= 1, got {value!r}")
