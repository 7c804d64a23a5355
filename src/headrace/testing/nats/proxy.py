"""Proxy: a TCP link between a client and a server that can be cut, delayed, frozen and cut short inside a frame."""

from __future__ import annotations

import asyncio
import contextlib
from enum import StrEnum

from headrace.core.errors import ConfigError
from headrace.testing.nats.background import Listener, abort

__all__ = ["Direction", "Proxy"]

_CHUNK = 65_536


class Direction(StrEnum):
    """Which way bytes go."""

    TO_SERVER = "to_server"
    TO_CLIENT = "to_client"


class _Flow:
    """One way of one link."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.open = asyncio.Event()
        self.open.set()


class Proxy(Listener):
    """Passes bytes between its clients and ``127.0.0.1:target``; `url` is for the clients.

    `cut` cuts the present links, `down` and `up` close and open the door. `freeze` makes a half-open link: both ends
    see an open socket on which nothing comes any more; frozen bytes are lost with a `cut`, and arrive after `thaw`.
    """

    def __init__(self, target: int, *, port: int | None = None) -> None:
        super().__init__(port=port)
        self.target = target
        self.delay = 0.0
        """Seconds that each piece read from a socket waits before it is passed on; takes effect at once."""
        self.passed = dict.fromkeys(Direction, 0)
        """Bytes passed on so far, each way."""
        self._left: dict[Direction, int | None] = dict.fromkeys(Direction)
        self._flows: dict[Direction, set[_Flow]] = {direction: set() for direction in Direction}

    def freeze(self, *directions: Direction) -> None:
        """Pass nothing more on the present links (both ways unless told); links made later work."""
        self._call(lambda: self._freeze(directions or tuple(Direction)))

    def thaw(self) -> None:
        """Let the frozen links go on."""
        self._call(self._thaw)

    def cut_after(self, count: int, direction: Direction = Direction.TO_CLIENT) -> None:
        """Pass `count` more bytes that way, all links taken together, then cut the link that has the next one."""
        if count < 0:
            raise ConfigError(f"cut_after {count}: not below 0")
        self._left[direction] = count

    def _freeze(self, directions: tuple[Direction, ...]) -> None:
        for way in directions:
            for flow in self._flows[way]:
                flow.open.clear()

    def _thaw(self) -> None:
        for flows in self._flows.values():
            for flow in flows:
                flow.open.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Both ways of one client's link, until one side closes."""
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.target)
        ways = {
            Direction.TO_SERVER: _Flow(reader, server_writer),
            Direction.TO_CLIENT: _Flow(server_reader, writer),
        }
        self._writers.add(server_writer)
        pumps = [asyncio.ensure_future(self._pump(way, flow)) for way, flow in ways.items()]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            self._writers.discard(server_writer)
            abort(server_writer)
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, way: Direction, flow: _Flow) -> None:
        self._flows[way].add(flow)
        try:
            with contextlib.suppress(OSError):
                while data := await flow.reader.read(_CHUNK):
                    if self.delay:
                        await asyncio.sleep(self.delay)
                    await flow.open.wait()
                    data, ends = self._allowed(way, data)
                    self.passed[way] += len(data)
                    flow.writer.write(data)
                    await flow.writer.drain()
                    if ends:
                        break
            flow.writer.close()  # what is written still arrives
            with contextlib.suppress(OSError):
                await flow.writer.wait_closed()
        finally:
            self._flows[way].discard(flow)

    def _allowed(self, way: Direction, data: bytes) -> tuple[bytes, bool]:
        """What may pass before the cut that was asked for, and whether that cut is now."""
        left = self._left[way]
        if left is None:
            return data, False
        if len(data) <= left:
            self._left[way] = left - len(data)
            return data, False
        self._left[way] = None
        return data[:left], True
