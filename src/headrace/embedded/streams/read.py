"""Reading stored messages without a consumer. Plain functions on a connection; no cost grows with the backlog."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

import apsw

from headrace.core.errors import ConfigError
from headrace.core.headers import NO_HEADERS, Headers
from headrace.embedded.errors import CorruptedError
from headrace.embedded.store.sql import every
from headrace.embedded.streams.catalog import StreamRecord, subject_ids, subject_name, visible
from headrace.embedded.streams.checksum import checksum
from headrace.streams.errors import error_for
from headrace.streams.msg import RawStreamMsg, time_of_ns
from headrace.streams.stored import not_found

__all__ = [
    "first_at",
    "get",
    "last_on",
    "newest",
    "ns_of",
    "page",
    "rows_from",
    "several",
]

COLUMNS = "seq, ts, subject, headers, data, crc"
FEW = 64
"""Up to so many subjects are merged from the index by subject; more are filtered from the log."""


def ns_of(time: datetime, field: str = "start") -> int:
    """Nanoseconds since 1970 of an aware datetime."""
    if not isinstance(time, datetime) or time.tzinfo is None:
        raise ConfigError(f"{field} must be an aware datetime, got {time!r}")
    from_epoch = time - time_of_ns(0)
    return (from_epoch.days * 86_400 + from_epoch.seconds) * 1_000_000_000 + from_epoch.microseconds * 1_000


def _check_row(  # noqa: PLR0917  (the columns)
    stream: str, seq: int, ts: int, subject: str, headers: bytes | None, data: bytes, crc: int
) -> None:
    """``CorruptedError`` unless the row is what was written."""
    if checksum(seq, ts, subject, headers, data) != crc:
        raise CorruptedError("the checksum does not match", stream=stream, sequence=seq)


def _message(connection: apsw.Connection, record: StreamRecord, row: Any, *, check: bool) -> RawStreamMsg:
    seq, ts, subject_id, headers, data, crc = row
    subject = subject_name(connection, subject_id)
    if check:
        _check_row(record.name, seq, ts, subject, headers, data, crc)
    block = Headers.from_block(headers) if headers else NO_HEADERS
    return RawStreamMsg(subject=subject, sequence=seq, data=data, headers=block, time=time_of_ns(ts))


def get(
    connection: apsw.Connection, record: StreamRecord, sequence: int, subject: str | None, now: int, *, check: bool
) -> RawStreamMsg:
    """The message; with `subject` the first at or after it. ``MessageNotFoundError``."""
    if sequence <= 0 and subject is None:
        raise error_for(400, 10003, "bad request")
    if subject is None:
        sql = f"SELECT {COLUMNS} FROM msg_{record.id} WHERE seq = :seq AND {visible()}"
        row = connection.execute(sql, {"seq": sequence, "now": now}).fetchone()
    else:
        row = next(rows_from(connection, record, subject, max(sequence, 1), now), None)
    if row is None:
        raise not_found()
    return _message(connection, record, row, check=check)


def last_on(connection: apsw.Connection, record: StreamRecord, subject: str, now: int, *, check: bool) -> RawStreamMsg:
    """The newest message on a subject (wildcards allowed). ``MessageNotFoundError``."""
    row = next(rows_from(connection, record, subject, 1 << 62, now, backwards=True), None)
    if row is None:
        raise not_found()
    return _message(connection, record, row, check=check)


def page(  # noqa: PLR0917  (bound once, in stream.py)
    connection: apsw.Connection, record: StreamRecord, subject: str, start: int, offset: int, limit: int, now: int,
    *, check: bool,
) -> list[RawStreamMsg]:  # fmt: skip
    """Up to `limit` messages from `start`, `offset` matching ones skipped."""
    rows = rows_from(connection, record, subject, start, now)
    return [_message(connection, record, row, check=check) for row in islice(rows, offset, offset + limit)]


def newest(
    connection: apsw.Connection, record: StreamRecord, subjects: Sequence[str], upto: int, now: int
) -> list[int]:
    """The last live sequence up to `upto` of each subject that matches one of the filters, in order."""
    ids = subject_ids(connection, record.id, subjects)
    states = every(connection, "SELECT subject FROM subject_state WHERE stream = ?", (record.id,))
    found: list[int] = []
    for (subject_id,) in states:
        if ids is None or subject_id in ids:
            name = subject_name(connection, subject_id)
            found += [row[0] for row in islice(rows_from(connection, record, name, upto, now, backwards=True), 1)]
    return sorted(found)


def several(
    connection: apsw.Connection, record: StreamRecord, sequences: Sequence[int], now: int, *, check: bool
) -> list[RawStreamMsg]:
    """Those of these messages that are still there."""
    sql = f"SELECT {COLUMNS} FROM msg_{record.id} WHERE seq IN ({_numbers(sequences)}) AND {visible()} ORDER BY seq"
    return [_message(connection, record, row, check=check) for row in connection.execute(sql, {"now": now})]


def rows_from(
    connection: apsw.Connection, record: StreamRecord, subject: str, start: int, now: int, *, backwards: bool = False
) -> Iterator[Any]:
    """Live rows on `subject` from `start` on (or back from it), in order."""
    ids = subject_ids(connection, record.id, [subject])
    compare, order = ("<=", "DESC") if backwards else (">=", "ASC")
    if ids is not None and not ids:
        return
    (many,) = connection.execute("SELECT indexed_from FROM stream WHERE id = ?", (record.id,)).fetchone() or (0,)
    bound: dict[str, Any] = {"start": start, "now": now}
    if ids is None:
        where = f"seq {compare} :start"
    elif not many:
        where = f"seq {compare} :start AND subject IN ({_numbers(ids)})"
    elif len(ids) <= FEW:
        yield from _merged(connection, record, sorted(ids), bound, backwards=backwards)
        return
    else:
        where = f"seq {compare} :start AND subject IN ({_numbers(ids)})"
    sql = f"SELECT {COLUMNS} FROM msg_{record.id} WHERE {where} AND {visible()} ORDER BY seq {order}"
    yield from connection.execute(sql, bound)


def _numbers(ids: Sequence[int] | set[int]) -> str:
    return ",".join(str(int(each)) for each in sorted(ids))


def _merged(
    connection: apsw.Connection, record: StreamRecord, ids: list[int], bound: dict[str, Any], *, backwards: bool
) -> Iterator[Any]:
    """Few subjects: their index ranges, merged by sequence."""
    compare, order = ("<=", "DESC") if backwards else (">=", "ASC")
    part = f"SELECT * FROM (SELECT seq AS at FROM subject_seq_{record.id} WHERE subject = %d AND seq {compare} :start)"
    found = " UNION ALL ".join(part % each for each in ids)
    sql = (
        f"SELECT at FROM ({found}) ORDER BY at {order}"
        if len(ids) > 1
        else f"SELECT seq FROM subject_seq_{record.id} WHERE subject = {ids[0]} AND seq {compare} :start "
        f"ORDER BY seq {order}"
    )
    fetch = f"SELECT {COLUMNS} FROM msg_{record.id} WHERE seq = ? AND (expires IS NULL OR expires > ?)"
    for (seq,) in connection.execute(sql, bound):
        row = connection.execute(fetch, (seq, bound["now"])).fetchone()
        if row is not None:
            yield row


def first_at(connection: apsw.Connection, stream_id: int, ts: int) -> int:
    """The sequence of the first message stored at or after `ts`: a binary search, since time never falls."""
    row = connection.execute("SELECT first_seq, last_seq FROM stream WHERE id = ?", (stream_id,)).fetchone()
    low, high = (int(row[0]), int(row[1]) + 1) if row else (1, 1)
    sql = f"SELECT seq, ts FROM msg_{stream_id} WHERE seq >= ? ORDER BY seq LIMIT 1"
    while low < high:
        middle = (low + high) // 2
        found = connection.execute(sql, (middle,)).fetchone()
        if found is None or found[1] >= ts:
            high = middle
        else:
            low = found[0] + 1
    return low
