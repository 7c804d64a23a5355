"""EmbeddedStreams: the opened engine, and `open`."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from types import CoroutineType, TracebackType
from typing import Any, Self

import apsw

from headrace.core.broker import Capabilities, Groups, KeyOrder, StartKind
from headrace.core.clock import Clock, current_clock
from headrace.core.errors import HeadraceError, PublishError
from headrace.core.headers import HeadersLike
from headrace.embedded.advisories import Advisory, Reopened, SyncFailed, guarded
from headrace.embedded.backup import BackupReport, take
from headrace.embedded.consumers.room import drop_stream
from headrace.embedded.consumers.rows import forget_filters
from headrace.embedded.consumers.rules import check_consumers
from headrace.embedded.errors import raise_translated
from headrace.embedded.options import EmbeddedOptions
from headrace.embedded.publishing.jobs import Pending
from headrace.embedded.room import Room
from headrace.embedded.stats import EngineStats, stats_of
from headrace.embedded.store.store import Store
from headrace.embedded.stream import EmbeddedStream
from headrace.embedded.streams import management
from headrace.embedded.streams.catalog import StreamRecord, forget_names, no_such_stream, stream_by_name, streams_all
from headrace.embedded.streams.configs import completed
from headrace.embedded.streams.state import messages_of_all, stream_info
from headrace.embedded.verify import VerifyReport, examine
from headrace.streams.config import (
    RetentionPolicy,
    StreamConfig,
    StreamMessage,
    StreamPublishOptions,
)
from headrace.streams.errors import StreamNotFoundError
from headrace.streams.info import AccountInfo, APIStats, PubAck, StreamInfo
from headrace.streams.msg import time_of_ns
from headrace.streams.registry import ManagerConsumers
from headrace.streams.subjects import overlaps, validate_filter, validate_name, validate_subject

__all__ = ["EmbeddedStreams", "open", "opened"]

_DEFAULT = EmbeddedOptions()


@asynccontextmanager
async def open(  # noqa: A001  (embedded.open reads as what it does)
    path: str | os.PathLike[str],
    *,
    options: EmbeddedOptions = _DEFAULT,
    clock: Clock | None = None,
    on_advisory: Callable[[Advisory], None] | None = None,
) -> AsyncGenerator[EmbeddedStreams]:
    """Open the store in this directory (``:memory:``: a private one without a disk) as an async context manager."""
    streams = await opened(path, options=options, clock=clock, on_advisory=on_advisory)
    async with streams:
        yield streams


async def opened(
    path: str | os.PathLike[str],
    *,
    options: EmbeddedOptions = _DEFAULT,
    clock: Clock | None = None,
    on_advisory: Callable[[Advisory], None] | None = None,
) -> EmbeddedStreams:
    """Like `open`, without the context manager: the caller closes it."""
    store = await Store.open(path, options, current_clock(clock))
    store.advise = guarded(on_advisory)
    streams = EmbeddedStreams(store)
    try:
        await streams.start()
    except BaseException as error:  # noqa: BLE001  (raised again below)
        await store.leave_untouched()
        await streams.aclose()
        raise_translated(error, os.fspath(path))
    return streams


class EmbeddedStreams(ManagerConsumers):
    """A `StreamManager` over a directory."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._room = Room(store)
        self._consumers = self._room.consumers
        self._publisher = self._room.publisher
        self._in_memory = store.path is None
        self._started = False
        self._failed_at = 0

    async def start(self) -> None:
        """Repair what a crash left, and begin."""
        store = self._store
        if store.options.read_only:
            return
        store.streams.on_rollback = self._rolled_back
        store.streams.on_broken = self._broken
        store.streams.on_mended = self._mended
        self._started = True
        await self._room.consumers.start()
        self._room.maintenance.start()
        await self._room.forgetting.start()
        if store.recovered:
            self._failed_at = store.now_ns()
            await self._tell_reopened()

    def _rolled_back(self) -> None:
        """On the thread: subjects made in that transaction do not exist, and their ids are given again."""
        connection = self._store.streams.connection
        forget_names(connection)
        forget_filters(connection)
        self._publisher.routes.clear()

    def _broken(self, error: BaseException) -> None:
        self._failed_at = self._store.now_ns()
        self._store.advise(SyncFailed(error=str(error), time=time_of_ns(self._failed_at)))

    def _mended(self) -> None:
        self._room.maintenance.spawn(self._tell_reopened())

    async def _tell_reopened(self) -> None:
        now = self._store.now_ns()
        took = timedelta(microseconds=(now - self._failed_at) // 1_000)
        with suppress(HeadraceError):  # a store that cannot be read either was not reopened
            messages = await self._room.read(messages_of_all)
            self._store.advise(Reopened(messages=messages, took=took, time=time_of_ns(now)))

    @property
    def clock(self) -> Clock:
        """Its source of time."""
        return self._store.clock

    @property
    def path(self) -> Path | None:
        """Its directory; ``None`` in memory."""
        return self._store.path

    @property
    def system(self) -> str:
        """``headrace``."""
        return "headrace"

    @property
    def max_payload(self) -> int:
        """Largest message, headers and body, in bytes."""
        return self._store.options.max_payload

    @property
    def capabilities(self) -> Capabilities:
        """What it promises."""
        return Capabilities(
            key_order=KeyOrder.MEMBER, ordered=True, counts=True, durable=not self._in_memory, groups=Groups.MANY,
            broadcast=True, delayed_nak=True, extend=True, replay=frozenset(StartKind), wildcards=True,
            many_topics=False, dedup=True, expect=True, ttl=True, batch_key_order=True,
            max_body=self.max_payload - 64 * 1024 if self.max_payload > 64 * 1024 else None,
        )  # fmt: skip

    async def create_stream(self, config: StreamConfig) -> EmbeddedStream:
        """Make it; an equal one is fine, a different one is ``StreamNameInUseError``."""
        self._store.check_writable()
        config, now = completed(config, in_memory=self._in_memory), self._store.now_ns()
        await self._room.write(lambda connection: management.create(connection, config, now))
        return await self.stream(config.name)

    async def update_stream(self, config: StreamConfig) -> EmbeddedStream:
        """Change it; ``StreamNotFoundError``."""
        self._store.check_writable()
        config, now = completed(config, in_memory=self._in_memory), self._store.now_ns()

        def change(connection: apsw.Connection) -> tuple[StreamRecord, RetentionPolicy]:
            before = stream_by_name(connection, config.name).config.retention
            record = management.update(connection, config, now)
            check_consumers(connection, record)
            return record, before

        record, before = await self._room.write(change)
        self._room.maintenance.plan_sweep()
        if config.retention is not before:
            await self._room.consumers.repair(record.id)
        return await self.stream(config.name)

    async def create_or_update_stream(self, config: StreamConfig) -> EmbeddedStream:
        """Change or make it."""
        try:
            return await self.update_stream(config)
        except StreamNotFoundError:
            return await self.create_stream(config)

    async def stream(self, name: str) -> EmbeddedStream:
        """The stream of this name; ``StreamNotFoundError``."""
        validate_name(name)
        now = self._store.now_ns()
        info = await self._room.read(lambda connection: stream_info(connection, stream_by_name(connection, name), now))
        return EmbeddedStream(self._room, info)

    async def delete_stream(self, name: str) -> None:
        """Delete it with its consumers; ``StreamNotFoundError``."""
        self._store.check_writable()
        validate_name(name)
        record = await self._room.read(lambda connection: stream_by_name(connection, name))
        await self._store.consumers.call(lambda connection: drop_stream(connection, record.id))
        await self._room.write(lambda connection: management.drop(connection, name))

    async def stream_name_by_subject(self, subject: str) -> str:
        """The first stream that covers it; ``StreamNotFoundError``."""
        validate_filter(subject)
        for record in await self._room.read(streams_all):
            if any(overlaps(each, subject) for each in record.config.subjects):
                return record.name
        raise no_such_stream(f"none covers {subject}")

    async def list_streams(self, *, subject: str | None = None) -> AsyncIterator[StreamInfo]:
        """All streams, or those that overlap `subject`."""
        if subject is not None:
            validate_filter(subject)
        await self._room.flush_acks()
        now = self._store.now_ns()
        infos = await self._room.read(
            lambda connection: [stream_info(connection, record, now) for record in streams_all(connection)]
        )
        for info in infos:
            if subject is None or any(overlaps(each, subject) for each in info.config.subjects):
                yield info

    async def stream_names(self, *, subject: str | None = None) -> AsyncIterator[str]:
        """Their names."""
        if subject is not None:
            validate_filter(subject)
        for record in await self._room.read(streams_all):
            if subject is None or any(overlaps(each, subject) for each in record.config.subjects):
                yield record.name

    async def account_info(self) -> AccountInfo:
        """What is used; there are no limits."""
        infos = [info async for info in self.list_streams()]
        size = sum(info.state.bytes for info in infos)
        return AccountInfo(
            memory=size if self._in_memory else 0,
            storage=0 if self._in_memory else size,
            streams=len(infos),
            consumers=sum(info.state.consumers for info in infos),
            api=APIStats(total=self._store.calls, errors=self._store.errors),
        )

    def publish(  # a coroutine handed on, not wrapped in another: a tenth of the cost of a publish
        self,
        subject: str,
        data: bytes = b"",
        *,
        headers: HeadersLike | None = None,
        msg_id: str | None = None,
        options: StreamPublishOptions | None = None,
    ) -> CoroutineType[Any, Any, PubAck]:
        """Store a message; returns once it is on disk. ``PublishError``."""
        # mypy has no word for what pyright (and Python) call this coroutine's type
        return self._publisher.publish(subject, data, headers, msg_id, options=options)  # type: ignore[return-value]

    async def publish_msg(self, message: StreamMessage, *, options: StreamPublishOptions | None = None) -> PubAck:
        """Store a message."""
        given = message.headers
        return await self._publisher.publish(message.subject, message.data, given, message.msg_id, options=options)

    async def publish_many(self, messages: Sequence[StreamMessage]) -> list[PubAck | PublishError]:
        """One result per item, in order; an item fails alone."""
        return await self._publisher.publish_many(messages)

    async def publish_async(
        self,
        subject: str,
        data: bytes = b"",
        *,
        headers: HeadersLike | None = None,
        msg_id: str | None = None,
        options: StreamPublishOptions | None = None,
    ) -> Pending:
        """Send without waiting for the answer; suspends only when the window is full (``TooManyPendingError``)."""
        message = StreamMessage(validate_subject(subject), data, {} if headers is None else headers, msg_id)
        return await self._publisher.publish_async(message, options)

    async def publish_msg_async(
        self, message: StreamMessage, *, options: StreamPublishOptions | None = None
    ) -> Pending:
        """Like `publish_async`."""
        return await self._publisher.publish_async(message, options)

    @property
    def publish_async_pending(self) -> int:
        """How many answers are outstanding."""
        return self._publisher.outstanding

    async def publish_async_complete(self, timeout: float | None = None) -> None:
        """Returns when none is outstanding; ``BrokerTimeoutError`` if late. Failures stay in their futures."""
        await self._publisher.complete(timeout)

    async def publish_atomic(self, messages: Sequence[StreamMessage]) -> PubAck:
        """Store up to 1,000 messages of one stream in one commit, or none of them; the answer is that of the last.

        ``AtomicBatchError``: too many, an id that was stored before, several streams, a stream without `allow_atomic`;
        otherwise the error of the first message that is refused.
        """
        return await self._publisher.publish_atomic(messages)

    async def sync(self) -> None:
        """Everything acknowledged and every ack so far is on disk."""
        self._store.check_writable()
        await self._room.consumers.flush()
        await self._room.maintenance.sync()

    async def backup(
        self, file: str | os.PathLike[str], *, streams: Sequence[str] | None = None, overwrite: bool = False
    ) -> BackupReport:
        """A consistent copy of the store in one file, taken while it is in use."""
        self._store.check_usable()
        await self._room.flush_acks()
        return await take(self._store, Path(file), streams, overwrite=overwrite)

    async def verify(self) -> VerifyReport:
        """Look at every record, while in use."""
        self._store.check_usable()
        return await self._room.read(examine)

    def stats(self) -> EngineStats:
        """Plain numbers, no I/O but the size of the logs."""
        return stats_of(self._room)

    async def aclose(self) -> None:
        """Stop accepting, commit what was accepted, flush acks, close. Twice is fine."""
        store = self._store
        if store.foreign:
            return
        if not store.closed:
            store.check_usable()
            store.hurry()
        try:
            if not (store.closed or store.options.read_only) and self._started:
                self._publisher.close()
                await self._room.forgetting.aclose()
                await self._room.maintenance.aclose()
                await self._room.consumers.aclose()
        finally:
            await store.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
