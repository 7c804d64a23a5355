"""Life: how a connection comes to a link, what happens when it loses it, and how it ends.

    new ── connect ──▶ connected ── link lost ──▶ away ── a round over the pool succeeds ──▶ connected
                          └────────── aclose, no server left, reconnect=False ──▶ closed

All changes are plain calls on the loop; the one task, `_come_back`, only finds the next link.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast
from weakref import WeakSet

from headrace.core.errors import BrokerError, ClosedError, ConnectionLostError, HeadraceError, UsageError
from headrace.nats.auth import check_credentials
from headrace.nats.dialler import Dialler
from headrace.nats.errors import AuthenticationError, NoServersError, PermissionsError, error_for_waiter
from headrace.nats.info import ConnectionStats, ServerInfo
from headrace.nats.listener import Hooks
from headrace.nats.messages import Messages
from headrace.nats.options import ConnectionOptions
from headrace.nats.outgoing import Outgoing
from headrace.nats.pings import Pings
from headrace.nats.servers import Pool, Server, delay, parse_servers
from headrace.nats.subscription import Subscriptions
from headrace.nats.transport import Link

__all__ = ["Life"]

_GOODBYE = 1.0  # seconds that the last bytes may take to leave
_LAME_DUCK_JITTER = 1.0
_SOUND = 1.0  # seconds that a link lives unless the server throws us out


class Life:
    """The states of a connection, and all that a change of state touches."""

    def __init__(self, servers: str | Sequence[str], options: ConnectionOptions, stats: ConnectionStats) -> None:
        given = parse_servers(servers)
        check_credentials(options, given)
        self.closed = False
        self.info = ServerInfo()
        self.hooks = Hooks(options, stats)
        self.outgoing = Outgoing(stats, write_limit=options.write_limit, away_limit=options.reconnect_buffer)
        self.subscriptions = Subscriptions(self.outgoing)
        self.pings = Pings(
            self.outgoing, self._fail, interval=options.seconds("ping_interval"), most=options.max_pings_out
        )
        self.asking: dict[asyncio.Future[Any], tuple[int, bytes]] = {}
        """Requests: who waits, the frame that asks, and its subject."""
        self.readers: WeakSet[Messages] = WeakSet()
        self._options = options
        self._stats = stats
        self._tls = options.tls is not None or options.tls_first or any(server.tls for server in given)
        self._pool = Pool(given, randomize=options.randomize)
        self._dialler = Dialler(options, stats, tls=self._tls)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._link: Link | None = None
        self._links: set[Link] = set()  # all whose socket may still be open
        self._task: asyncio.Task[None] | None = None
        self._move: asyncio.TimerHandle | None = None
        self._connecting = False
        self._since = 0.0  # loop time of the last handshake
        self._rounds = -1  # that failed; a link that dies at once counts as one

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that it was connected on."""
        if self._loop is None:
            raise UsageError("the connection was not connected yet")
        return self._loop

    async def connect(self) -> None:
        """Try every server once."""
        if self.closed:
            raise ClosedError("the connection was closed before")
        if self._link is not None:
            return
        if self._connecting or self._task is not None:
            raise UsageError("the connection is looking for a server already")
        self._loop = asyncio.get_running_loop()
        self._connecting = True
        reasons: list[tuple[Server, HeadraceError]] = []
        try:
            link = await self._round(reasons, again=False)
        finally:
            self._connecting = False
        if link is None:
            raise _no_servers(reasons)
        self._adopt(link, again=False)

    async def aclose(self) -> None:
        """Write what is collected, then close."""
        if not self.closed:
            self._end(None)
        try:
            if self._task is not None:
                self._task.cancel()
                await asyncio.wait([self._task])
            if self._links:
                await asyncio.wait([link.ended for link in self._links], timeout=_GOODBYE)
        finally:
            for link in tuple(self._links):
                link.fail(ClosedError("closed"))
        if self._links:
            await asyncio.wait([link.ended for link in self._links], timeout=_GOODBYE)

    async def drain(self) -> None:
        """Take no more, hand out what is on its way, write everything, close."""
        if self._link is None and self._task is None:  # nobody is there, and nobody is looked for
            await self.aclose()
            return
        limit = self._options.seconds("drain_timeout")
        try:
            with suppress(BrokerError, ClosedError, TimeoutError):  # what is late is given up, as it says
                async with asyncio.timeout(limit):
                    self.subscriptions.stop()
                    await self.pings.flush(limit)  # behind the UNSUBs: every message came before this answer
                    await self.pings.flush(limit)  # behind what the callbacks of those have sent
        finally:
            await self.aclose()

    # what a link tells

    def heard(self, link: Link, info: ServerInfo) -> None:
        """INFO came again."""
        known, self.info = self.info.lame_duck, info
        self._learn(link)
        if not info.lame_duck or link is not self._link:
            return
        if not known:
            self.hooks.lame_duck()
        if self._move is None and len(self._pool) > 1 and self._options.reconnect:
            self._move = self.loop.call_later(random.uniform(0, _LAME_DUCK_JITTER), self._leave, link)

    def pong(self) -> None:
        """A ping was answered."""
        self.pings.pong()

    def pause(self) -> None:
        """The transport's buffer is full."""
        self.outgoing.pause()

    def resume(self) -> None:
        """There is room in it again."""
        self.outgoing.resume()

    def report(self, error: BaseException) -> None:
        """Something failed, the link lives."""
        if isinstance(error, PermissionsError) and error.subject is not None:
            self._fail_asking(error, upto=self.outgoing.flushed, only=error.subject)
            self.hooks.forbidden(error)
        self.hooks.report(error)

    def lost(self, link: Link, error: BaseException) -> None:
        """The link is over."""
        if link is not self._link:
            return
        self._detach(error)
        self._stats.errors += 1
        self._rounds = 0 if self.loop.time() - self._since >= _SOUND else self._rounds + 1
        self._pool.last(link.server)
        self.hooks.lost(error)
        if self._options.reconnect:
            self._task = self.loop.create_task(self._come_back(), name="headrace nats reconnect")
        else:
            self._end(error)

    # steps

    async def _round(self, reasons: list[tuple[Server, HeadraceError]], *, again: bool) -> Link | None:
        for server in self._pool.round():
            try:
                link = await self._dialler.dial(server)
            except HeadraceError as error:
                reasons.append((server, error))
                if again:
                    self._count(server, error)
                continue
            if self.closed:
                link.fail(ClosedError("closed"))
                raise ClosedError("the connection was closed while it looked for a server")
            server.failures, server.refusal = 0, None
            return link
        return None

    def _adopt(self, link: Link, *, again: bool) -> None:
        """`link` is ours from here. One plain call: nothing can be sent between its parts but by listeners."""
        self._link = link
        self._links.add(link)
        link.ended.add_done_callback(lambda _: self._links.discard(link))
        link.owner = self
        link.parser.handlers = self.subscriptions.handlers
        self.info = link.info
        self._learn(link)
        self._since = self.loop.time()
        if subs := self.subscriptions.frames():
            link.write(subs)
        mark = self.outgoing.attach(cast("asyncio.Transport", link.transport), self.loop)
        if again:
            self._stats.reconnects += 1
            self.hooks.restored()
        self.outgoing.start(mark)
        self.pings.start()
        if again:
            self.hooks.reconnected()

    def _detach(self, error: BaseException) -> None:
        self._link = None
        self.outgoing.detach()
        self._stop_waiting(error, closed=False)

    def _stop_waiting(self, error: BaseException, *, closed: bool) -> None:
        """Who waits for an answer of the link that is gone, or of any link, hears of it."""
        if self._move is not None:
            self._move.cancel()
            self._move = None
        self.pings.stop(error)
        self._fail_asking(error, upto=sys.maxsize if closed else self.outgoing.flushed)

    def _fail_asking(self, error: BaseException, *, upto: int, only: bytes | None = None) -> None:
        for waiter, (frame, subject) in tuple(self.asking.items()):
            if frame <= upto and only in {None, subject} and not waiter.done():
                waiter.set_exception(error_for_waiter(error))
                waiter.exception()  # its request may have been cancelled in this very turn

    def _end(self, error: BaseException | None) -> None:
        self.closed = True
        link, self._link = self._link, None
        self.outgoing.end()
        reason = ClosedError("the connection was closed")
        reason.__cause__ = error
        if link is not None:
            link.close(reason)
        self._stop_waiting(reason, closed=True)
        self.subscriptions.end()
        for reader in tuple(self.readers):
            reader.end()
        self.hooks.closed(error)

    async def _come_back(self) -> None:
        wait, most = self._options.seconds("reconnect_wait"), self._options.seconds("reconnect_max_wait")
        reasons: list[tuple[Server, HeadraceError]] = []
        try:
            while len(self._pool):
                reasons.clear()
                await asyncio.sleep(delay(self._rounds, wait=wait, most=most))
                link = await self._round(reasons, again=True)
                if link is not None:
                    self._task = None
                    self._adopt(link, again=True)
                    return
                self._rounds += 1
                self.hooks.report(_no_servers(reasons))
            error: BaseException = _no_servers(reasons)
        except Exception as unexpected:  # noqa: BLE001  (whatever it is: a connection that hangs is worse)
            error = unexpected
        self._task = None
        if not self.closed:
            self._end(error)

    def _count(self, server: Server, error: HeadraceError) -> None:
        server.failures += 1
        refusal = str(error) if isinstance(error, AuthenticationError) else None
        spent = self._options.max_reconnects is not None and server.failures >= self._options.max_reconnects
        if spent or (refusal is not None and refusal == server.refusal):
            self._pool.remove(server)
        server.refusal = refusal

    def _learn(self, link: Link) -> None:
        if self._options.use_discovered and link.info.connect_urls:
            self._pool.learn(
                link.info.connect_urls, link.server, tls=self._tls or link.secured, secured=link.info_secured
            )

    def _leave(self, link: Link) -> None:
        """The server is a lame duck and others are known."""
        self._move = None
        self.outgoing.write()
        link.close(ConnectionLostError(f"{link.server} is in lame duck mode"))

    def _fail(self, error: BaseException) -> None:
        if self._link is not None:
            self._link.fail(error)


def _no_servers(reasons: list[tuple[Server, HeadraceError]]) -> NoServersError:
    texts = [f"{server}: {error}" for server, error in reasons]
    errors = tuple(error for _, error in reasons)
    error = NoServersError(f"no server took us: {'; '.join(texts) or 'none is left'}", reasons=errors)
    error.__cause__ = errors[-1] if errors else None
    return error
