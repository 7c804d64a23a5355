"""Leftovers: messages of interest and workqueue streams that nobody needs and that are still there.

After a crash between ack and removal, once a consumer is gone or has other filters, or the stream another retention.
Only where some consumer has been can there be any, and there live only those and what is held. So what is held is
stepped over, and the backlog in front of the consumers is never read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import apsw

from headrace.embedded.consumers.retention import retention_of
from headrace.embedded.consumers.rows import ConsumerRow, consumers_of, leases_of, settings_of
from headrace.embedded.store.sql import every, one
from headrace.streams.config import RetentionPolicy

__all__ = ["leftovers"]

Range = tuple[int, int]
ALL = 1 << 62


class _Span(NamedTuple):
    """Where to look: all live messages from `low` to `high` on these subjects that are not held."""

    subjects: frozenset[int] | None
    """Their ids; ``None`` is all."""
    low: int
    high: int
    held: list[Range]


def leftovers(connection: apsw.Connection, stream_id: int, after: int = 0, most: int = ALL) -> list[int]:
    """The first `most` of them behind `after`, in order.

    A workqueue keeps what no consumer was ever given; an interest stream does not.
    """
    retention = retention_of(connection, stream_id)
    if retention is RetentionPolicy.LIMITS:
        return []
    rows = consumers_of(connection, stream_id)
    spans = (
        _settled(connection, rows) if retention is RetentionPolicy.WORKQUEUE else _behind(connection, stream_id, rows)
    )
    found: set[int] = set()
    for span in spans:
        found.update(_look(connection, stream_id, span, max(span.low, after + 1), most))
    return sorted(found)[:most]


def _settled(connection: apsw.Connection, rows: Iterable[ConsumerRow]) -> Iterator[_Span]:
    """What each consumer of a workqueue was given."""
    for row in rows:
        yield _Span(_subjects_of(connection, row), row.since + 1, row.delivered_s, _held(connection, [row]))


def _behind(connection: apsw.Connection, stream_id: int, rows: Sequence[ConsumerRow]) -> Iterator[_Span]:
    """Of an interest stream what lies behind all consumers that want it, subject by subject."""
    held = _held(connection, rows)
    (last,) = one(connection, "SELECT last_seq FROM stream WHERE id = ?", (stream_id,))
    wanted = [(_subjects_of(connection, row), row.delivered_s) for row in rows]
    of_all = min((delivered for subjects, delivered in wanted if subjects is None), default=last)
    if all(subjects is None for subjects, _ in wanted):
        yield _Span(None, 0, of_all, held)
        return
    ends: dict[int, int] = {}
    for (subject,) in every(connection, "SELECT subject FROM subject_state WHERE stream = ?", (stream_id,)):
        ends[subject] = min(
            [of_all, *(end for subjects, end in wanted if subjects is not None and subject in subjects)]
        )
    for end in set(ends.values()):
        yield _Span(frozenset(subject for subject in ends if ends[subject] == end), 0, end, held)


def _look(connection: apsw.Connection, stream_id: int, span: _Span, low: int, most: int) -> list[int]:
    """The first `most` leftovers of one span."""
    subjects = span.subjects
    if subjects is not None and not _has_index(connection, stream_id):
        only = one(connection, f"SELECT subject FROM msg_{stream_id} LIMIT 1")
        if only is None or only[0] not in subjects:
            return []
        subjects = None
    found: list[int] = []
    if subjects is None:
        sql = f"SELECT seq FROM msg_{stream_id} WHERE seq BETWEEN ? AND ? ORDER BY seq LIMIT ?"
        for first, last in _gaps(span.held, low, span.high):
            found += [seq for (seq,) in every(connection, sql, (first, last, most - len(found)))]
            if len(found) >= most:
                break
        return found
    sql = (
        f"SELECT seq FROM subject_seq_{stream_id} WHERE subject IN (SELECT value FROM json_each('{sorted(subjects)}')) "
        "AND seq BETWEEN ? AND ? ORDER BY seq LIMIT ?"
    )
    while low <= span.high and len(found) < most:
        page = [seq for (seq,) in every(connection, sql, (low, span.high, most))]
        found += _outside(span.held, page)
        if len(page) < most:
            break
        low = page[-1] + 1
    return found


def _has_index(connection: apsw.Connection, stream_id: int) -> bool:
    """Whether the stream ever had a second subject."""
    return bool(one(connection, "SELECT indexed_from FROM stream WHERE id = ?", (stream_id,))[0])


def _subjects_of(connection: apsw.Connection, row: ConsumerRow) -> frozenset[int] | None:
    wanted = settings_of(row.config).filter
    return frozenset(wanted.ids(connection)) if wanted else None


def _held(connection: apsw.Connection, rows: Iterable[ConsumerRow]) -> list[Range]:
    """What was given and is not settled, as sorted ranges; an untouched lease is one range, however long."""
    held: list[Range] = []
    for row in rows:
        for lease in leases_of(connection, row.id):
            if lease.acked is None and lease.seqs is None:
                held.append((lease.lo, lease.hi))
            else:
                held += [(sequence, sequence) for _, sequence in lease.unsettled()]
        pending = every(connection, "SELECT seq FROM pending WHERE consumer = ?", (row.id,))
        held += [(sequence, sequence) for (sequence,) in pending]
    return sorted(held)


def _gaps(held: Iterable[Range], low: int, high: int) -> Iterator[Range]:
    """The ranges between those that are held."""
    for first, last in held:
        if first > high:
            break
        if first > low:
            yield low, first - 1
        low = max(low, last + 1)
    if low <= high:
        yield low, high


def _outside(held: Sequence[Range], sequences: Sequence[int]) -> list[int]:
    """Those of the sorted `sequences` that are not held."""
    if not sequences:
        return []
    outside: list[int] = []
    gaps = _gaps(held, sequences[0], sequences[-1])
    first, last = next(gaps, (ALL, ALL))
    for sequence in sequences:
        while sequence > last:
            first, last = next(gaps, (ALL, ALL))
        if sequence >= first:
            outside.append(sequence)
    return outside
