"""Limits: what goes when a stream is full or a message too old. All of it in the commit that makes it due, or later."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import apsw

from headrace.embedded.streams.catalog import StreamRecord, overheads, subject_name, window_ns
from headrace.embedded.streams.removal import remove, remove_range
from headrace.streams.config import DiscardPolicy, StreamConfig

__all__ = [
    "enforce",
    "enforce_all",
    "expire",
    "forget_ids",
    "has_ids",
    "has_limits",
    "oldest_bytes",
]

BATCH = 5_000


def has_limits(config: StreamConfig) -> bool:
    """Whether a publish may push out older messages."""
    return not (config.max_messages is None and config.max_bytes is None and config.max_messages_per_subject is None)


def enforce(connection: apsw.Connection, record: StreamRecord, subjects: Iterable[int]) -> int:
    """Delete the oldest until the limits hold, per subject first, of the `subjects` that grew; how many."""
    most = record.config.max_messages_per_subject
    removed = 0 if most is None else _per_subject(connection, record, most, subjects)
    return removed + _totals(connection, record)


def enforce_all(connection: apsw.Connection, record: StreamRecord) -> int:
    """After a change of the limits: the totals first, as a server does."""
    removed, most = _totals(connection, record), record.config.max_messages_per_subject
    return removed + (0 if most is None else _per_subject(connection, record, most, None))


def _totals(connection: apsw.Connection, record: StreamRecord) -> int:
    config, removed = record.config, 0
    if config.discard is DiscardPolicy.NEW:
        return removed  # what is there stays, also under limits that were lowered
    if config.max_messages is not None:
        (count,) = connection.execute("SELECT msgs FROM stream WHERE id = ?", (record.id,)).fetchone() or (0,)
        if count > config.max_messages:
            last = f"SELECT seq FROM msg_{record.id} ORDER BY seq LIMIT 1 OFFSET ?"
            (high,) = connection.execute(last, (count - config.max_messages - 1,)).fetchone() or (0,)
            removed += remove_range(connection, record, 0, high)
    if config.max_bytes is not None:
        removed += _bytes(connection, record, config.max_bytes)
    return removed


def _per_subject(connection: apsw.Connection, record: StreamRecord, most: int, subjects: Iterable[int] | None) -> int:
    over = "SELECT subject, msgs FROM subject_state WHERE stream = ? AND msgs > ?"
    rows: list[tuple[Any, ...]] = []
    if subjects is None:
        rows.extend(connection.execute(over, (record.id, most)))
    for subject in subjects or ():
        found = connection.execute(f"{over} AND subject = ?", (record.id, most, subject)).fetchone()
        if found is not None:
            rows.append(found)
    return sum(
        remove(connection, record, _oldest_of_subject(connection, record, subject, count - most))
        for subject, count in rows
    )


def _oldest_of_subject(connection: apsw.Connection, record: StreamRecord, subject: int, count: int) -> list[int]:
    """The first `count` sequences on a subject."""
    (many,) = connection.execute("SELECT indexed_from FROM stream WHERE id = ?", (record.id,)).fetchone() or (0,)
    if many:
        sql = f"SELECT seq FROM subject_seq_{record.id} WHERE subject = ? ORDER BY seq LIMIT ?"
    else:
        sql = f"SELECT seq FROM msg_{record.id} WHERE subject = ? ORDER BY seq LIMIT ?"
    return [row[0] for row in connection.execute(sql, (subject, count))]


def oldest_bytes(connection: apsw.Connection, record: StreamRecord, subject: str) -> int:
    """The size of the oldest message on a subject, as `StreamState.bytes` counts it; 0 = none."""
    found = connection.execute("SELECT id FROM subject WHERE name = ?", (subject,)).fetchone()
    oldest = [] if found is None else _oldest_of_subject(connection, record, int(found[0]), 1)
    row = connection.execute(
        f"SELECT length(data), length(headers) FROM msg_{record.id} WHERE seq = ?", (oldest[0] if oldest else 0,)
    ).fetchone()
    if row is None:
        return 0
    fixed, per_block = overheads(record.config)
    return int(fixed + len(subject.encode()) + row[0] + (0 if row[1] is None else row[1] + per_block))


def _bytes(connection: apsw.Connection, record: StreamRecord, most: int) -> int:
    (size,) = connection.execute("SELECT bytes FROM stream WHERE id = ?", (record.id,)).fetchone() or (0,)
    if size <= most:
        return 0
    fixed, per_block = overheads(record.config)
    high = 0
    rows = connection.execute(f"SELECT seq, subject, length(data), length(headers) FROM msg_{record.id} ORDER BY seq")
    for seq, subject, data, headers in rows:
        size -= fixed + len(subject_name(connection, subject).encode()) + data
        size -= headers + per_block if headers is not None else 0
        high = seq
        if size <= most:
            break
    rows.close()
    return remove_range(connection, record, 0, high)


def expire(connection: apsw.Connection, record: StreamRecord, now: int, limit: int = BATCH) -> int:
    """Delete messages whose time is over, at most `limit`; how many."""
    sql = f"SELECT seq FROM msg_{record.id} WHERE expires IS NOT NULL AND expires <= ? ORDER BY expires LIMIT ?"
    due = [row[0] for row in connection.execute(sql, (now, limit))]
    return remove(connection, record, due) if due else 0


def has_ids(connection: apsw.Connection, record: StreamRecord) -> bool:
    """Whether it remembers any message id."""
    return connection.execute(f"SELECT 1 FROM dedup_{record.id} LIMIT 1").fetchone() is not None


def forget_ids(connection: apsw.Connection, record: StreamRecord, now: int, after: str) -> str | None:
    """Look at a slice of the ids behind `after` and forget those older than the window.

    Where that ended, or ``None``: all were looked at, or the stream is gone.
    """
    if connection.execute("SELECT 1 FROM stream WHERE id = ?", (record.id,)).fetchone() is None:
        return None
    table = f"dedup_{record.id}"
    slice_of = f"SELECT msg_id FROM {table} WHERE msg_id > ? ORDER BY msg_id LIMIT {BATCH}"
    (upper,) = connection.execute(f"SELECT max(msg_id) FROM ({slice_of})", (after,)).fetchone() or (None,)
    if upper is None:
        return None
    bounds = (after, upper, now - window_ns(record.config))
    connection.execute(f"DELETE FROM {table} WHERE msg_id > ? AND msg_id <= ? AND ts <= ?", bounds)
    return str(upper)
