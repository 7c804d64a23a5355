"""Messages: a subscription as an iterator. What is not taken in time is dropped, counted and reported, never kept."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Self

import msgspec

from headrace.core.errors import ConfigError, UsageError
from headrace.nats.errors import SlowConsumerError
from headrace.nats.parser import MessageCallback
from headrace.nats.subscription import Subscription

__all__ = ["CoreMsg", "Messages", "Reply"]


class CoreMsg(msgspec.Struct, frozen=True, gc=False):
    """A message as it came: ``reply`` and ``header`` are b"" where there are none."""

    subject: bytes
    reply: bytes
    header: bytes
    data: bytes


class Reply(msgspec.Struct, frozen=True, gc=False):
    """The answer to a request; ``header`` is the raw block, b"" if there is none."""

    header: bytes
    data: bytes


class Messages:
    """A subscription to be iterated over: ``async with connection.messages(subject) as messages: async for …``.

    Subscribed on entering, unsubscribed on leaving; the loop ends when the connection is closed. ``dropped``: messages
    that came while `max_messages` or `max_bytes` were waiting already.
    """

    def __init__(
        self,
        subscribe: Callable[[MessageCallback], Subscription],
        report: Callable[[BaseException], None],
        *,
        max_messages: int,
        max_bytes: int,
    ) -> None:
        for name, value in (("max_messages", max_messages), ("max_bytes", max_bytes)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} must be an integer >= 1, got {value!r}")
        self.dropped = 0
        self._subscribe = subscribe
        self._report = report
        self._room = max_messages
        self._bytes_left = max_bytes
        self._buffer: deque[CoreMsg] = deque()
        self._slow = False  # reported, and not caught up since
        self._over = False
        self._waiter: asyncio.Future[None] | None = None
        self._subscription: Subscription | None = None

    async def __aenter__(self) -> Self:
        if self._subscription is not None:
            raise UsageError("these messages are being read already")
        self._subscription = self._subscribe(self._take)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._subscription is not None:
            self._subscription.unsubscribe()
        self.end()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> CoreMsg:
        if self._subscription is None:
            raise UsageError("messages are read inside of `async with`")
        while not self._buffer:
            if self._over:
                raise StopAsyncIteration
            if self._waiter is not None:
                raise UsageError("these messages are being read already")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        message = self._buffer.popleft()
        self._room += 1
        self._bytes_left += len(message.header) + len(message.data)
        self._slow = self._slow and bool(self._buffer)
        return message

    def end(self) -> None:
        """Nothing more will come; what is here can still be read."""
        self._over = True
        self._wake()

    def _take(self, subject: bytes, reply: bytes, header: bytes, data: bytes) -> None:
        size = len(header) + len(data)
        if not self._room or size > self._bytes_left:
            self.dropped += 1
            if not self._slow:
                self._slow = True
                self._report(SlowConsumerError(f"messages on {subject[:256]!a} come faster than they are taken"))
            return
        self._room -= 1
        self._bytes_left -= size
        self._buffer.append(CoreMsg(subject, reply, header, data))
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
