"""The catalog: which streams there are, and the subjects in them. Plain functions on a connection."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import apsw
import msgspec

from headrace.streams.config import StorageType, StreamConfig
from headrace.streams.errors import error_for
from headrace.streams.subjects import matches

__all__ = [
    "StreamRecord",
    "bump_generation",
    "config_of",
    "forget_names",
    "index_from",
    "intern",
    "no_such_stream",
    "overheads",
    "stream_by_id",
    "stream_by_name",
    "streams_all",
    "subject_ids",
    "subject_name",
    "text_of",
    "visible",
    "window_ns",
    "window_of",
]

DEFAULT_WINDOW = timedelta(minutes=2)
_COLUMNS = "id, name, config, created"


@dataclass(frozen=True, slots=True)
class StreamRecord:
    """A stream as the engine knows it: tables are named by its id."""

    id: int
    name: str
    config: StreamConfig
    created_ns: int


@lru_cache(maxsize=1024)
def config_of(text: str) -> StreamConfig:
    """The config of its stored text."""
    return msgspec.json.decode(text, type=StreamConfig)


def text_of(config: StreamConfig) -> str:
    """The stored text of a config."""
    return msgspec.json.encode(config).decode()


def visible() -> str:
    """The SQL condition of messages that are still there at ``:now`` (nanoseconds since 1970)."""
    return "(expires IS NULL OR expires > :now)"


def no_such_stream(name: str) -> Exception:
    """The error for a stream that is not there."""
    return error_for(404, 10059, f"stream not found: {name}")


def stream_by_name(connection: apsw.Connection, name: str) -> StreamRecord:
    """The stream of this name; ``StreamNotFoundError``."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM stream WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise no_such_stream(name)
    return _record(row)


def stream_by_id(connection: apsw.Connection, stream_id: int) -> StreamRecord | None:
    """The stream with this id; ``None``: it is gone."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM stream WHERE id = ?", (stream_id,)).fetchone()
    return None if row is None else _record(row)


def streams_all(connection: apsw.Connection) -> list[StreamRecord]:
    """All streams, by name."""
    return [_record(row) for row in connection.execute(f"SELECT {_COLUMNS} FROM stream ORDER BY name")]


def _record(row: Any) -> StreamRecord:
    return StreamRecord(row[0], row[1], config_of(row[2]), row[3])


def bump_generation(connection: apsw.Connection) -> None:
    """Every process learns at its next commit that streams were made, changed or deleted."""
    connection.execute("UPDATE meta SET value = value + 1 WHERE key = 'generation'")


def overheads(config: StreamConfig) -> tuple[int, int]:
    """What the server counts beside subject, block and data: per message, and per header block."""
    # the block is counted with its version line and the empty line at its end: 12 bytes
    return (30, 16) if config.storage is StorageType.FILE else (16, 12)


def window_of(config: StreamConfig) -> timedelta:
    """How long message ids are remembered: as given, else two minutes, and no longer than the messages."""
    given: Any = config.duplicate_window
    age: Any = config.max_age
    default = DEFAULT_WINDOW if age is None else min(age, DEFAULT_WINDOW)
    window: timedelta = default if given is None else given
    return window


def window_ns(config: StreamConfig) -> int:
    """The same in nanoseconds."""
    return window_of(config) // timedelta(microseconds=1) * 1000


_names: WeakKeyDictionary[apsw.Connection, dict[int, str]] = WeakKeyDictionary()


def forget_names(connection: apsw.Connection) -> None:
    """After a rollback: subjects made in it do not exist."""
    _names.pop(connection, None)


def subject_name(connection: apsw.Connection, subject_id: int) -> str:
    """The subject of this id."""
    names = _names.get(connection)
    if names is None:
        names = _names.setdefault(connection, {})
    name = names.get(subject_id)
    if name is None:
        row = connection.execute("SELECT name FROM subject WHERE id = ?", (subject_id,)).fetchone()
        if row is None:
            raise apsw.CorruptError(f"subject {subject_id} is missing")
        if len(names) > 100_000:
            names.clear()
        name = names[subject_id] = str(row[0])
    return name


def intern(connection: apsw.Connection, subject: str) -> int:
    """The id of this subject, made if it is new."""
    row = connection.execute("SELECT id FROM subject WHERE name = ?", (subject,)).fetchone()
    if row is not None:
        return int(row[0])
    connection.execute("INSERT INTO subject(name) VALUES(?)", (subject,))
    return connection.last_insert_rowid()


def index_from(connection: apsw.Connection, stream_id: int, sequence: int) -> None:
    """The second subject of a stream has come: from `sequence` on its messages are indexed by subject."""
    connection.execute(
        f"UPDATE stream SET indexed_from = ?1, "
        f"only_subject = coalesce((SELECT subject FROM msg_{stream_id} WHERE seq < ?1 LIMIT 1), 0) WHERE id = ?2",
        (sequence, stream_id),
    )


def subject_ids(connection: apsw.Connection, stream_id: int, filters: Iterable[str]) -> set[int] | None:
    """Ids of the subjects in the stream that match one of the filters; ``None``: every subject does."""
    wanted = tuple(filters)
    if not wanted or ">" in wanted:
        return None
    plain = [each for each in wanted if "*" not in each and ">" not in each]
    found: set[int] = set()
    for each in plain:
        found.update(row[0] for row in connection.execute("SELECT id FROM subject WHERE name = ?", (each,)))
    patterns = [each for each in wanted if each not in plain]
    if patterns:
        rows = connection.execute(
            "SELECT subject.id, subject.name FROM subject_state JOIN subject ON subject.id = subject_state.subject "
            "WHERE subject_state.stream = ?",
            (stream_id,),
        )
        found.update(id_ for id_, name in rows if any(matches(pattern, name) for pattern in patterns))
    return found
