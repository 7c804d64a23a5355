"""MessageWriter: one message written piece by piece, published when its block ends well."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from headrace.core.broker import Receipt
from headrace.core.errors import ClosedError
from headrace.core.headers import Headers
from headrace.core.message import Message

__all__ = ["Buffer", "MessageWriter"]

Buffer = bytes | bytearray | memoryview


class MessageWriter:
    """Collects the body of one message. Single use: after `close` or `discard` everything raises ``ClosedError``.

    As ``async with``: published on a clean exit, discarded when the block raises. Nothing written = an empty message.
    A `close` that fails leaves `message` set: send that again, under the same id.
    """

    def __init__(
        self,
        build: Callable[[bytes, Headers], Message],
        publish: Callable[[Message], Awaitable[Receipt]],
        headers: Headers,
    ) -> None:
        self._build = build
        self._publish = publish
        self._headers = headers
        self._parts = bytearray()
        self._closed = False
        self._message: Message | None = None
        self._receipt: Receipt | None = None

    @property
    def headers(self) -> Headers:
        """The headers so far."""
        return self._headers

    @property
    def message(self) -> Message | None:
        """What `close` sent, or tried to; ``None`` before."""
        return self._message

    @property
    def receipt(self) -> Receipt | None:
        """What the broker answered; ``None`` before."""
        return self._receipt

    @property
    def closed(self) -> bool:
        """Whether it was closed or discarded."""
        return self._closed

    def write(self, data: Buffer) -> int:
        """Append a copy of `data`; gives its length in bytes."""
        self._check_open()
        before = len(self._parts)
        self._parts += data
        return len(self._parts) - before

    def set_header(self, name: str, value: str | bytes) -> None:
        """Replace all values of a header by this one."""
        self._check_open()
        self._headers = self._headers.set(name, value)

    def add_header(self, name: str, value: str | bytes) -> None:
        """Add a value to a header."""
        self._check_open()
        self._headers = self._headers.add(name, value)

    async def close(self) -> Receipt:
        """Publish what was written."""
        self._check_open()
        self._closed = True
        self._message = self._build(bytes(self._parts), self._headers)
        self._parts = bytearray()
        self._receipt = await self._publish(self._message)
        return self._receipt

    def discard(self) -> None:
        """Throw away what was written. Twice, or after `close`, it does nothing."""
        self._closed = True
        self._parts = bytearray()

    async def __aenter__(self) -> Self:
        self._check_open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.discard()
        elif not self._closed:
            await self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the writer was closed or discarded before")
