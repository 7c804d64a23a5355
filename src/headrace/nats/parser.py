"""Parser: bytes as they come -> frames. A message goes straight to the callable of its sid, the rest to the sink.

Any split of the byte stream gives the same calls. What is held of an unfinished frame is bounded by `max_frame`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from headrace.nats.errors import ProtocolError

__all__ = ["MAX_CONTROL_LINE", "MessageCallback", "Parser", "Sink"]

MessageCallback = Callable[[bytes, bytes, bytes, bytes], None]
"""(subject, reply, header, data). reply b"" if none. header: the raw block as received, from b"NATS/1.0" to the closing
blank line included, b"" if the frame had none. It must be quick and must not raise."""

MAX_CONTROL_LINE = 4096
_MAX_INFO_LINE = 64 * 1024  # a large cluster lists every server in it
_SMALL = 16 * 1024  # up to here an unfinished frame is put together as it comes; a larger one gets its room once
_SIZES = {b"%d" % size: size for size in range(1024)}  # half the time of int(), and most messages are small
_MESSAGES = (b"MSG", b"HMSG")
_CR, _LF = b"\r\n"


class Sink(Protocol):
    """Who hears of the frames that are no message. ``ProtocolError`` out of these ends the link."""

    def take_info(self, data: bytes) -> None:
        """INFO with this JSON."""
        ...

    def take_ping(self) -> None:
        """PING."""
        ...

    def take_pong(self) -> None:
        """PONG."""
        ...

    def take_ok(self) -> None:
        """+OK, which nobody asked for."""
        ...

    def take_error(self, text: str) -> None:
        """-ERR with this text, quotes removed."""
        ...

    def callback_failed(self, error: Exception) -> None:
        """A callback of a subscription raised."""
        ...


class Parser:
    """Feed it what arrives. `handlers`: sid -> callable, looked up at each message; may change meanwhile."""

    __slots__ = ("_filled", "_large", "_max_frame", "_rest", "_sink", "_wanted", "handlers", "messages")

    def __init__(self, handlers: dict[bytes, MessageCallback], sink: Sink, *, max_frame: int) -> None:
        self.handlers = handlers
        self.messages = 0
        """Messages so far, those for unknown sids included."""
        self._sink = sink
        self._max_frame = max_frame
        self._rest = b""  # an unfinished small frame, or a line without its end
        self._wanted = 0  # with fewer bytes than these, _rest is no whole frame
        self._large = bytearray()  # room for an unfinished large frame
        self._filled = 0  # how much of it is there

    @property
    def unfinished(self) -> bool:
        """Whether a part of a frame is held."""
        return bool(self._rest or self._large)

    def feed(self, data: bytes) -> None:
        """Parse `data`, which follows what was fed before. ``ProtocolError``: feeding more makes no sense."""
        if self._large:
            data = self._fill(data)
        elif self._rest:
            data = self._rest + data
            if len(data) < self._wanted:
                self._rest = data
                return
            self._rest = b""
        self._parse(data)

    def _parse(self, data: bytes) -> None:  # noqa: C901  (one loop, nothing called that can be done in place)
        """The hot path: one find, one split and two slices per message."""
        at, length, find = 0, len(data), data.find
        while at < length:
            eol = find(b"\r\n", at)
            if eol < 0 or eol - at > MAX_CONTROL_LINE:
                self._check_line(data, at, length if eol < 0 else eol)
                if eol < 0:
                    self._hold(data, at, length - at + 1)
                    return
            words = data[at:eol].split(b" ")
            if words[0] not in _MESSAGES:
                words = self._other(data[at:eol])
                if not words:
                    at = eol + 2
                    continue
            head = 0
            if len(words[0]) == 4:  # HMSG: without the size of its headers it reads like MSG
                word = words.pop(-2) if len(words) > 4 else b""
                head = _SIZES.get(word, -1)
                if head < 0:
                    head = self._size(word)
            size = _SIZES.get(words[-1], -1)
            if size < 0:
                size = self._size(words[-1])
            end = (start := eol + 2) + size
            if end + 2 > length:
                self._hold(data, at, end + 2 - at)
                return
            if data[end] != _CR or data[end + 1] != _LF or head > size or not 4 <= len(words) <= 5:
                raise ProtocolError(f"frame is damaged after {data[at:eol][:64]!a}")
            at = end + 2
            self.messages += 1
            handler = self.handlers.get(words[2])
            if handler is not None:
                body = start + head
                try:
                    handler(words[1], words[3] if len(words) == 5 else b"", data[start:body], data[body:end])
                except Exception as error:  # noqa: BLE001  (another's code: the connection outlives it)
                    self._sink.callback_failed(error)

    def _other(self, line: bytes) -> list[bytes]:
        """Tell the sink. A message whose verb is spelled in another way comes back as its words, else []."""
        words = line.split(maxsplit=1)
        verb = words[0].upper() if words else b""
        if verb in _MESSAGES:
            return [verb, *line.split()[1:]]
        text = words[1].strip() if len(words) > 1 else b""
        if verb == b"PING":
            self._sink.take_ping()
        elif verb == b"PONG":
            self._sink.take_pong()
        elif verb == b"INFO":
            self._sink.take_info(text)
        elif verb == b"-ERR":
            self._sink.take_error(text.strip(b"'").decode("utf-8", "replace"))
        elif verb == b"+OK":
            self._sink.take_ok()
        else:
            raise ProtocolError(f"no such frame: {line[:64]!a}")
        return []

    def _size(self, word: bytes) -> int:
        size = int(word) if word.isdigit() and len(word) < 16 else -1
        if not 0 <= size <= self._max_frame:
            raise ProtocolError(f"size of a frame must be a number in 0..{self._max_frame}, got {word[:32]!a}")
        return size

    def _check_line(self, data: bytes, at: int, end: int) -> None:
        limit = _MAX_INFO_LINE if data[at : at + 4].upper() == b"INFO" else MAX_CONTROL_LINE
        if end - at > limit:
            raise ProtocolError(f"control line is longer than {limit} bytes: {data[at : at + 64]!a}")

    def _hold(self, data: bytes, at: int, wanted: int) -> None:
        """Keep what is there of a frame that has at least `wanted` bytes."""
        if wanted <= _SMALL or wanted - 1 == len(data) - at:
            self._rest = data[at:]
            self._wanted = wanted
            return
        self._large = bytearray(wanted)
        self._filled = len(data) - at
        self._large[: self._filled] = memoryview(data)[at:]

    def _fill(self, data: bytes) -> bytes:
        """Complete the large frame as far as `data` goes, parse it once it is whole; what follows it comes back."""
        taken = min(len(data), len(self._large) - self._filled)
        self._large[self._filled : self._filled + taken] = memoryview(data)[:taken]
        self._filled += taken
        if self._filled == len(self._large):
            whole, self._large = bytes(self._large), bytearray()
            self._parse(whole)
        return data[taken:]
