"""Dialler: one attempt on one server: socket, INFO, TLS, CONNECT, PING, PONG.

Where TLS is asked for, credentials go out after it, or not at all.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import ssl
from functools import lru_cache
from typing import Any

import msgspec

from headrace.core.errors import ConnectionLostError
from headrace.nats.auth import connect_fields
from headrace.nats.info import ConnectionStats
from headrace.nats.options import ConnectionOptions
from headrace.nats.outgoing import PING
from headrace.nats.servers import Server
from headrace.nats.transport import Link

__all__ = ["Dialler"]


class Dialler:
    """Makes links. `tls`: no server gets anything of us in plain text."""

    def __init__(self, options: ConnectionOptions, stats: ConnectionStats, *, tls: bool) -> None:
        self._options = options
        self._stats = stats
        self._tls = tls
        self._context: ssl.SSLContext | None = options.tls if isinstance(options.tls, ssl.SSLContext) else None

    async def dial(self, server: Server) -> Link:
        """A link that is through its handshake. Every failure is an error of ours, and leaves no socket."""
        link = Link(server, self._stats, max_frame=self._options.max_frame)
        limit = self._options.seconds("connect_timeout")
        try:
            async with asyncio.timeout(limit):
                await self._handshake(link, server)
            link.check_alive()  # it may have broken between the PONG and now
        except BaseException as error:
            link.fail(error)
            if isinstance(error, TimeoutError):
                raise ConnectionLostError(f"no answer within {limit:g} s") from error
            if isinstance(error, OSError | UnicodeError):
                raise ConnectionLostError(str(error) or type(error).__name__) from error
            raise
        return link

    async def _handshake(self, link: Link, server: Server) -> None:
        loop = asyncio.get_running_loop()
        host, port = server.address
        if self._options.tls_first:
            link.secured = True
            await loop.create_connection(lambda: link, host, port, **self._tls_arguments(server))
        else:
            await loop.create_connection(lambda: link, host, port)
        await link.first_info
        if (self._tls or server.tls or link.info.tls_required) and not link.secured:
            await self._secure(link, server)
        link.write(b"CONNECT %b\r\n" % self._connect(link, server) + PING)
        await link.first_pong

    async def _secure(self, link: Link, server: Server) -> None:
        if not (link.info.tls_required or link.info.tls_available):
            raise ConnectionLostError("TLS was asked for and the server has none")
        link.check_untouched()
        arguments = self._tls_arguments(server)
        plain = link.transport
        if plain is None:
            raise ConnectionLostError("hung up before TLS")
        transport = await asyncio.get_running_loop().start_tls(
            plain, link, arguments["ssl"], server_hostname=arguments["server_hostname"]
        )
        if transport is None:
            raise ConnectionLostError("hung up during the TLS handshake")
        link.transport, link.secured = transport, True

    def _tls_arguments(self, server: Server) -> dict[str, Any]:
        if self._context is None:
            self._context = ssl.create_default_context()
            if self._options.insecure_skip_verify:
                self._context.check_hostname = False
                self._context.verify_mode = ssl.CERT_NONE
        name = self._options.tls_hostname or server.tls_name or server.host
        return {"ssl": self._context, "server_hostname": name}

    def _connect(self, link: Link, server: Server) -> bytes:
        fields: dict[str, Any] = {
            "verbose": False,
            "pedantic": False,
            "headers": True,
            "no_responders": True,
            "protocol": 1,
            "echo": True,
            "lang": "python-headrace",
            "version": _version(),
            "tls_required": link.secured,
        }
        if self._options.name is not None:
            fields["name"] = self._options.name
        return msgspec.json.encode(fields | connect_fields(self._options, server, link.info.nonce))


@lru_cache(maxsize=1)
def _version() -> str:
    try:
        return importlib.metadata.version("headrace")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree
        return "0"
