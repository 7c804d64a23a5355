"""ConsumerRoom: the consumers of an opened store: making, changing, deleting, listing them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime

import apsw

from headrace.embedded.advisories import ConsumerDeleted
from headrace.embedded.consumers.consumer import EmbeddedConsumer
from headrace.embedded.consumers.counts import info_of, sweep
from headrace.embedded.consumers.expiry import Expiry
from headrace.embedded.consumers.place import Place
from headrace.embedded.consumers.reboot import go_on
from headrace.embedded.consumers.rows import (
    ConsumerRow,
    consumer_by_name,
    consumers_of,
    drop,
    nanoseconds,
    settings_of,
    text_of,
)
from headrace.embedded.consumers.rules import (
    check_config,
    check_new,
    check_supported,
    check_update,
    complete,
    going_on,
    refused,
    same,
)
from headrace.embedded.consumers.shared import Shared
from headrace.embedded.consumers.starts import start_of
from headrace.embedded.store.checkpoints import sync_log
from headrace.embedded.store.files import CONSUMERS_FILE
from headrace.embedded.store.sql import every
from headrace.embedded.store.store import Store
from headrace.embedded.streams.catalog import stream_by_name
from headrace.streams.config import ConsumerConfig, OrderedConsumerConfig
from headrace.streams.consumer import Consumer
from headrace.streams.errors import ConsumerDeletedError, error_for
from headrace.streams.info import ConsumerInfo
from headrace.streams.msg import time_of_ns
from headrace.streams.ordered import OrderedConsumer
from headrace.streams.subjects import validate_consumer_name

__all__ = ["ConsumerRoom", "drop_stream"]

_INSERT = (
    "INSERT INTO consumer(stream, name, config, created, delivered_c, delivered_s, floor_c, floor_s, active, inactive, "
    "since, scanned, snapshot) VALUES(?, ?, ?, ?, 0, ?, 0, ?, ?, ?, ?, ?, ?)"
)


def drop_stream(connection: apsw.Connection, stream_id: int) -> None:
    """Delete all consumers of a stream."""
    for row in consumers_of(connection, stream_id):
        drop(connection, row.id)


def _drop_those_in_memory(connection: apsw.Connection, before: int) -> None:
    """Consumers with ``memory_storage`` lived until the last process closed the store (others may have come since)."""
    for consumer_id, config in every(connection, "SELECT id, config FROM consumer WHERE created < ?", (before,)):
        if settings_of(config).config.memory_storage:
            drop(connection, consumer_id)


class ConsumerRoom:
    """All consumers of one opened store, as this process uses them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.shared = Shared(store)
        self._places: dict[int, Place] = {}
        self._expiry = Expiry(self.shared, self._dropped)

    async def start(self) -> None:
        """Join the other processes, repair what a crash left, watch for idle consumers."""
        if self.store.options.read_only:
            return
        await self.store.consumers.call(lambda connection: go_on(connection, self.store.now_ns(), self.store.boot_ns()))
        await self.shared.join()
        if self.store.alone:
            before = self.store.began_ns
            await self.store.consumers.call(lambda connection: _drop_those_in_memory(connection, before))
        await self.repair()
        await self._expiry.start()

    async def repair(self, stream_id: int | None = None) -> None:
        """Delete what no consumer of this (or any) interest or workqueue stream needs."""
        await self.shared.repair(stream_id)

    def unwritten(self) -> int:
        """Acks of this process that are in memory only."""
        return sum(place.unwritten() for place in self._places.values())

    async def flush(self) -> None:
        """All acks of this process are committed, and what they remove is gone."""
        for _ in range(2):  # what was on its way, and what waited behind it
            for place in list(self._places.values()):
                place.write()
            await self.store.consumers.call(_nothing)
        await self.shared.removed()

    async def aclose(self) -> None:
        """Hand back what nobody saw, write all acks, leave the other processes."""
        shared = self.shared
        if shared.closing or self.store.options.read_only:
            return
        shared.closing = True
        self._expiry.stop()
        for place in list(self._places.values()):
            place.end(None)
        failures: list[Exception] = []
        try:
            for session in list(shared.sessions):
                try:
                    await session.aclose()
                except Exception as error:  # noqa: BLE001  (the others hand back too; raised below)
                    failures.append(error)
            await self.flush()  # once more what a session could not write
        finally:
            await shared.leave()
        if failures:
            raise failures[0]

    # --- calls

    async def create(self, stream: str, config: ConsumerConfig) -> Consumer:
        """Make it; an equal one is fine, a different one is ``ConsumerExistsError``."""
        return await self._put(stream, config, create=True, update=False)

    async def update(self, stream: str, config: ConsumerConfig) -> Consumer:
        """Change it; a missing one is ``ConsumerDoesNotExistError``."""
        return await self._put(stream, config, create=False, update=True)

    async def create_or_update(self, stream: str, config: ConsumerConfig) -> Consumer:
        """Make or change it."""
        return await self._put(stream, config, create=True, update=True)

    async def get(self, stream: str, name: str) -> Consumer:
        """The consumer of this name; ``ConsumerNotFoundError``."""
        return self._handle(*await self._look(stream, name, write=False))

    async def info(self, stream: str, name: str) -> ConsumerInfo:
        """Its info, everything acknowledged here included."""
        return (await self._look(stream, name, write=True))[1]

    async def delete(self, stream: str, name: str) -> None:
        """Delete it; its pulls end with ``ConsumerDeletedError``."""
        self.store.check_writable()

        def delete(connection: apsw.Connection) -> tuple[int, int]:
            record = stream_by_name(connection, stream)
            row = consumer_by_name(connection, record.id, name)
            if row is None:
                raise _not_found()
            drop(connection, row.id)
            return row.id, record.id

        consumer_id, stream_id = await self.store.ask(self.store.consumers, delete)
        self._dropped(consumer_id, stream, name, "request")
        await self.repair(stream_id)
        await self._durable()

    async def _durable(self) -> None:
        """What makes, changes or deletes returns once that survives a power cut, in both modes of durability."""
        path = self.store.path
        if path is not None:
            await self.store.offload(lambda: sync_log(path, CONSUMERS_FILE))

    def _dropped(self, consumer_id: int, stream: str, name: str, cause: str) -> None:
        """Its row is gone: end its pulls here and everywhere."""
        place = self._places.get(consumer_id)
        if place is not None:
            place.end(ConsumerDeletedError("the consumer was deleted"))
        self.store.notify()
        time = time_of_ns(self.store.now_ns())
        self.store.advise(
            ConsumerDeleted(
                stream=stream, consumer=name, time=time, cause="inactive" if cause == "inactive" else "request"
            )
        )

    async def pause(self, stream: str, name: str, until: datetime | None) -> ConsumerInfo:
        """Hand out nothing until then, in no process; ``None``: hand out again."""
        self.store.check_writable()
        wall, now = self.store.now_ns(), self.store.boot_ns()

        def change(connection: apsw.Connection) -> tuple[int, ConsumerInfo]:
            row = consumer_by_name(connection, stream_by_name(connection, stream).id, name)
            if row is None:
                raise _not_found()
            row.config = text_of(replace(settings_of(row.config).config, pause_until=until))
            connection.execute("UPDATE consumer SET config = ? WHERE id = ?", (row.config, row.id))
            info = info_of(connection, row, wall, now)
            assert info is not None  # noqa: S101  (its stream was found above)
            return row.id, info

        consumer_id, info = await self.store.ask(self.store.consumers, change)
        self._handle(consumer_id, info)
        self.store.notify()
        await self._durable()
        return info

    async def ordered(self, stream: str, config: OrderedConsumerConfig) -> Consumer:
        """A reader of its own; made at first use."""
        self.store.check_writable()
        await self.store.reader.call(lambda connection: stream_by_name(connection, stream))

        async def create(inner: ConsumerConfig) -> Consumer:
            return await self.create(stream, inner)

        async def delete(name: str) -> None:
            await self.delete(stream, name)

        return OrderedConsumer(stream, config, create, delete)

    async def infos(self, stream: str) -> AsyncIterator[ConsumerInfo]:
        """All consumers of a stream."""
        async for name in self.names(stream):
            try:
                info = await self.info(stream, name)
            except type(_not_found()):
                continue
            yield info

    async def names(self, stream: str) -> AsyncIterator[str]:
        """Their names."""
        self.store.check_usable()

        def names(connection: apsw.Connection) -> list[str]:
            return [row.name for row in consumers_of(connection, stream_by_name(connection, stream).id)]

        for name in await self.store.ask(self.store.reader, names):
            yield name

    async def _look(self, stream: str, name: str, *, write: bool) -> tuple[int, ConsumerInfo]:
        """Id and info. The writing thread also forgets what was deleted while it was pending."""
        self.store.check_usable()
        validate_consumer_name(name)
        write = write and not self.store.options.read_only
        if write:
            await self.flush()

        def look(connection: apsw.Connection) -> tuple[int, ConsumerInfo]:
            record = stream_by_name(connection, stream)
            row = consumer_by_name(connection, record.id, name)
            if row is None:
                raise _not_found()
            wall, now = self.store.now_ns(), self.store.boot_ns()
            if write:
                sweep(connection, row, wall, now)
            place = self._places.get(row.id)
            waiting = len(place.requests) if place is not None else 0
            info = info_of(connection, row, wall, now, waiting)
            if info is None:
                raise _not_found()
            return row.id, info

        thread = self.store.consumers if write else self.store.reader
        return await self.store.ask(thread, look)

    async def _put(self, stream: str, config: ConsumerConfig, *, create: bool, update: bool) -> Consumer:
        self.store.check_writable()
        check_supported(config)
        wall, now = self.store.now_ns(), self.store.boot_ns()

        def put(connection: apsw.Connection) -> tuple[ConsumerRow, ConsumerInfo, bool]:
            record = stream_by_name(connection, stream)
            name = config.effective_name
            row = None if name is None else consumer_by_name(connection, record.id, name)
            wanted, moved = complete(config, record.config.consumer_limits), False
            check_config(record, wanted)
            if row is None:
                if not create:
                    raise refused(10149, "consumer does not exist")
                check_new(connection, record, wanted)
                _insert(connection, record.id, wanted, wall, now)
            elif not same(old := settings_of(row.config).config, wanted := going_on(old, wanted)):
                if not update:
                    raise refused(10148, "consumer already exists")
                check_update(connection, record, old, wanted, row.name)
                _change(connection, row, wanted, now)
                moved = old.filters != wanted.filters
            row = consumer_by_name(connection, record.id, str(wanted.name))
            assert row is not None  # noqa: S101  (written above)
            info = info_of(connection, row, wall, now)
            assert info is not None  # noqa: S101  (its stream was found above)
            return row, info, moved

        row, info, moved = await self.store.ask(self.store.consumers, put)
        # A publish that runs in an older snapshot would not know this consumer: wait until it has ended.
        await self.store.streams.call(_nothing)
        if moved:
            await self.repair(row.stream)
        await self._durable()
        self._expiry.watch(nanoseconds(info.config.inactive_threshold))
        return self._handle(row.id, info)

    def _handle(self, consumer_id: int, info: ConsumerInfo) -> Consumer:
        place = self._places.get(consumer_id)
        if place is None:
            text = text_of(info.config)
            place = Place(self.shared, consumer_id, info.stream, info.name, text, gone=self._forget)
            self._places[consumer_id] = place
        else:
            place.settings = settings_of(text_of(info.config))
            place.kick()
        return EmbeddedConsumer(place, info, self.info, self.pause)

    def _forget(self, place: Place) -> None:
        self._places.pop(place.id, None)


def _insert(connection: apsw.Connection, stream_id: int, config: ConsumerConfig, wall: int, now: int) -> None:
    before, snapshot = start_of(connection, stream_id, config, wall)
    text, inactive = text_of(config), nanoseconds(config.inactive_threshold)
    values = (stream_id, config.name, text, wall, before, before, now, inactive, before, before, snapshot)
    connection.execute(_INSERT, values)


def _change(connection: apsw.Connection, row: ConsumerRow, config: ConsumerConfig, now: int) -> None:
    """The position stays. With other filters, what stands in front of it was never this consumer's."""
    moved = settings_of(row.config).config.filters != config.filters
    since, scanned = (row.delivered_s, row.delivered_s) if moved else (row.since, row.scanned)
    connection.execute(
        "UPDATE consumer SET config = ?, inactive = ?, active = ?, since = ?, scanned = ? WHERE id = ?",
        (text_of(config), nanoseconds(config.inactive_threshold), now, since, scanned, row.id),
    )


def _not_found() -> Exception:
    return error_for(404, 10014, "consumer not found")


def _nothing(_: apsw.Connection) -> None:
    return
