"""connect: from a URL to a Broker. An engine is imported only when its scheme is asked for."""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Generator
from dataclasses import replace
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from headrace.core.broker import Broker
from headrace.core.clock import Clock
from headrace.core.errors import ConfigError, UnsupportedError

__all__ = ["Connecting", "connect"]

Opener = Callable[[str, Any, bool, "Clock | None"], Awaitable[Broker]]
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


class Connecting:
    """What `connect` gives: ``await`` it for the broker and close that yourself, or ``async with`` it."""

    def __init__(self, open_it: Callable[[], Awaitable[Broker]]) -> None:
        self._open = open_it
        self._broker: Broker | None = None

    def __await__(self) -> Generator[Any, None, Broker]:
        return self._open().__await__()

    async def __aenter__(self) -> Broker:
        self._broker = await self._open()
        return self._broker

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._broker is not None:
            await self._broker.aclose()


def connect(
    url: str | os.PathLike[str], *, options: object = None, create: bool = True, clock: Clock | None = None
) -> Connecting:
    """Open the engine that `url` names. Closing the broker closes the engine.

    A directory or ``:memory:``: embedded. ``nats://``, ``tls://``: JetStream; commas between several servers of one
    cluster. ``kafka://host:port,host:port?client_id=name``: Apache Kafka. ``options``: the engine's own
    (``EmbeddedOptions``, ``JetStreamOptions``, ``KafkaOptions``). ``create=False``: what does not exist is not made. A
    wrong scheme, query key or kind of options is a ``ConfigError``, an engine that is not built
    an ``UnsupportedError``; both are raised here, before any I/O.
    """
    text = os.fspath(url)
    if not isinstance(text, str) or not text:
        raise ConfigError(f"url must be a path, ':memory:' or a URL, got {url!r}")
    scheme = "" if isinstance(url, os.PathLike) else _scheme_of(text)
    if scheme not in _SCHEMES:
        raise ConfigError(f"url has an unknown scheme {scheme!r}, known: {', '.join(sorted(filter(None, _SCHEMES)))}")
    opener = _SCHEMES[scheme](text if scheme else f"file:{text}", options)
    return Connecting(lambda: opener(create, clock))


def _scheme_of(text: str) -> str:
    found = _SCHEME.match(text)
    return found[1].lower() if found else ""


def _embedded(url: str, options: Any) -> Callable[[bool, Clock | None], Awaitable[Broker]]:
    from headrace.embedded.options import EmbeddedOptions

    given = EmbeddedOptions() if options is None else options
    if not isinstance(given, EmbeddedOptions):
        raise ConfigError(f"options must be EmbeddedOptions for a directory, got {type(options).__name__}")
    path = _path_of(url)

    async def open_it(create: bool, clock: Clock | None) -> Broker:  # noqa: FBT001  (called in one place)
        from headrace.embedded.broker import EmbeddedBroker
        from headrace.embedded.engine import opened

        wanted = given if create or not given.create else replace(given, create=False)
        return EmbeddedBroker(await opened(path, options=wanted, clock=clock), create=create)

    return open_it


def _path_of(url: str) -> str:
    if not url.startswith("file://"):
        return url.removeprefix("file:")
    parts = urlsplit(url)
    if keys := [key for key, _ in parse_qsl(parts.query, keep_blank_values=True)]:
        raise ConfigError(f"url has an unknown query key {keys[0]!r}: options go into EmbeddedOptions")
    if parts.netloc not in {"", "localhost"} or parts.fragment or not parts.path:
        raise ConfigError(f"url must be file:///path, got {url!r}")
    return unquote(parts.path)


def _jetstream(url: str, options: Any) -> Callable[[bool, Clock | None], Awaitable[Broker]]:
    from headrace.jetstream.options import JetStreamOptions
    from headrace.nats.servers import parse_servers

    given = JetStreamOptions() if options is None else options
    if not isinstance(given, JetStreamOptions):
        raise ConfigError(f"options must be JetStreamOptions for a NATS server, got {type(options).__name__}")
    servers = _servers_of(url)
    parse_servers(servers)

    async def open_it(create: bool, clock: Clock | None) -> Broker:  # noqa: FBT001  (called in one place)
        from headrace.jetstream.broker import opened

        return await opened(servers, options=given, create=create, clock=clock)

    return open_it


def _servers_of(url: str) -> list[str]:
    """``nats://one,two``: what is named without a scheme has that of the first. No error here shows credentials."""
    scheme = url.partition("://")[0].lower()
    servers: list[str] = []
    for part in url.split(","):
        server = part if "://" in part else f"{scheme}://{part}"
        bare, asked, query = part.rpartition("@")[2].partition("?")
        if asked:
            key = query.partition("=")[0][:64]
            raise ConfigError(f"url has an unknown query key {key!a} behind {bare!a}: options go into JetStreamOptions")
        servers.append(server)
    return servers


def _kafka(url: str, options: Any) -> Callable[[bool, Clock | None], Awaitable[Broker]]:
    from headrace.kafka.options import KafkaOptions, addresses

    given = KafkaOptions() if options is None else options
    if not isinstance(given, KafkaOptions):
        raise ConfigError(f"options must be KafkaOptions for Kafka, got {type(options).__name__}")
    brokers, client_id = _brokers_of(url)
    addresses(brokers)
    if client_id is not None:
        given = replace(given, client_id=client_id)

    async def open_it(create: bool, clock: Clock | None) -> Broker:  # noqa: FBT001  (called in one place)
        from headrace.kafka.broker import KafkaBroker

        broker = KafkaBroker(brokers, options=given, create=create, clock=clock)
        await broker.open()
        return broker

    return open_it


def _brokers_of(url: str) -> tuple[str, str | None]:
    """``kafka://one:9092,two:9092?client_id=name``: the addresses, and the client's name if it has one."""
    bare, _, query = url.partition("://")[2].partition("?")
    if "@" in bare:
        raise ConfigError("url must not hold credentials: they go into KafkaOptions(security=…)")
    client_id = None
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key != "client_id":
            raise ConfigError(f"url has an unknown query key {key[:64]!a}: options go into KafkaOptions")
        client_id = value
    return bare, client_id


def _not_built(name: str) -> Callable[[str, Any], Any]:
    def refuse(*_: object) -> Any:
        raise UnsupportedError(f"the {name} engine is not built yet in this version of headrace")

    return refuse


_SCHEMES: dict[str, Callable[[str, Any], Callable[[bool, Clock | None], Awaitable[Broker]]]] = {
    "": _embedded,
    "file": _embedded,
    "nats": _jetstream,
    "tls": _jetstream,
    "kafka": _kafka,
    "sqs": _not_built("SQS"),
}
