"""Connection: what a user of NATS holds. Publish, subscribe, request, flush; its life is in `life.py`.

Every call that sends is plain and goes into `Outgoing`; every message comes out of `Parser` straight to its callback.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from headrace.core.clock import Clock, current_clock
from headrace.core.duration import Duration, seconds_of
from headrace.core.errors import BrokerTimeoutError, ClosedError, ConfigError, UnsupportedError
from headrace.nats.block import VERSION_LINE, status_of
from headrace.nats.errors import NoRespondersError, PayloadTooLargeError
from headrace.nats.inbox import Replies
from headrace.nats.info import ConnectionStats, ServerInfo
from headrace.nats.life import Life
from headrace.nats.listener import Listener
from headrace.nats.messages import Messages, Reply
from headrace.nats.options import ConnectionOptions
from headrace.nats.parser import MessageCallback
from headrace.nats.subjects import check_queue, encode_filter, encode_subject
from headrace.nats.subscription import Subscription

__all__ = ["Connection"]

_BLOCK_FRAME = len(VERSION_LINE) + len(b"\r\n")
_LINES = re.compile(rb"(?:[!-9;-~]+:[^\r\n\0]*\r\n)+\Z")
_NO_RESPONDERS = 503
_NOBODY = b""


class Connection:
    """A connection to one of several NATS servers, kept up until `aclose`. Making one does no I/O; not thread-safe.

    ``send(subject, reply, block, data) -> int`` is `publish` for callers that have checked: `block` are header lines
    (b"": a message without headers), `reply` is b"" for none. It collects the frame, to be written at the end of the
    loop's turn (and whenever 32 KiB are collected), and returns its number (1, 2, …). Away from every server it is
    kept: ``ConnectionLostError`` when the ``reconnect_buffer`` is full, ``ClosedError`` after the end. ``write()``
    writes what is collected now. ``withdraw(number) -> bool`` takes back a frame that no socket has got yet.
    ``replies`` is the inbox for those who ask without a future.
    """

    send: Callable[[bytes, bytes, bytes, bytes], int]
    write: Callable[[], None]
    withdraw: Callable[[int], bool]
    replies: Replies

    def __init__(
        self,
        servers: str | Sequence[str] = "nats://127.0.0.1:4222",
        options: ConnectionOptions = ConnectionOptions(),  # noqa: B008  (frozen)
        *,
        clock: Clock | None = None,
    ) -> None:
        self.options = options
        self.stats = ConnectionStats()
        self._clock = clock
        self._life = Life(servers, options, self.stats)
        self._outgoing = self._life.outgoing
        self.send = self._outgoing.send
        self.write = self._outgoing.write
        self.withdraw = self._outgoing.withdraw
        self.replies = Replies(options.inbox_prefix, self._life.subscriptions, self.stats)

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "connected" if self.connected else "away"
        return f"<Connection {state}>"

    # life

    async def connect(self) -> None:
        """Try every server once. `NoServersError` (a ``ConnectionLostError``) with the reasons of all."""
        await self._life.connect()

    async def aclose(self) -> None:
        """Write what is collected, for a second at most, then close. Idempotent; leaves no task, socket or timer."""
        await self._life.aclose()

    async def drain(self) -> None:
        """Take no more, hand out what is on its way, write everything, close. Bounded by ``drain_timeout``."""
        await self._life.drain()

    async def flush(self, timeout: Duration = 5.0) -> None:
        """Return when the server has got everything sent before. ``BrokerTimeoutError``, ``ConnectionLostError``."""
        await self._life.pings.flush(seconds_of(timeout, "timeout"))

    def add_listener(self, listener: Listener) -> None:
        """Tell `listener` of the life of this connection."""
        self._life.hooks.listeners.append(listener)

    def remove_listener(self, listener: Listener) -> None:
        """Tell it no more; unknown ones are ignored."""
        self._life.hooks.listeners[:] = [each for each in self._life.hooks.listeners if each is not listener]

    # facts

    @property
    def server_info(self) -> ServerInfo:
        """What the server said last; defaults before the first connect."""
        return self._life.info

    @property
    def max_payload(self) -> int:
        """Bytes that a message may have, header block included."""
        return self._life.info.max_payload

    @property
    def connected(self) -> bool:
        """Whether there is a link to a server."""
        return self._outgoing.attached

    @property
    def closed(self) -> bool:
        """Whether it is over for good."""
        return self._life.closed

    @property
    def clock(self) -> Clock:
        """The clock given, else the running loop's."""
        return current_clock(self._clock)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that it was connected on. ``UsageError`` before."""
        return self._life.loop

    @property
    def flushed(self) -> int:
        """Number of the last frame that was handed to a socket."""
        return self._outgoing.flushed

    @property
    def full(self) -> bool:
        """Whether senders should wait for `room`."""
        return self._outgoing.full

    async def room(self) -> None:
        """Wait until it is not full. ``ClosedError``."""
        await self._outgoing.room()

    # messages

    def publish(
        self, subject: str, data: bytes = b"", *, reply: str | None = None, headers: bytes | None = None
    ) -> None:
        r"""Send a message. `headers` are lines ``Name: value\r\n`` (see `block.build`).

        ``ConfigError``: subject, reply or headers are not allowed; `PayloadTooLargeError`; as `send` further.
        """
        block = headers or b""
        target = self._checked(subject, data, block)
        self.send(target, encode_subject(reply) if reply is not None else _NOBODY, block, data)

    def subscribe(self, subject: str, callback: MessageCallback, *, queue: str | None = None) -> Subscription:
        """Call ``callback(subject, reply, header, data)`` for each message, on the loop, from within the parser.

        It must be quick; what it raises goes to ``on_error``. Kept over reconnects. ``ConfigError``, ``ClosedError``.
        """
        if not callable(callback):
            raise ConfigError(f"callback must be callable, got {callback!r}")
        group = check_queue(queue) if queue is not None else b""
        return self._life.subscriptions.add(encode_filter(subject), group, callback)

    def messages(
        self,
        subject: str,
        *,
        queue: str | None = None,
        max_messages: int = 65_536,
        max_bytes: int = 64 * 1024 * 1024,
    ) -> Messages:
        """A subscription as an async context manager and iterator of `CoreMsg`, with a bounded buffer."""

        def subscribe(callback: MessageCallback) -> Subscription:
            return self.subscribe(subject, callback, queue=queue)

        messages = Messages(subscribe, self._life.hooks.report, max_messages=max_messages, max_bytes=max_bytes)
        self._life.readers.add(messages)
        return messages

    async def request(
        self, subject: str, data: bytes = b"", *, timeout: Duration, headers: bytes | None = None
    ) -> Reply:
        """Send a message and wait for its answer.

        `NoRespondersError`: nobody listens. `PermissionsError`: the server forbids it. ``BrokerTimeoutError``.
        ``ConnectionLostError``: the link went after the request was written; it may have been worked on.
        """
        limit = seconds_of(timeout, "timeout")
        waiter: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def answer(_: int, header: bytes, body: bytes) -> None:
            if not waiter.done():
                waiter.set_result(Reply(header, body))

        if self.closed:
            raise ClosedError("the connection was closed before")
        block = headers or b""
        target = self._checked(subject, data, block)
        token, frame = self.replies.ask(answer), 0
        try:
            frame = self.send(target, self.replies.prefix + b"%d" % token, block, data)
            self._life.asking[waiter] = frame, target
            async with asyncio.timeout(limit):
                reply = await waiter
        except TimeoutError:
            raise BrokerTimeoutError(f"no answer on {subject!a} within {limit:g} s") from None
        finally:
            self.replies.forget(token)
            self._life.asking.pop(waiter, None)
            self.withdraw(frame)
        if not reply.data and (status := status_of(reply.header)) and status[0] == _NO_RESPONDERS:
            raise NoRespondersError(f"nobody listens on {subject!a}")
        return reply

    def _checked(self, subject: str, data: bytes, block: bytes) -> bytes:
        """The subject as it is sent; errors see `publish`."""
        target = encode_subject(subject)
        if not isinstance(data, bytes):
            raise ConfigError(f"data must be bytes, got {type(data).__name__}")
        size = len(data)
        if block:
            if not _LINES.match(block):
                raise ConfigError("headers must be lines `Name: value` that each end in CRLF")
            if self.connected and not self.server_info.headers:
                raise UnsupportedError("this server knows no headers")
            size += len(block) + _BLOCK_FRAME
        if size > self.max_payload:
            raise PayloadTooLargeError(
                f"{size} bytes of headers and data are over the {self.max_payload} of the server",
                limit=self.max_payload,
            )
        return target
