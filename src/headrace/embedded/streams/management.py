"""Making, changing, deleting and emptying streams. Plain functions on the connection of the streams writer."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import islice
from typing import Any

import apsw

from headrace.embedded.store.schema import create_stream_tables, drop_stream_tables
from headrace.embedded.store.sql import every
from headrace.embedded.streams.catalog import (
    StreamRecord,
    bump_generation,
    no_such_stream,
    stream_by_name,
    streams_all,
    subject_ids,
    text_of,
)
from headrace.embedded.streams.configs import check_new, check_overlap, check_update, settled
from headrace.embedded.streams.limits import enforce_all, expire
from headrace.embedded.streams.read import FEW, rows_from
from headrace.embedded.streams.removal import remove, remove_range
from headrace.streams.config import PurgeOptions, StreamConfig
from headrace.streams.errors import StreamNotFoundError, error_for

__all__ = ["create", "delete_message", "drop", "overwrite", "purge", "purge_bound", "update"]


def create(connection: apsw.Connection, config: StreamConfig, now: int) -> StreamRecord:
    """Make it; an equal one is returned as it is."""
    check_new(config)
    try:
        existing = stream_by_name(connection, config.name)
    except StreamNotFoundError:
        pass
    else:
        if existing.config == config:
            return existing
        raise error_for(400, 10058, "stream name already in use with a different configuration")
    check_overlap(config, [record.config for record in streams_all(connection)])
    first = config.first_sequence or 1
    connection.execute(
        "INSERT INTO stream(name, config, created, first_seq, last_seq, last_ts, msgs, bytes) VALUES(?,?,?,?,?,0,0,0)",
        (config.name, text_of(config), now, first, first - 1),
    )
    create_stream_tables(connection, connection.last_insert_rowid())
    bump_generation(connection)
    return stream_by_name(connection, config.name)


def update(connection: apsw.Connection, config: StreamConfig, now: int) -> StreamRecord:
    """Change it; new limits apply in the same commit."""
    old = stream_by_name(connection, config.name)
    if old.config == config:
        return old
    check_update(old.config, config)
    check_overlap(config, [record.config for record in streams_all(connection)])
    config = settled(config)
    connection.execute("UPDATE stream SET config = ? WHERE id = ?", (text_of(config), old.id))
    bump_generation(connection)
    record = stream_by_name(connection, config.name)
    if old.config.max_age != config.max_age:
        _reage(connection, old, record)
    while expire(connection, record, now):
        pass
    enforce_all(connection, record)
    return record


def _reage(connection: apsw.Connection, old: StreamRecord, new: StreamRecord) -> None:
    """Ages follow the new limit. What had a time of its own keeps it, but never outlives the new age."""
    before, after = _nanoseconds(old.config.max_age), _nanoseconds(new.config.max_age)
    table = f"msg_{new.id}"
    # at the start of a line: a name or a value of the user's may hold the same text
    own = "headers IS NOT NULL AND instr(CAST(x'0d0a' || headers AS BLOB), CAST(x'0d0a' || 'Nats-TTL: ' AS BLOB)) > 0"
    if after is None:
        connection.execute(f"UPDATE {table} SET expires = NULL WHERE expires = ts + ? AND NOT ({own})", (before,))
        return
    connection.execute(f"UPDATE {table} SET expires = ts + ? WHERE NOT ({own})", (after,))
    shorter = "expires = min(expires, ts + ?) WHERE expires IS NOT NULL"
    connection.execute(f"UPDATE {table} SET {shorter} AND {own}", (after,))


def _nanoseconds(length: Any) -> int | None:
    return None if length is None else int(length.total_seconds() * 1e9)


def drop(connection: apsw.Connection, name: str) -> None:
    """Delete a stream with all its messages."""
    record = stream_by_name(connection, name)
    drop_stream_tables(connection, record.id)
    connection.execute("DELETE FROM subject_state WHERE stream = ?", (record.id,))
    connection.execute("DELETE FROM stream WHERE id = ?", (record.id,))
    bump_generation(connection)


def purge_bound(connection: apsw.Connection, record: StreamRecord, options: PurgeOptions, now: int) -> int:
    """The first sequence that a purge leaves alone: what is published while it runs stays."""
    if options.sequence is not None:
        return options.sequence
    if options.keep:
        matching = rows_from(connection, record, options.subject or ">", 1 << 60, now, backwards=True)
        oldest_kept = next(islice(matching, options.keep - 1, None), None)
        return 0 if oldest_kept is None else int(oldest_kept[0])
    row = connection.execute("SELECT last_seq FROM stream WHERE id = ?", (record.id,)).fetchone()
    return 0 if row is None else int(row[0]) + 1


def purge(  # noqa: PLR0917  (bound once, in stream.py)
    connection: apsw.Connection, name: str, options: PurgeOptions, bound: int, now: int, most: int, after: int
) -> tuple[int, int]:
    """Delete up to `most` of what is asked for, behind `after` and before `bound`: how many went, and the last of them.

    The bound itself: nothing more is left.
    """
    record = stream_by_name(connection, name)
    if record.config.sealed:
        raise error_for(400, 10109, "invalid operation on sealed stream")
    if record.config.deny_purge:
        raise error_for(500, 10110, "stream purge not permitted")
    while expire(connection, record, now):
        pass
    ids = None if options.subject is None else subject_ids(connection, record.id, [options.subject])
    if ids is not None:
        found = _matching(connection, record, ids, after, bound, most)
        return remove(connection, record, found), bound if len(found) < most else found[-1]
    sql = f"SELECT seq FROM msg_{record.id} WHERE seq < ? ORDER BY seq LIMIT 1 OFFSET ?"
    row = connection.execute(sql, (bound, most - 1)).fetchone()
    removed = remove_range(connection, record, 0, bound - 1 if row is None else row[0])
    if row is not None:
        return removed, row[0]
    if options.sequence is not None:
        # as a server does: the next message gets this sequence, even if that lies beyond the end
        connection.execute(
            "UPDATE stream SET last_seq = ?1, first_seq = ?1 + 1 WHERE id = ?2 AND last_seq < ?1",
            (bound - 1, record.id),
        )
    return removed, bound


def _matching(  # noqa: PLR0917  (the parts of one query)
    connection: apsw.Connection, record: StreamRecord, ids: set[int], after: int, bound: int, most: int
) -> list[int]:
    """The oldest sequences on these subjects: from the index where they are few, else along the messages."""
    table, many = f"msg_{record.id}", True
    if len(ids) <= FEW:
        row = connection.execute("SELECT indexed_from FROM stream WHERE id = ?", (record.id,)).fetchone()
        many = bool(row and row[0])
        table = f"subject_seq_{record.id}" if many else table
    if len(ids) > FEW or not many:
        among = f"SELECT value FROM json_each('{sorted(ids)}')"
        sql = f"SELECT seq FROM {table} WHERE seq > ? AND seq < ? AND subject IN ({among}) ORDER BY seq LIMIT ?"
        return [seq for (seq,) in every(connection, sql, (after, bound, most))]
    sql = f"SELECT seq FROM {table} WHERE subject = ? AND seq > ? AND seq < ? ORDER BY seq LIMIT ?"
    found = [seq for each in ids for (seq,) in every(connection, sql, (each, after, bound, most))]
    return sorted(found)[:most]


def delete_message(connection: apsw.Connection, name: str, sequence: int, now: int) -> StreamRecord:
    """Delete one message. ``MessageDeleteError``."""
    record = stream_by_name(connection, name)
    if record.config.sealed:
        raise error_for(400, 10109, "invalid operation on sealed stream")
    if record.config.deny_delete:
        raise error_for(500, 10057, "message delete not permitted")
    expire(connection, record, now)
    if not remove(connection, record, [sequence]):
        row = connection.execute("SELECT first_seq, last_seq FROM stream WHERE id = ?", (record.id,)).fetchone()
        if row is None:
            raise no_such_stream(name)
        if row[0] <= sequence <= row[1]:
            raise error_for(400, 10043, f"sequence {sequence} not found")
        raise error_for(500, 10057, "stream store error: message not found")
    return record


def overwrite(name: str, sequence: int, now: int) -> Callable[[apsw.Connection], StreamRecord]:
    """A job that overwrites a message with random bytes and deletes it."""

    def run(connection: apsw.Connection) -> StreamRecord:
        record = stream_by_name(connection, name)
        row = connection.execute(
            f"SELECT length(data), length(headers) FROM msg_{record.id} WHERE seq = ?", (sequence,)
        ).fetchone()
        if row is not None and not record.config.sealed and not record.config.deny_delete:
            # same lengths: the accounting of the removal that follows stays right
            connection.execute(
                f"UPDATE msg_{record.id} SET data = ?, headers = ? WHERE seq = ?",
                (os.urandom(row[0]), None if row[1] is None else os.urandom(row[1]), sequence),
            )
        return delete_message(connection, name, sequence, now)

    return run
