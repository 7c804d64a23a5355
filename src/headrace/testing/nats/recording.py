"""RecordingServer: a server that is none: it greets, answers PING, and writes down every byte that clients send."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping
from typing import Any

from headrace.testing.nats.background import Listener

__all__ = ["RecordingServer"]

_INFO = {
    "server_id": "RECORDING", "server_name": "recording", "version": "2.15.1", "proto": 1, "go": "", "headers": True,
    "host": "127.0.0.1", "max_payload": 1_048_576, "jetstream": True, "client_id": 1, "nonce": "bm9uY2U",
}  # fmt: skip


class RecordingServer(Listener):
    """Takes clients as a server would and keeps what they send: a test sees that refused input sends no byte.

    `info` adds to (with ``None`` as value: takes from) the INFO it greets with. ``pongs`` may be set to False: from
    then on no PING is answered.
    """

    def __init__(self, info: Mapping[str, Any] | None = None, *, port: int | None = None) -> None:
        super().__init__(port=port)
        self.info = {name: value for name, value in {**_INFO, **(info or {})}.items() if value is not None}
        self.pongs = True
        self._received = bytearray()
        self._more = threading.Condition()

    @property
    def received(self) -> bytes:
        """Every byte of every client so far, in order of arrival."""
        with self._more:
            return bytes(self._received)

    def lines(self, verb: str) -> list[str]:
        """The lines so far that begin with `verb` (and a blank, or nothing)."""
        lines = self.received.decode(errors="replace").split("\r\n")
        return [line for line in lines if line.partition(" ")[0] == verb]

    def wait_for(self, what: bytes, *, timeout: float = 30.0) -> bool:
        """Whether these bytes have arrived, from whichever client; waits for them (and blocks the caller's loop)."""
        with self._more:
            return self._more.wait_for(lambda: what in self._received, timeout)

    def send(self, data: bytes) -> None:
        """Send to all present clients, as it is."""
        self._call(lambda: self._send(data))

    def _send(self, data: bytes) -> None:
        for writer in self._writers:
            writer.write(data)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Greet, then record and answer until the client goes."""
        writer.write(self.greeting())
        rest = b""
        while data := await reader.read(65_536):
            with self._more:
                self._received += data
                self._more.notify_all()
            *lines, rest = (rest + data).split(b"\r\n")
            answered = sum(line.upper() == b"PING" for line in lines)
            if self.pongs and answered:
                writer.write(b"PONG\r\n" * answered)

    def greeting(self) -> bytes:
        """The INFO line, made anew for each client."""
        return b"INFO %s \r\n" % json.dumps({"port": self.port, **self.info}).encode()
