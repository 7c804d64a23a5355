"""A listener on a thread and an event loop of its own: it goes on while the test's own loop is blocked."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any, Self, TypeVar

from headrace.core.errors import UsageError
from headrace.testing.nats.server import free_port

__all__ = ["Listener", "abort"]

T = TypeVar("T")

_PATIENCE = 30.0
_TURNS = 5


def abort(writer: asyncio.StreamWriter) -> None:
    """Close with RST: what is on its way is lost, as when a machine goes."""
    link: socket.socket | None = writer.get_extra_info("socket")
    if link is not None and link.fileno() >= 0:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Listener(ABC):
    """Accepts clients on 127.0.0.1 while its context is open; `serve` runs once per client, on the loop of its own."""

    def __init__(self, *, port: int | None = None) -> None:
        self.port = port or free_port()
        self.links = 0
        """Clients accepted so far."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"nats://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=type(self).__name__)
        self._thread.start()
        try:
            self.up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        self._run(self._end())
        self._loop = self._thread = None
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    def up(self) -> None:
        """Listen, again after `down`."""
        self._run(self._listen())

    def down(self) -> None:
        """Refuse new clients, and cut the present ones."""
        self._run(self._refuse())
        self.cut()

    def cut(self) -> None:
        """Cut all present links (RST)."""
        self._call(self._cut)

    @abstractmethod
    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Look after one client until it goes."""

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.links += 1
        self._writers.add(writer)
        try:
            await self.serve(reader, writer)
        except (OSError, asyncio.CancelledError, asyncio.IncompleteReadError, ValueError):
            pass  # the client has gone, or the context ends, or a line of its was too long
        finally:
            self._writers.discard(writer)
            abort(writer)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, reuse_address=True)

    async def _refuse(self) -> None:
        """Who is accepted takes its first step before the door closes: asyncio would lose it, socket and all."""
        if self._server is not None:
            server, self._server = self._server, None
            for door in server.sockets:
                asyncio.get_running_loop().remove_reader(door.fileno())
            await asyncio.sleep(0)
            server.close()

    async def _end(self) -> None:
        """What was just accepted takes some turns to begin: cancelled before its first step it closes nothing."""
        await self._refuse()
        for _ in range(_TURNS):
            await asyncio.sleep(0)
            self._cut()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await asyncio.sleep(0)  # aborted transports close in the turn after

    def _cut(self) -> None:
        for writer in list(self._writers):
            abort(writer)

    def _call(self, function: Callable[[], T]) -> T:
        async def called() -> T:
            return function()

        return self._run(called())

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            coroutine.close()
            raise UsageError(f"a {type(self).__name__} lives inside its `with` block")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_PATIENCE)
