"""EmbeddedStream: the handle of one stream. It holds a name; what it says is looked up anew each time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from functools import partial
from typing import TypeVar

import apsw

from headrace.core.errors import ConfigError
from headrace.embedded.advisories import CorruptionFound, Problem
from headrace.embedded.errors import CorruptedError, DiskFullError
from headrace.embedded.room import Room
from headrace.embedded.scrub import scrub
from headrace.embedded.streams import management, read
from headrace.embedded.streams.catalog import StreamRecord, stream_by_name
from headrace.embedded.streams.state import stream_info
from headrace.streams.config import GetBatch, PurgeOptions
from headrace.streams.info import StreamInfo
from headrace.streams.msg import RawStreamMsg, time_of_ns
from headrace.streams.registry import StreamConsumers
from headrace.streams.stored import LAST, check_newest, check_page, checked_sequence, not_found, size_of
from headrace.streams.subjects import validate_filter

__all__ = ["EmbeddedStream"]

T = TypeVar("T")
PAGE = 256
_ALL = PurgeOptions()
_SLICE = 10_000


class EmbeddedStream(StreamConsumers):
    """One stored, ordered log in a directory."""

    def __init__(self, room: Room, info: StreamInfo) -> None:
        self._room = room
        self._store = room.store
        self._info = info
        self._name = info.config.name
        self._consumers = room.consumers

    def __repr__(self) -> str:
        return f"EmbeddedStream({self._name!r})"

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    @property
    def cached_info(self) -> StreamInfo:
        """As last seen, without I/O."""
        return self._info

    async def info(self, *, deleted_details: bool = False, subject_filter: str | None = None) -> StreamInfo:
        """As it is now; the sequences of gaps, or the messages per subject, when asked."""
        if subject_filter is not None:
            validate_filter(subject_filter)
        now = self._store.now_ns()
        await self._room.flush_acks()
        info = await self._read(
            lambda connection, record: stream_info(
                connection, record, now, deleted=deleted_details, subjects=subject_filter
            )
        )
        self._info = info
        return info

    async def purge(self, options: PurgeOptions = _ALL) -> int:
        """Delete messages; how many went. In slices, so that nobody who publishes waits for all of it."""
        if options.sequence is not None and options.sequence > LAST:
            raise ConfigError(f"sequence must be at most {LAST}, got {options.sequence!r}")
        now = self._store.now_ns()
        bound = await self._read(lambda connection, record: management.purge_bound(connection, record, options, now))
        purged, reached, most = 0, -1, _SLICE
        while reached < bound:
            if self._room.maintenance.full:  # deleting takes space in the log first
                await self._room.maintenance.make_room()
            part = partial(
                management.purge, name=self._name, options=options, bound=bound, now=now, most=most, after=reached
            )
            try:
                gone, reached = await self._room.write(part)
            except DiskFullError:
                if most == 1:
                    raise
                await self._room.maintenance.make_room()
                most = max(1, most // 4)
            else:
                purged += gone
        return purged

    async def get_msg(self, sequence: int, *, subject: str | None = None) -> RawStreamMsg:
        """The message; with `subject` (wildcards allowed) the first at or after it. ``MessageNotFoundError``."""
        sequence = checked_sequence(sequence)
        if subject is not None:
            validate_filter(subject)
        now, check = self._store.now_ns(), self._store.options.check_rows
        return await self._read(
            lambda connection, record: read.get(connection, record, sequence, subject, now, check=check)
        )

    async def get_last_msg_for_subject(self, subject: str) -> RawStreamMsg:
        """The newest on it (wildcards allowed). ``MessageNotFoundError``."""
        validate_filter(subject)
        now, check = self._store.now_ns(), self._store.options.check_rows
        return await self._read(lambda connection, record: read.last_on(connection, record, subject, now, check=check))

    async def delete_msg(self, sequence: int) -> None:
        """Delete one. ``MessageDeleteError``."""
        await self._room.write(
            lambda connection: management.delete_message(
                connection, self._name, min(sequence, LAST), self._store.now_ns()
            )
        )

    async def secure_delete_msg(self, sequence: int) -> None:
        """Delete one and overwrite it: after it returns no file of the store holds its payload."""
        await scrub(self._room, management.overwrite(self._name, min(sequence, LAST), self._store.now_ns()))

    async def read(
        self, *, subject: str = ">", start: int | datetime = 1, offset: int = 0, limit: int = 250
    ) -> list[RawStreamMsg]:
        """Live messages in sequence order from `start` (a datetime: the first at or after it), past the end none."""
        validate_filter(subject)
        check_page(start, offset, limit)
        now, check = self._store.now_ns(), self._store.options.check_rows
        since = read.ns_of(start) if isinstance(start, datetime) else None

        def look(connection: apsw.Connection, record: StreamRecord) -> list[RawStreamMsg]:
            first = min(start, LAST) if isinstance(start, int) else read.first_at(connection, record.id, since or 0)
            return read.page(connection, record, subject, first, offset, limit, now, check=check)

        return await self._read(look)

    async def get_batch(self, options: GetBatch) -> AsyncIterator[RawStreamMsg]:
        """Live messages in sequence order. None at all: ``MessageNotFoundError``."""
        start: int | datetime = options.start_time or options.start_sequence or 1
        left, room = options.batch, options.max_bytes
        while left and (room is None or room > 0):
            page = await self.read(subject=options.subject, start=start, limit=min(left, PAGE))
            if not page and left == options.batch:
                raise not_found()
            for message in page:
                if room is not None:
                    if room <= 0:
                        return
                    room -= size_of(message)
                yield message
            if len(page) < min(left, PAGE):
                return
            left -= len(page)
            start = page[-1].sequence + 1

    def get_last_for(
        self, subjects: Sequence[str], *, up_to_sequence: int | None = None, batch: int | None = None
    ) -> AsyncIterator[RawStreamMsg]:
        """The newest of each subject (wildcards allowed), as of `up_to_sequence`, in sequence order, at most `batch`.

        None at all: ``MessageNotFoundError``. What is deleted while this runs is left out.
        """
        check_newest(subjects, up_to_sequence, batch)
        return self._last_for(tuple(subjects), min(up_to_sequence or LAST, LAST), batch)

    async def _last_for(self, subjects: Sequence[str], upto: int, batch: int | None) -> AsyncIterator[RawStreamMsg]:
        now, check = self._store.now_ns(), self._store.options.check_rows
        found = await self._read(lambda connection, record: read.newest(connection, record, subjects, upto, now))
        if not found:
            raise not_found()
        found = found[:batch]
        for place in range(0, len(found), PAGE):
            part = partial(read.several, sequences=found[place : place + PAGE], now=now, check=check)
            for message in await self._read(part):
                yield message

    async def _read(self, function: Callable[[apsw.Connection, StreamRecord], T]) -> T:
        try:
            return await self._room.read(
                lambda connection: function(connection, stream_by_name(connection, self._name))
            )
        except CorruptedError as error:
            problem = Problem(stream=error.stream, sequence=error.sequence, file="streams.db", what=str(error))
            now = time_of_ns(self._store.now_ns())
            self._store.advise(CorruptionFound(stream=error.stream, problem=problem, time=now))
            raise
