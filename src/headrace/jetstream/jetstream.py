"""JetStream: streams on a NATS server, opened; and `connect`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from types import CoroutineType, TracebackType
from typing import Any, Self

from headrace.core.broker import Capabilities, Groups, KeyOrder, StartKind
from headrace.core.clock import Clock
from headrace.core.errors import ConfigError, PublishError
from headrace.core.headers import HeadersLike
from headrace.jetstream.consumers.registry import Consumers
from headrace.jetstream.options import JetStreamOptions
from headrace.jetstream.protocol.api import Api
from headrace.jetstream.protocol.configs import stream_config_to_json
from headrace.jetstream.protocol.echo import MESSAGE_TTL, dropped_of_stream, may_get_lost, not_kept, require_known
from headrace.jetstream.protocol.infos import account_info, stream_info
from headrace.jetstream.protocol.values import flag, optional, record, required, sections, texts
from headrace.jetstream.publishing.publisher import Publisher
from headrace.jetstream.stream import ServerStream
from headrace.nats.connection import Connection
from headrace.nats.options import ConnectionOptions
from headrace.streams.api import PublishFuture
from headrace.streams.config import (
    StreamConfig,
    StreamMessage,
    StreamPublishOptions,
)
from headrace.streams.errors import StreamError, StreamNotFoundError, error_for
from headrace.streams.info import AccountInfo, PubAck, StreamInfo
from headrace.streams.registry import ManagerConsumers
from headrace.streams.subjects import validate_filter, validate_name

__all__ = ["JetStream", "connect", "opened"]

_DEFAULT = JetStreamOptions()
_DEFAULT_URL = "nats://127.0.0.1:4222"
_HEADER_ROOM = 64 * 1024
"""Kept free for the headers of a message that comes through a broker."""


@asynccontextmanager
async def connect(
    servers: str | Sequence[str] = _DEFAULT_URL,
    *,
    options: JetStreamOptions = _DEFAULT,
    clock: Clock | None = None,
) -> AsyncGenerator[JetStream]:
    """Connect to one of these servers, as an async context manager that gives a `JetStream`.

    ``ConnectionLostError``: none of them took us; whether there are streams shows with the first call.
    """
    streams = await opened(servers, options=options, clock=clock)
    async with streams:
        yield streams


async def opened(
    servers: str | Sequence[str] = _DEFAULT_URL,
    *,
    options: JetStreamOptions = _DEFAULT,
    clock: Clock | None = None,
) -> JetStream:
    """Like `connect`, without the context manager: the caller closes it, and with it the connection."""
    connection = Connection(servers, options.connection, clock=clock)
    try:
        await connection.connect()
        return JetStream(connection, replace(options, connection=ConnectionOptions()), owns=True)
    except BaseException:
        await connection.aclose()
        raise


class JetStream(ManagerConsumers):
    """A `StreamManager` over a connection to a NATS server.

    It borrows the connection and leaves it open, unless it ``owns`` it. ``options.connection`` is for `connect`.
    """

    def __init__(self, connection: Connection, options: JetStreamOptions = _DEFAULT, *, owns: bool = False) -> None:
        if options.connection != ConnectionOptions():
            raise ConfigError("options.connection is for connect(): this connection is made already")
        self.connection = connection
        self._owns = owns
        self._api = Api(connection, options)
        self._consumers = Consumers(self._api)
        self._publisher = Publisher(self._api)

    @property
    def clock(self) -> Clock:
        """Its source of time."""
        return self.connection.clock

    @property
    def system(self) -> str:
        """``nats``."""
        return "nats"

    @property
    def max_payload(self) -> int:
        """Largest message, headers and body, in bytes."""
        return self.connection.max_payload

    @property
    def capabilities(self) -> Capabilities:
        """What it promises."""
        most = self.max_payload
        return Capabilities(
            key_order=KeyOrder.MEMBER, ordered=True, counts=True, durable=True, groups=Groups.MANY, broadcast=True,
            delayed_nak=True, extend=True, replay=frozenset(StartKind), wildcards=True, many_topics=False, dedup=True,
            expect=True, ttl=self.connection.server_info.version_tuple[:2] >= MESSAGE_TTL, batch_key_order=False,
            max_body=most - _HEADER_ROOM if most > _HEADER_ROOM else None,
        )  # fmt: skip

    async def create_stream(self, config: StreamConfig) -> ServerStream:
        """Make it; an equal one is fine, a different one is ``StreamNameInUseError``."""
        return await self._put("CREATE", config)

    async def update_stream(self, config: StreamConfig) -> ServerStream:
        """Change it; ``StreamNotFoundError``."""
        return await self._put("UPDATE", config)

    async def create_or_update_stream(self, config: StreamConfig) -> ServerStream:
        """Change or make it."""
        try:
            return await self.update_stream(config)
        except StreamNotFoundError:
            return await self.create_stream(config)

    async def stream(self, name: str) -> ServerStream:
        """The stream of this name; ``StreamNotFoundError``."""
        validate_name(name)
        return ServerStream(self._api, stream_info(await self._api.ask(f"STREAM.INFO.{name}")))

    async def delete_stream(self, name: str) -> None:
        """Delete it with its consumers; ``StreamNotFoundError``."""
        validate_name(name)
        subject = f"STREAM.DELETE.{name}"
        if not required(await self._api.ask(subject), "success", flag, subject):
            raise StreamError(f"stream {name!r} was not deleted")

    async def stream_name_by_subject(self, subject: str) -> str:
        """The first stream that covers it; ``StreamNotFoundError``."""
        for name in _names(await self._api.ask("STREAM.NAMES", _about(subject))):
            return name
        raise error_for(404, 10059, f"stream not found: none covers {subject}")

    async def list_streams(self, *, subject: str | None = None) -> AsyncIterator[StreamInfo]:
        """All streams, or those that overlap `subject`."""
        where, body = "STREAM.LIST", _about(subject)
        async for page in self._api.pages(where, body, lambda page: len(sections(page, "streams", where))):
            for each in sections(page, "streams", where):
                yield stream_info(each)

    async def stream_names(self, *, subject: str | None = None) -> AsyncIterator[str]:
        """Their names."""
        async for page in self._api.pages("STREAM.NAMES", _about(subject), lambda page: len(_names(page))):
            for name in _names(page):
                yield name

    async def account_info(self) -> AccountInfo:
        """What is used, and the limits. ``JetStreamNotEnabledError`` where there are no streams."""
        return account_info(await self._api.ask("INFO"))

    def publish(  # a coroutine handed on, not wrapped in another
        self,
        subject: str,
        data: bytes = b"",
        *,
        headers: HeadersLike | None = None,
        msg_id: str | None = None,
        options: StreamPublishOptions | None = None,
    ) -> CoroutineType[Any, Any, PubAck]:
        """Store a message; returns once a stream has acknowledged it. ``PublishError``.

        That is no proof against a power cut: with its default settings a single server syncs its files every two
        minutes.
        """
        # mypy has no word for what pyright (and Python) call this coroutine's type
        return self._publisher.publish(subject, data, headers=headers, msg_id=msg_id, options=options)  # type: ignore[return-value]

    async def publish_msg(self, message: StreamMessage, *, options: StreamPublishOptions | None = None) -> PubAck:
        """Store a message."""
        return await self._publisher.publish_msg(message, options=options)

    async def publish_many(self, messages: Sequence[StreamMessage]) -> list[PubAck | PublishError]:
        """One result per item, in order; an item fails alone."""
        return await self._publisher.publish_many(messages)

    def publish_async(  # handed on like `publish`: it is called for each message
        self,
        subject: str,
        data: bytes = b"",
        *,
        headers: HeadersLike | None = None,
        msg_id: str | None = None,
        options: StreamPublishOptions | None = None,
    ) -> CoroutineType[Any, Any, PublishFuture]:
        """Send without waiting for the answer; suspends only when the window is full (``TooManyPendingError``)."""
        return self._publisher.publish_async(subject, data, headers=headers, msg_id=msg_id, options=options)  # type: ignore[return-value]

    async def publish_msg_async(
        self, message: StreamMessage, *, options: StreamPublishOptions | None = None
    ) -> PublishFuture:
        """Like `publish_async`."""
        return await self._publisher.publish_msg_async(message, options=options)

    @property
    def publish_async_pending(self) -> int:
        """How many answers are outstanding."""
        return self._publisher.publish_async_pending

    async def publish_async_complete(self, timeout: float | None = None) -> None:
        """Returns when none is outstanding; ``BrokerTimeoutError`` if late. Failures stay in their futures."""
        await self._publisher.publish_async_complete(timeout)

    async def publish_atomic(self, messages: Sequence[StreamMessage]) -> PubAck:
        """All or nothing: all to one stream that has ``allow_atomic``, at most 1000."""
        return await self._publisher.publish_atomic(messages)

    async def aclose(self) -> None:
        """Every pending publish and request ends; the connection is closed if it is its own. Twice is fine."""
        self._publisher.close()
        self._api.close()
        if self._owns:
            await self.connection.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _put(self, verb: str, config: StreamConfig) -> ServerStream:
        config.require_writable()
        require_known(config, self.connection.server_info)
        sent = stream_config_to_json(config)
        subject = f"STREAM.{verb}.{config.name}"
        new = verb == "CREATE" and may_get_lost(config) and await self._api.is_missing(f"STREAM.INFO.{config.name}")
        answer = await self._api.ask(subject, sent)
        info = stream_info(answer)
        dropped = dropped_of_stream(sent, required(answer, "config", record, subject))
        if dropped:
            if new:
                await self.delete_stream(config.name)
            raise not_kept(dropped, f"stream {config.name!r}", deleted=new)
        return ServerStream(self._api, info)


def _about(subject: str | None) -> dict[str, Any]:
    return {} if subject is None else {"subject": validate_filter(subject)}


def _names(page: dict[str, Any]) -> tuple[str, ...]:
    nothing: tuple[str, ...] = ()
    return optional(page, "streams", texts, nothing, "STREAM.NAMES")
