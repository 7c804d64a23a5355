"""Outgoing: what is to be written, numbered, and written once per turn of the loop; while there is no link, kept.

What a long turn collects leaves in pieces of `_PIECE`: the server works on them while the rest is being made.
`send` is the hot path of every publish and every ack: one formatted frame, one dictionary entry, one number.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from headrace.core.errors import ClosedError, ConnectionLostError
from headrace.nats.info import ConnectionStats

__all__ = ["PING", "Outgoing"]

PING = b"PING\r\n"
_MESSAGES = (b"PUB ", b"HPUB ")
_HEADER_FRAME = len(b"NATS/1.0\r\n\r\n")
_PIECE = 32 * 1024


class Outgoing:
    """The frames that no socket has got yet, by number.

    ``flushed``: number of the last frame that was handed to a socket. ``size``: bytes collected.
    """

    def __init__(self, stats: ConnectionStats, *, write_limit: int, away_limit: int) -> None:
        self.flushed = 0
        self.size = 0
        self._stats = stats
        self._number = 0
        self._frames: dict[int, bytes] = {}
        self._controls = 0  # how many of the frames are no message
        self._write_limit = write_limit
        self._away_limit = away_limit
        self._bound = away_limit  # bytes beyond which a frame is refused; with a link: all that is collected is written
        self._transport: asyncio.Transport | None = None
        self._soon: Callable[[Callable[[], None]], object] = _never
        self._paused = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    def send(self, subject: bytes, reply: bytes, block: bytes, data: bytes) -> int:
        """Collect a message, unchecked; the number of its frame. See `Connection.send`."""
        if block:
            head = len(block) + _HEADER_FRAME
            whole = head + len(data)
            if reply:
                parts = (subject, reply, head, whole, block, data)
                frame = b"HPUB %b %b %d %d\r\nNATS/1.0\r\n%b\r\n%b\r\n" % parts
            else:
                frame = b"HPUB %b %d %d\r\nNATS/1.0\r\n%b\r\n%b\r\n" % (subject, head, whole, block, data)
        elif reply:
            frame = b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(data), data)
        else:
            frame = b"PUB %b %d\r\n%b\r\n" % (subject, len(data), data)
        before = self.size
        self.size = size = before + len(frame)
        if size > self._bound:
            return self._send_beyond(frame)
        number = self._number = self._number + 1
        self._frames[number] = frame
        if not before and self._transport is not None:
            self._soon(self.write)
        return number

    def control(self, frame: bytes) -> int:
        """Collect a frame that is no message, as if there were room; its number."""
        if self._bound < 0:
            raise self._refusal()
        before = self.size
        self.size += len(frame)
        self._number += 1
        self._frames[self._number] = frame
        self._controls += 1
        if not before and self._transport is not None:
            self._soon(self.write)
        return self._number

    def withdraw(self, number: int) -> bool:
        """Take out a frame that no socket has got."""
        frame = self._frames.pop(number, None)
        if frame is None:
            return False
        self.size -= len(frame)
        if not frame.startswith(_MESSAGES):
            self._controls -= 1
        self._wake()
        return True

    def write(self) -> None:
        """Hand over all that is collected, unless the transport asked to wait."""
        if self._frames and not self._paused and self._transport is not None:
            self._hand_over(self._transport, b"".join(self._frames.values()))

    @property
    def attached(self) -> bool:
        """Whether there is a link."""
        return self._transport is not None

    def attach(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> int:
        """There is a link. Nothing is written before `start` gets the number returned."""
        transport.set_write_buffer_limits(high=self._write_limit)
        self._transport, self._soon = transport, loop.call_soon
        self._bound = sys.maxsize  # until `start`: what goes first is not known before
        return self._number

    def start(self, mark: int) -> None:
        """Write everything: what was sent after `mark`, which is what listeners sent on `restored`, goes first."""
        if self._transport is not None:
            self._bound = _PIECE
        if self._frames and self._transport is not None:
            late = [frame for number, frame in self._frames.items() if number > mark]
            early = [frame for number, frame in self._frames.items() if number <= mark]
            self._hand_over(self._transport, b"".join(late + early))

    def detach(self) -> None:
        """The link is gone. Messages stay; SUB, UNSUB and PING are made anew for the next link."""
        self._transport, self._paused = None, False
        self._bound = self._away_limit
        self._frames = {number: frame for number, frame in self._frames.items() if frame.startswith(_MESSAGES)}
        self.size = sum(map(len, self._frames.values()))
        self._controls = 0
        self._wake()

    def end(self) -> None:
        """Write what is collected if there is a link, whatever it says of its buffer; refuse everything from here."""
        self._paused = False
        self.write()
        self._transport = None
        self._bound = -1
        self._frames = {}
        self.size = 0
        self._wake()

    def pause(self) -> None:
        """The transport has enough for the moment."""
        self._paused = True

    def resume(self) -> None:
        """The transport takes more."""
        self._paused = False
        self.write()
        self._wake()

    @property
    def full(self) -> bool:
        """Whether senders should wait."""
        return self._paused or self.size > self._write_limit

    async def room(self) -> None:
        """Wait until it is not full. ``ClosedError``."""
        while self.full:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                with suppress(ValueError):  # it was woken in this very turn
                    self._waiting.remove(waiter)
                raise
        if self._bound < 0:
            raise self._refusal()

    def _send_beyond(self, frame: bytes) -> int:
        """The bound is passed. Its bytes are counted already."""
        if self._transport is None:
            self.size -= len(frame)
            raise self._refusal()
        self._number += 1
        self._frames[self._number] = frame
        self.write()
        return self._number

    def _hand_over(self, transport: asyncio.Transport, data: bytes) -> None:
        self._stats.out_messages += len(self._frames) - self._controls
        self._stats.out_bytes += len(data)
        self.flushed = self._number
        self._frames.clear()
        self._controls = self.size = 0
        transport.write(data)
        if self._waiting:
            self._wake()

    def _wake(self) -> None:
        while self._waiting and not self.full:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)

    def _refusal(self) -> Exception:
        if self._bound < 0:
            return ClosedError("the connection was closed before")
        return ConnectionLostError(f"no link, and the reconnect buffer of {self._away_limit} bytes is full")


def _never(_: Callable[[], None]) -> None:
    """There is no loop before the first link, and nothing to do on it."""
