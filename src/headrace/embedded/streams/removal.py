"""Removal: the one place where messages are deleted, so that all counters stay right. Runs on the streams thread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import apsw

from headrace.embedded.streams.catalog import StreamRecord, overheads, subject_name

__all__ = ["remove", "remove_older", "remove_range"]


def remove(connection: apsw.Connection, record: StreamRecord, seqs: Sequence[int]) -> int:
    """Delete these messages; how many there were. Missing ones are no error."""
    removed = sum(_remove_run(connection, record, low, high) for low, high in _runs(sorted(seqs)))
    if removed:
        _settle_edges(connection, record)
    return removed


def remove_range(connection: apsw.Connection, record: StreamRecord, low: int, high: int) -> int:
    """Delete all messages from `low` to `high`, both included; how many there were."""
    removed = _remove_run(connection, record, low, high)
    if removed:
        _settle_edges(connection, record)
    return removed


def remove_older(connection: apsw.Connection, record: StreamRecord, subject: int, sequence: int) -> int:
    """Delete what stands on a subject in front of `sequence`; how many there were."""
    (many,) = connection.execute("SELECT indexed_from FROM stream WHERE id = ?", (record.id,)).fetchone() or (0,)
    table = f"subject_seq_{record.id}" if many else f"msg_{record.id}"
    found = connection.execute(f"SELECT seq FROM {table} WHERE subject = ? AND seq < ?", (subject, sequence))
    return remove(connection, record, [seq for (seq,) in found])


def _runs(seqs: Sequence[int]) -> Iterator[tuple[int, int]]:
    low = high = None
    for seq in seqs:
        if low is None or high is None:
            low = high = seq
        elif seq == high + 1:
            high = seq
        elif seq != high:
            yield low, high
            low = high = seq
    if low is not None and high is not None:
        yield low, high


def _remove_run(connection: apsw.Connection, record: StreamRecord, low: int, high: int) -> int:
    table = f"msg_{record.id}"
    rows: list[tuple[Any, ...]] = list(
        connection.execute(
            f"SELECT subject, count(*), sum(length(data)), sum(length(headers)), count(headers) FROM {table} "
            "WHERE seq BETWEEN ? AND ? GROUP BY subject",
            (low, high),
        )
    )
    if not rows:
        return 0
    fixed, per_block = overheads(record.config)
    removed = size = 0
    for subject, count, data, headers, blocks in rows:
        removed += count
        size += count * (fixed + len(subject_name(connection, subject).encode()))
        size += data + (headers or 0) + blocks * per_block
    connection.execute(
        f"DELETE FROM subject_msg_{record.id} WHERE (subject, seq) IN "
        f"(SELECT subject, seq FROM {table} WHERE seq BETWEEN ? AND ?)",
        (low, high),
    )
    connection.execute(f"DELETE FROM {table} WHERE seq BETWEEN ? AND ?", (low, high))
    for subject, count, *_ in rows:
        _lower(connection, record, subject, count)
    connection.execute("UPDATE stream SET msgs = msgs - ?, bytes = bytes - ? WHERE id = ?", (removed, size, record.id))
    return removed


def _lower(connection: apsw.Connection, record: StreamRecord, subject: int, count: int) -> None:
    """The state of one subject after `count` of its messages went."""
    key = (record.id, subject)
    row = connection.execute("SELECT msgs FROM subject_state WHERE stream = ? AND subject = ?", key).fetchone()
    if row is None or row[0] <= count:
        connection.execute("DELETE FROM subject_state WHERE stream = ? AND subject = ?", key)
        return
    many = connection.execute("SELECT indexed_from FROM stream WHERE id = ?", (record.id,)).fetchone()
    if many is not None and many[0]:
        edges = f"FROM subject_seq_{record.id} WHERE subject = ? ORDER BY seq"
        bound: tuple[int, ...] = (subject,)
    else:
        edges, bound = f"FROM msg_{record.id} ORDER BY seq", ()
    connection.execute(
        f"UPDATE subject_state SET msgs = msgs - ?, first_seq = (SELECT seq {edges} LIMIT 1), "
        f"last_seq = (SELECT seq {edges} DESC LIMIT 1) WHERE stream = ? AND subject = ?",
        (count, *bound, *bound, *key),
    )


def _settle_edges(connection: apsw.Connection, record: StreamRecord) -> None:
    """The first sequence after a removal: that of the oldest message, else the one to come."""
    connection.execute(
        f"UPDATE stream SET first_seq = coalesce((SELECT min(seq) FROM msg_{record.id}), last_seq + 1) WHERE id = ?",
        (record.id,),
    )
