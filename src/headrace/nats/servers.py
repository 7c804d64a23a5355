"""Servers: where they are, which of them is tried next, and how long to wait before the next round."""

from __future__ import annotations

import ipaddress
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from headrace.core.errors import ConfigError

__all__ = ["Pool", "Server", "delay", "parse_servers"]

_PORT = 4222
_SCHEMES = {"nats": False, "tls": True}
_HOST = re.compile(r"[A-Za-z0-9._:%-]+\Z")
_CONTROLS = re.compile(r"[\x00-\x20\x7f]")  # urlsplit drops some without a word
_MOST_DISCOVERED = 1000  # a hostile INFO must not grow the pool without end


@dataclass(eq=False)
class Server:
    """One address. Credentials are those of its URL; one that was learnt has those of the server that told."""

    host: str
    port: int
    tls: bool = False
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    given: bool = True
    tls_name: str | None = None
    """The name its certificate must have, where that is not `host`."""
    failures: int = 0
    """Attempts in a row that failed."""
    refusal: str | None = field(default=None, repr=False)
    """What it said to our credentials the last time."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port: what makes two servers the same one."""
        return self.host.lower(), self.port

    @property
    def has_credentials(self) -> bool:
        """Whether its URL had credentials."""
        return self.user is not None or self.token is not None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_servers(servers: str | Sequence[str]) -> list[Server]:
    """The servers of one or more URLs, or of a text of several with commas between. ``ConfigError`` without secrets."""
    urls = servers.split(",") if isinstance(servers, str) else list(servers)
    found: dict[tuple[str, int], Server] = {}
    for url in urls:
        server = _parse(url)
        found.setdefault(server.address, server)
    if not found:
        raise ConfigError("servers must name at least one server")
    return list(found.values())


def delay(rounds: int, *, wait: float, most: float) -> float:
    """Seconds before the next round over the pool, `rounds` having failed: doubled each time, jittered by half."""
    return min(most, wait * 2.0 ** min(rounds, 60)) * random.uniform(0.5, 1.0)


class Pool:
    """The servers given, then those learnt from servers."""

    def __init__(self, given: Sequence[Server], *, randomize: bool) -> None:
        self._randomize = randomize
        self._servers = random.sample(given, len(given)) if randomize else list(given)

    def __len__(self) -> int:
        return len(self._servers)

    def round(self) -> list[Server]:
        """The servers in the order in which they are to be tried."""
        return list(self._servers)

    def last(self, server: Server) -> None:
        """Try `server` after all others: we have just lost it, or it is about to go."""
        if server in self._servers:
            self._servers.remove(server)
            self._servers.append(server)

    def remove(self, server: Server) -> None:
        """Never try `server` again."""
        if server in self._servers:
            self._servers.remove(server)

    def learn(self, urls: Sequence[str], teller: Server, *, tls: bool, secured: bool) -> None:
        """Take over what `teller` says of its cluster: new servers in, those it no longer names out, given ones stay.

        `tls`: the link to it is encrypted. `secured`: this was heard inside of TLS. Else anybody may have said it, and
        only bare addresses count: those have to prove the teller's own name.
        """
        heard: dict[tuple[str, int], Server] = {}
        for url in urls[:_MOST_DISCOVERED]:
            server = _heard(url, teller, tls=tls)
            if server and (secured or not tls or server.tls_name is not None):
                heard.setdefault(server.address, server)
        known = {server.address for server in self._servers}
        kept = [each for each in self._servers if each.given or each is teller or each.address in heard]
        new = [server for address, server in heard.items() if address not in known]
        if self._randomize:
            random.shuffle(new)
        self._servers = kept + new


def _parse(url: str) -> Server:
    if not isinstance(url, str):
        raise ConfigError(f"servers must be URLs, got {type(url).__name__}")
    server = _server_of(url.strip(" "))
    if server is None:  # said here and not where it fails: the words of a ValueError may be a password
        raise ConfigError(f"server must be nats://host:port or tls://host:port, got {_bare(url)!a}")
    return server


def _server_of(url: str) -> Server | None:
    try:
        parts = urlsplit(url if "://" in url else f"nats://{url}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return None
    rest = parts.path.strip("/") + parts.query + parts.fragment
    if parts.scheme not in _SCHEMES or not _HOST.match(host) or rest or port == 0 or _CONTROLS.search(url):
        return None
    server = Server(host, _PORT if port is None else port, tls=_SCHEMES[parts.scheme])
    name = unquote(parts.username) if parts.username else None
    if parts.password is not None:
        server.user, server.password = name or "", unquote(parts.password)
    else:
        server.token = name
    return server


def _bare(url: str) -> str:
    """The URL without what may be a secret."""
    scheme, _, rest = url.rpartition("://")
    user, at, host = rest.rpartition("@")
    place = re.sub(r":(?!\d+/?$)[^]]*$", ":…", host)  # who forgets the host has a password there
    return f"{scheme or 'nats'}://{'…' if user else ''}{at}{place}"[:256]


def _heard(url: str, teller: Server, *, tls: bool) -> Server | None:
    """A server of ``connect_urls`` ("host:port"); what makes no sense is ``None``."""
    server = _server_of(url.rpartition("@")[2])
    if server is None:
        return None
    server.given, server.tls = False, tls
    server.user, server.password, server.token = teller.user, teller.password, teller.token
    if tls and _is_address(server.host):
        server.tls_name = teller.tls_name or teller.host
    return server


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
