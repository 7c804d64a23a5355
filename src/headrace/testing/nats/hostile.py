"""HostileServer: what no server should send. A client must stay within bounded memory and say what was wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from enum import StrEnum

from headrace.testing.nats.recording import RecordingServer

__all__ = ["HostileServer", "Hostility"]

_GIB = 2**30


class Hostility(StrEnum):
    """What it does to a client: once that has subscribed or published, unless its name speaks of the greeting."""

    GARBAGE_INFO = "garbage_info"  # in place of the greeting
    INFO_IS_NO_OBJECT = "info_is_no_object"  # valid JSON of the wrong shape, in place of the greeting
    SILENT_GREETING = "silent_greeting"  # accepts, and says nothing
    GREETING_WITHOUT_END = "greeting_without_end"  # a first line that never ends
    GARBAGE = "garbage"
    NEGATIVE_SIZE = "negative_size"
    SIZE_IS_NO_NUMBER = "size_is_no_number"
    HUGE_SIZE = "huge_size"  # 1 GiB, and it begins to send it
    HEADER_OVER_TOTAL = "header_over_total"
    CUT_FRAME = "cut_frame"  # ends the link inside a payload
    PING_FLOOD = "ping_flood"
    ENDLESS_ERR = "endless_err"
    LINE_WITHOUT_END = "line_without_end"
    DEEP_INFO = "deep_info"  # a second INFO of 100 000 nested lists


_INSTEAD: dict[Hostility, bytes] = {
    Hostility.GARBAGE_INFO: b"INFO {\x00\xff not json\r\n",
    Hostility.INFO_IS_NO_OBJECT: b'INFO [1, "two", null]\r\n',
    Hostility.SILENT_GREETING: b"",
}
_ONCE: dict[Hostility, bytes] = {
    Hostility.GARBAGE: bytes(range(256)) + b"\r\n",
    Hostility.NEGATIVE_SIZE: b"MSG a 1 -1\r\n\r\n",
    Hostility.SIZE_IS_NO_NUMBER: b"MSG a 1 1e3\r\n" + b"x" * 1_000 + b"\r\n",
    Hostility.HEADER_OVER_TOTAL: b"HMSG a 1 30 20\r\n" + b"x" * 20 + b"\r\n",
    Hostility.CUT_FRAME: b"MSG a 1 1000\r\n" + b"x" * 500,
    Hostility.DEEP_INFO: b'INFO {"connect_urls":' + b"[" * 100_000 + b"\r\n",
}


def _endless(line: bytes) -> Callable[[], Iterator[bytes]]:
    """The line again and again, in pieces of some 64 KiB."""

    def pieces() -> Iterator[bytes]:
        piece = line * (65_536 // len(line))
        while True:
            yield piece

    return pieces


def _huge() -> Iterator[bytes]:
    yield b"MSG a 1 %d\r\n" % _GIB
    for _ in range(_GIB // 65_536):
        yield b"x" * 65_536
    yield b"\r\n"


_STREAMS: dict[Hostility, Callable[[], Iterator[bytes]]] = {
    Hostility.HUGE_SIZE: _huge,
    Hostility.PING_FLOOD: _endless(b"PING\r\n"),
    Hostility.ENDLESS_ERR: _endless(b"-ERR 'go away'\r\n"),
    Hostility.LINE_WITHOUT_END: _endless(b"MSG " + b"x" * 60),
    Hostility.GREETING_WITHOUT_END: _endless(b"INFO {" + b" " * 58),
}


class HostileServer(RecordingServer):
    """Does `hostility` to its first `times` clients (``None``: to all), and treats later ones as a server would.

    What it sends without end stops when the client goes, or with the context; ``sent`` counts the hostile bytes.
    """

    def __init__(self, hostility: Hostility, *, times: int | None = None, port: int | None = None) -> None:
        super().__init__(port=port)
        self.hostility = Hostility(hostility)
        self.sent = 0
        self._times = times

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client: greeted or not, then treated badly."""
        if self._times is not None and self.links > self._times:
            await super().serve(reader, writer)
            return
        instead = self.hostility in _INSTEAD or self.hostility is Hostility.GREETING_WITHOUT_END
        if not instead:
            writer.write(self.greeting())
            async for line in reader:
                if line.upper() == b"PING\r\n":
                    writer.write(b"PONG\r\n")
                elif not line.upper().startswith(b"CONNECT"):
                    break
        reading = asyncio.ensure_future(_read_all(reader))
        try:
            await self._attack(writer)
            await reading
        finally:
            reading.cancel()

    async def _attack(self, writer: asyncio.StreamWriter) -> None:
        for piece in self._pieces():
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)  # the drain of an empty buffer does not wait
            self.sent += len(piece)
        if self.hostility is Hostility.CUT_FRAME:
            writer.close()
            await writer.wait_closed()

    def _pieces(self) -> Iterator[bytes]:
        if self.hostility in _STREAMS:
            return _STREAMS[self.hostility]()
        return iter([_INSTEAD.get(self.hostility, _ONCE.get(self.hostility, b""))])


async def _read_all(reader: asyncio.StreamReader) -> None:
    while await reader.read(65_536):
        pass
