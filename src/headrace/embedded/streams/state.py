"""What is in a stream at this moment: counts that leave out what has expired, wherever it still lies."""

from __future__ import annotations

from typing import Any

import apsw

from headrace.core.errors import StoreError
from headrace.embedded.store.sql import one
from headrace.embedded.streams.catalog import StreamRecord, overheads, subject_ids, subject_name, visible
from headrace.streams.info import StreamInfo, StreamState
from headrace.streams.msg import time_of_ns

__all__ = ["messages_of_all", "stream_info"]


def stream_info(
    connection: apsw.Connection, record: StreamRecord, now: int, *, deleted: bool = False, subjects: str | None = None
) -> StreamInfo:
    """The stream and its state."""
    row = connection.execute("SELECT last_seq, last_ts, msgs, bytes FROM stream WHERE id = ?", (record.id,)).fetchone()
    if row is None:
        raise StoreError(f"stream {record.name} is gone")
    last_seq, last_ts, messages, size = row
    gone, gone_bytes = _expired(connection, record, now)
    first = connection.execute(
        f"SELECT seq, ts FROM msg_{record.id} WHERE {visible()} ORDER BY seq LIMIT 1", {"now": now}
    ).fetchone()
    first_seq, first_ts = first or (last_seq + 1, None)
    messages -= gone
    per_subject = _subjects(connection, record, now, expired=gone > 0)
    matching = subject_ids(connection, record.id, [subjects]) if subjects is not None else set[int]()
    state = StreamState(
        messages=messages,
        bytes=size - gone_bytes,
        first_sequence=first_seq,
        first_time=None if first_ts is None else time_of_ns(first_ts),
        last_sequence=last_seq,
        last_time=time_of_ns(last_ts) if last_ts else None,
        consumers=int(one(connection, "SELECT count(*) FROM consumer WHERE stream = ?", (record.id,))[0]),
        deleted=_gaps(connection, record, first_seq, last_seq, now) if deleted else (),
        num_deleted=max(0, last_seq - first_seq + 1 - messages),
        num_subjects=len(per_subject),
        subjects={
            subject_name(connection, each): count
            for each, count in per_subject.items()
            if matching is None or each in matching
        }
        if subjects is not None
        else {},
    )
    return StreamInfo(
        config=record.config, created=time_of_ns(record.created_ns), state=state, timestamp=time_of_ns(now)
    )


def messages_of_all(connection: apsw.Connection) -> int:
    """How many messages the store holds, those that have expired and are not deleted yet included."""
    return int(one(connection, "SELECT coalesce(sum(msgs), 0) FROM stream")[0])


def _expired(connection: apsw.Connection, record: StreamRecord, now: int) -> tuple[int, int]:
    fixed, per_block = overheads(record.config)
    row = connection.execute(
        f"SELECT count(*), sum({fixed} + length(CAST(subject.name AS BLOB)) + length(data) + "
        f"CASE WHEN headers IS NULL THEN 0 ELSE length(headers) + {per_block} END) "
        f"FROM msg_{record.id} JOIN subject ON subject.id = msg_{record.id}.subject "
        "WHERE expires IS NOT NULL AND expires <= ?",
        (now,),
    ).fetchone()
    return (int(row[0]), int(row[1] or 0)) if row else (0, 0)


def _subjects(connection: apsw.Connection, record: StreamRecord, now: int, *, expired: bool) -> dict[int, int]:
    sql = "SELECT subject, msgs FROM subject_state WHERE stream = ?"
    counts = {int(subject): int(count) for subject, count in connection.execute(sql, (record.id,))}
    if expired:
        due = f"SELECT subject, count(*) FROM msg_{record.id} WHERE expires IS NOT NULL AND expires <= ? GROUP BY 1"
        for subject, count in connection.execute(due, (now,)):
            counts[subject] -= count
            if not counts[subject]:
                del counts[subject]
    return counts


def _gaps(connection: apsw.Connection, record: StreamRecord, first: int, last: int, now: int) -> tuple[int, ...]:
    found: list[int] = []
    expected = first
    sql = f"SELECT seq FROM msg_{record.id} WHERE seq >= :first AND {visible()} ORDER BY seq"
    rows: Any = connection.execute(sql, {"first": first, "now": now})
    for (seq,) in rows:
        found.extend(range(expected, seq))
        expected = seq + 1
    found.extend(range(expected, last + 1))
    return tuple(found)
