"""Link: one socket to one server, from its first byte to its last. Finds frames, answers pings, tells of its end."""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

from headrace.core.errors import ConnectionLostError
from headrace.nats.errors import PermissionsError, ProtocolError, ServerError, server_error
from headrace.nats.info import ConnectionStats, ServerInfo, server_info_of
from headrace.nats.parser import Parser
from headrace.nats.servers import Server

__all__ = ["Link", "Owner"]

_PONG = b"PONG\r\n"


class Owner(Protocol):
    """Who is told what happens on a link after its handshake. All plain calls."""

    def heard(self, link: Link, info: ServerInfo) -> None:
        """INFO came again."""
        ...

    def pong(self) -> None:
        """A ping was answered."""
        ...

    def pause(self) -> None:
        """The transport's buffer is full."""
        ...

    def resume(self) -> None:
        """There is room in it again."""
        ...

    def report(self, error: BaseException) -> None:
        """Something failed, the link lives."""
        ...

    def lost(self, link: Link, error: BaseException) -> None:
        """The link is over. Told once, and at once."""
        ...


class Link(asyncio.Protocol):
    """A link to `server`. `owner` is set once the handshake is through; until then no message is handed out."""

    def __init__(self, server: Server, stats: ConnectionStats, *, max_frame: int) -> None:
        loop = asyncio.get_running_loop()
        self.server = server
        self.owner: Owner | None = None
        self.parser = Parser({}, self, max_frame=max_frame)
        self.transport: asyncio.Transport | None = None
        self.info = ServerInfo()
        self.secured = False
        """Whether TLS is up. What was heard before may have come from anybody."""
        self.info_secured = False
        """Whether `info` came inside of TLS."""
        self.first_info: asyncio.Future[None] = loop.create_future()
        self.first_pong: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.error: BaseException | None = None
        self._stats = stats
        self._frames = 0  # that were no messages, before the handshake was through
        self._pings = 0
        self._paused = False
        self._answered = False  # once since the peer stopped reading: more would only pile up

    def write(self, data: bytes) -> None:
        """Write at once, before all that is collected."""
        if self.transport is not None and self.error is None:
            self._stats.out_bytes += len(data)
            self.transport.write(data)

    def check_untouched(self) -> None:
        """``ProtocolError`` if anything came but one INFO: what stands before TLS must not count after it."""
        if self._frames != 1 or self.parser.messages or self.parser.unfinished:
            raise ProtocolError("the server sent more than INFO before TLS")

    def check_alive(self) -> None:
        """Raise what ended it, if it is over."""
        if self.error is not None:
            raise self.error

    def fail(self, error: BaseException) -> None:
        """It is over, now; what the transport still holds is dropped."""
        self._over(error)
        if self.transport is not None:
            self.transport.abort()

    def close(self, error: BaseException) -> None:
        """It is over, but what the transport holds is still written."""
        self._over(error)
        if self.transport is not None:
            self.transport.close()

    # what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is there."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        before = self.parser.messages
        try:
            self.parser.feed(data)
        except ProtocolError as error:
            self.fail(error)
        self._stats.in_messages += self.parser.messages - before
        self._stats.in_bytes += len(data)
        if self._pings and not (self._paused and self._answered):
            self._answer()

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        self._paused, self._answered = True, False
        if self.owner is not None:
            self.owner.pause()

    def resume_writing(self) -> None:
        """The transport takes more."""
        self._paused = False
        self._answer()
        if self.owner is not None:
            self.owner.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        error = ConnectionLostError(f"the link to {self.server} broke: {exc}" if exc else f"{self.server} hung up")
        error.__cause__ = exc
        self._over(error)
        if not self.ended.done():
            self.ended.set_result(None)

    # what the parser calls

    def take_info(self, data: bytes) -> None:
        """INFO."""
        self._frames += 1
        self.info = server_info_of(data)
        self.info_secured = self.secured
        if not self.first_info.done():
            self.first_info.set_result(None)
        if self.owner is not None:
            self.owner.heard(self, self.info)

    def take_ping(self) -> None:
        """PING: answered as soon as this piece of the stream is read."""
        self._frames += 1
        self._pings += 1

    def take_pong(self) -> None:
        """PONG."""
        self._frames += 1
        if self.owner is not None:
            self.owner.pong()
        elif not self.first_pong.done():
            self.first_pong.set_result(None)

    def take_ok(self) -> None:
        """+OK."""
        self._frames += 1

    def take_error(self, text: str) -> None:
        """-ERR: the end of the link, but for those after which a server goes on."""
        self._frames += 1
        error = server_error(text)
        if self.owner is None or not _goes_on(error):
            self.fail(error)
        else:
            self.owner.report(error)

    def callback_failed(self, error: Exception) -> None:
        """A callback raised."""
        if self.owner is not None:
            self.owner.report(error)

    def _answer(self) -> None:
        """Every ping at once, ahead of what is collected. To a peer that does not read, one answer for all."""
        count, self._pings = self._pings, 0
        if count:
            self._answered = True
            self.write(_PONG if self._paused else _PONG * count)

    def _over(self, error: BaseException) -> None:
        if self.error is not None:
            return
        self.error = error
        self.parser.handlers = {}
        for waiter in (self.first_info, self.first_pong):
            if not waiter.done():
                waiter.set_exception(error)
                waiter.exception()  # nobody may be waiting, and that is no reason to be told of it
        owner, self.owner = self.owner, None  # what comes after its end is nobody's business
        if owner is not None:
            owner.lost(self, error)


def _goes_on(error: ServerError) -> bool:
    text = str(error).lower()
    return isinstance(error, PermissionsError) or text.startswith(
        ("invalid subject", "invalid publish subject", "maximum subscriptions")
    )
