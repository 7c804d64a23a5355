"""Api: one JSON request and its answer below the prefix. Errors by their number, nonsense as `StreamError`."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import contextmanager
from typing import Any

import msgspec

from headrace.core.duration import seconds_of
from headrace.core.errors import BrokerTimeoutError, ClosedError, ConfigError, ConnectionLostError
from headrace.jetstream.options import JetStreamOptions
from headrace.jetstream.protocol.values import encoded, optional, record, required, section, text, whole
from headrace.nats.block import status_of
from headrace.nats.connection import Connection
from headrace.nats.errors import PermissionsError, error_for_waiter
from headrace.nats.messages import Reply
from headrace.nats.subjects import encode_filter
from headrace.streams.errors import (
    ConsumerNotFoundError,
    JetStreamNotEnabledError,
    StreamError,
    StreamNotFoundError,
    error_for,
)

__all__ = ["Api"]

logger = logging.getLogger(__name__)
_NO_RESPONDERS = 503
_MOST_PAGES = 10_000
"""Above 2.5 million entries: a server that goes on has no end."""


class Api:
    """The JetStream API over one connection. All subjects are given without the prefix (``STREAM.INFO.S``)."""

    def __init__(self, connection: Connection, options: JetStreamOptions) -> None:
        self.connection = connection
        self.options = options
        self.prefix = options.prefix
        self.timeout = seconds_of(options.timeout, "timeout")
        self.waiting: dict[asyncio.Future[Any], tuple[int, bytes]] = {}
        """Whoever waits for an answer, number and subject of its frame: fails when the connection goes behind it."""
        self._closed = False
        connection.add_listener(self)

    def subject(self, tail: str) -> bytes:
        """Prefix and `tail`, checked. Wildcards are allowed: the filter of a consumer stands in its subject."""
        return encode_filter(f"{self.prefix}.{tail}")

    async def ask(
        self, subject: str, body: dict[str, Any] | None = None, *, timeout: float | None = None
    ) -> dict[str, Any]:
        """The answer, a JSON object. An error answer raises the class of its ``err_code``.

        ``JetStreamNotEnabledError``: nobody answers on this subject. `StreamError`: the answer is nonsense.
        """
        reply = await self.ask_raw(subject, b"" if body is None else encoded(subject, body), timeout=timeout)
        answer = _decoded(subject, reply.data)
        if answer.get("error") is not None:
            raise _error(subject, answer)
        return answer

    async def is_missing(self, subject: str) -> bool:
        """Whether this request for an info is answered by: there is no such thing. Refused otherwise: not known."""
        try:
            await self.ask(subject)
        except (StreamNotFoundError, ConsumerNotFoundError):
            return True
        except (StreamError, PermissionsError):
            return False
        return False

    async def ask_raw(self, subject: str, body: bytes = b"", *, timeout: float | None = None) -> Reply:
        """The answer as it came. ``JetStreamNotEnabledError``, ``BrokerTimeoutError``, ``ConnectionLostError``."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def answered(_: int, header: bytes, data: bytes) -> None:
            if not future.done():
                future.set_result(Reply(header, data))

        replies = self.connection.replies
        token = replies.ask(answered)
        limit = self.timeout if timeout is None else timeout
        try:
            with self.sent(subject, replies.prefix + b"%d" % token, body, future):
                async with asyncio.timeout(limit):
                    reply = await future
        except TimeoutError:
            raise BrokerTimeoutError(f"{self.prefix}.{subject}: no answer within {limit:g} s") from None
        finally:
            replies.forget(token)
        self.received(subject, reply)
        return reply

    @contextmanager
    def sent(self, subject: str, inbox: bytes, body: bytes, future: asyncio.Future[Any]) -> Generator[None]:
        """Send a request whose answers come to `inbox`; inside the block `future` fails with the connection."""
        self.check_open()
        if len(body) > self.connection.max_payload:
            raise ConfigError(f"{subject}: {len(body)} bytes are more than max_payload ({self.connection.max_payload})")
        wire = self.subject(subject)
        trace = self.options.trace
        if trace is not None and trace.request_sent is not None:
            _tell(trace.request_sent, f"{self.prefix}.{subject}", body)
        frame = self.connection.send(wire, inbox, b"", body)
        self.waiting[future] = frame, wire
        try:
            yield
        finally:
            del self.waiting[future]
            self.connection.withdraw(frame)
            if future.done() and not future.cancelled():
                future.exception()  # seen: whoever was cancelled meanwhile does not ask for it

    def received(self, subject: str, reply: Reply) -> None:
        """Tell the trace of an answer. ``JetStreamNotEnabledError`` if it says that nobody listens."""
        trace = self.options.trace
        if trace is not None and trace.response_received is not None:
            _tell(trace.response_received, f"{self.prefix}.{subject}", reply.data, reply.header)
        status = status_of(reply.header) if reply.header and not reply.data else None
        if status is not None and status[0] == _NO_RESPONDERS:
            raise JetStreamNotEnabledError(f"nobody answers on {self.prefix}.{subject}", code=_NO_RESPONDERS)

    async def pages(
        self, subject: str, body: dict[str, Any], count: Callable[[dict[str, Any]], int]
    ) -> AsyncGenerator[dict[str, Any]]:
        """The answers to one request, page by page; `count` says how many entries one has.

        Ends with the last page, and with an empty one before it: a server may count what it cannot show.
        """
        offset = 0
        for _ in range(_MOST_PAGES):
            answer = await self.ask(subject, {**body, "offset": offset})
            size, total = count(answer), required(answer, "total", whole, subject)
            yield answer
            offset += size
            if not size or offset >= total:
                return
        raise StreamError(f"{subject}: the answer has no end, {offset} entries so far")

    def check_open(self) -> None:
        """``ClosedError`` after `close`."""
        if self._closed:
            raise ClosedError("this JetStream was closed")

    def close(self) -> None:
        """Every request under way ends with ``ClosedError``. The connection stays as it is."""
        if not self._closed:
            self._closed = True
            self.connection.remove_listener(self)
            self._fail(lambda: ClosedError("the JetStream was closed before the answer came"))

    def lost(self, error: BaseException) -> None:
        """The connection is away: what was sent gets no answer any more; the rest goes to the next server."""
        reason = f"the connection went before the answer came: {error}"
        self._fail(lambda: ConnectionLostError(reason), upto=self.connection.flushed)

    def restored(self) -> None:
        """Nothing is asked again: whoever asked knows."""

    def closed(self, error: BaseException | None) -> None:
        """The connection is closed for good."""
        self._fail(lambda: ClosedError("the connection was closed before the answer came"))

    def forbidden(self, error: PermissionsError) -> None:
        """The server does not take requests on this subject."""
        self._fail(lambda: error_for_waiter(error), upto=self.connection.flushed, only=error.subject)

    def _fail(self, error: Callable[[], BaseException], *, upto: int = sys.maxsize, only: bytes | None = None) -> None:
        for future, (frame, subject) in self.waiting.items():
            if not future.done() and frame <= upto and only in {None, subject}:
                future.set_exception(error())


def _tell(callback: Callable[..., None], *args: object) -> None:
    try:
        callback(*args)
    except Exception:
        logger.exception("a client trace failed")


def _decoded(subject: str, data: bytes) -> dict[str, Any]:
    try:
        return record(msgspec.json.decode(data), subject)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StreamError(f"{subject}: the answer is no JSON: {error}") from error


def _error(subject: str, answer: dict[str, Any]) -> StreamError:
    given = section(answer, "error", subject)
    where = f"{subject}: error"
    return error_for(
        optional(given, "code", whole, None, where),
        optional(given, "err_code", whole, None, where),
        optional(given, "description", text, None, where),
    )
