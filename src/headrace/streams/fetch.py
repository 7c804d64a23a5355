"""One fetch: so many messages, or what comes in time. Written once over `PullSession`, for both engines."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator
from dataclasses import replace
from enum import Enum
from types import TracebackType
from typing import Any, Self

from headrace.core.delivery import RELEASE
from headrace.core.errors import HeadraceError
from headrace.streams.errors import MaxBytesExceededError
from headrace.streams.msg import Msg
from headrace.streams.session import PullSession, SessionOptions

__all__ = ["FetchReason", "MessageBatch", "SessionOpener", "end", "wire_size"]

SessionOpener = Callable[[SessionOptions], PullSession]
YIELD_EVERY = 256
"""A reader of buffered messages lets others run at least this often."""
_GUARD = 1.0
_GUARD_OF_NO_WAIT = 5.0
"""So long after its time a fetch ends by itself: a server at ``max_ack_pending`` parks a pull without an answer."""
_HEADER_FRAME = len(b"NATS/1.0\r\n\r\n")


class FetchReason(Enum):
    """Why a batch ended."""

    FILLED = "filled"
    EXPIRED = "expired"
    NO_MESSAGES = "no_messages"
    MAX_BYTES = "max_bytes"
    ERROR = "error"


def wire_size(msg: Msg) -> int:
    """Bytes a server counts against ``max_bytes``: subject, acknowledgement subject, headers, payload."""
    headers = len(msg.block) + _HEADER_FRAME if msg.block else 0
    return len(msg.subject.encode()) + len(msg.reply.encode()) + headers + len(msg.data)


async def end(session: PullSession, unseen: deque[Msg]) -> None:
    """Give back in order what nobody saw, and close. Stopped first, or it would come straight into our own open pull.

    Told to the session that was pulled, which need not be the one of the message (ordered).
    """
    try:
        await session.stop()
    finally:
        while unseen:
            msg = unseen.popleft()
            if session.alive(msg):  # else others may have it by now
                session.settle(msg, RELEASE)
                msg.outcome = RELEASE
        await session.aclose()


class MessageBatch:
    """The messages of one fetch: await it for a list, or iterate over them as they come.

    The request leaves when it is first awaited or iterated. Ending with fewer messages, or none, is no error. An error
    after some messages: awaiting gives them and sets ``error``; iterating gives them, then raises. Leaving
    ``async with`` early gives back, in order, what was not handed out.
    """

    def __init__(self, opener: SessionOpener, options: SessionOptions, *, max_wait: float) -> None:
        self.reason: FetchReason | None = None
        """Why it ended; ``None`` while it runs."""
        self.error: Exception | None = None
        """What ended it, where that was an error."""
        self._opener = opener
        self._options = replace(options, once=True)
        self._max_wait = max_wait
        self._session: PullSession | None = None
        self._deadline = 0.0
        self._ready: deque[Msg] = deque()
        self._missing = options.max_messages or 0
        self._room = options.max_bytes
        self._handed = 0
        self._raised = False

    def __await__(self) -> Generator[Any, None, list[Msg]]:
        """All its messages."""
        return self._collect().__await__()

    def __aiter__(self) -> AsyncIterator[Msg]:
        return self

    async def __anext__(self) -> Msg:
        if self._handed % YIELD_EVERY == YIELD_EVERY - 1:
            await asyncio.sleep(0)
        if self._ready or await self._more():
            self._handed += 1
            return self._ready.popleft()
        if self.error is not None and not self._raised:
            self._raised = True
            raise self.error
        raise StopAsyncIteration

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Give back what was not handed out, in order, and end. Twice is fine."""
        if self.reason is None:
            self.reason = FetchReason.EXPIRED
        if self._session is not None:
            await end(self._session, self._ready)

    async def _collect(self) -> list[Msg]:
        try:
            while await self._more():
                pass
        except BaseException:
            await self.aclose()
            raise
        messages = list(self._ready)
        self._ready.clear()
        self._handed += len(messages)
        if self.error is not None and not self._handed:
            raise self.error
        return messages

    async def _more(self) -> bool:
        """Wait for more; False at the end, once the session is closed."""
        if self.reason is not None:
            return False
        session = self._open()
        no_wait = self._options.no_wait
        wait = 0.0 if no_wait else max(0.0, self._deadline - asyncio.get_running_loop().time())
        try:
            async with asyncio.timeout(wait + (_GUARD_OF_NO_WAIT if no_wait else _GUARD)):
                got = await session.pull(self._missing, wait, max_bytes=self._room)
        except MaxBytesExceededError:
            return await self._finish(FetchReason.MAX_BYTES)
        except HeadraceError as error:
            self.error = error
            return await self._finish(FetchReason.ERROR)
        except TimeoutError:
            got = []  # our own guard; what was on its way is given back by the session
        if not got:
            return await self._finish(FetchReason.NO_MESSAGES if no_wait else FetchReason.EXPIRED)
        self._ready.extend(got)
        self._missing -= len(got)
        if self._room is not None:
            self._room -= sum(map(wire_size, got))
        if self._missing <= 0:
            await self._finish(FetchReason.FILLED)
        elif self._room is not None and self._room <= 0:
            await self._finish(FetchReason.MAX_BYTES)
        return True

    def _open(self) -> PullSession:
        if self._session is None:
            self._session = self._opener(self._options)
            self._deadline = asyncio.get_running_loop().time() + self._max_wait
        return self._session

    async def _finish(self, reason: FetchReason) -> bool:
        self.reason = reason
        if self._session is not None:
            await self._session.aclose()
        return False
