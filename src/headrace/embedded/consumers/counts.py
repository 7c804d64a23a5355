"""Counts: what a consumer has before it and in flight, and its info. Plain functions on a connection."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import NamedTuple

import apsw

from headrace.embedded.consumers.acks import lowest_pending, settle_floor
from headrace.embedded.consumers.rows import (
    LEASED,
    WAITING,
    ConsumerRow,
    Filter,
    Leased,
    Settings,
    leases_of,
    save,
    settings_of,
)
from headrace.embedded.store.sql import every, one
from headrace.embedded.streams.catalog import config_of
from headrace.streams.info import ConsumerInfo, SequenceInfo
from headrace.streams.msg import time_of_ns

__all__ = ["StreamState", "info_of", "num_ahead", "num_pending", "outstanding", "pending_of", "state_of", "sweep"]


class StreamState(NamedTuple):
    """The edges of a stream, and what they say about its gaps."""

    id: int
    name: str
    first_seq: int
    last_seq: int
    msgs: int
    many: bool
    ages: bool
    """Whether messages may run out by themselves."""

    @property
    def gap_free(self) -> bool:
        """Whether every sequence from first to last is there."""
        return not self.ages and self.msgs == self.last_seq - self.first_seq + 1


def state_of(connection: apsw.Connection, stream_id: int) -> StreamState | None:
    """The stream with this id."""
    found = one(
        connection,
        "SELECT name, first_seq, last_seq, msgs, indexed_from, config FROM stream WHERE id = ?",
        (stream_id,),
    )
    if found is None:
        return None
    config = config_of(found[5])
    ages = config.max_age is not None or config.allow_message_ttl
    return StreamState(stream_id, found[0], found[1], found[2], found[3], bool(found[4]), ages)


def num_pending(connection: apsw.Connection, state: StreamState, wanted: Filter, after: int, wall: int) -> int:
    """How many matching live messages stand behind `after`."""
    table = f"msg_{state.id}"
    if after >= state.last_seq:
        return 0
    ids = wanted.ids(connection) if wanted else None
    if ids is not None and not state.many:
        found = one(connection, f"SELECT subject FROM {table} LIMIT 1")
        if found is None or found[0] not in ids:
            return 0
        ids = None
    if state.ages:
        among = "" if ids is None else f"AND subject IN (SELECT value FROM json_each('{sorted(ids)}'))"
        return _count(
            connection,
            f"SELECT count(*) FROM {table} WHERE seq > ? AND (expires IS NULL OR expires > ?) {among}",
            (after, wall),
        )
    if ids is not None:
        index = f"subject_seq_{state.id}"
        among = f"SELECT value FROM json_each('{sorted(ids)}')"
        return _count(connection, f"SELECT count(*) FROM {index} WHERE subject IN ({among}) AND seq > ?", (after,))
    if state.gap_free or after < state.first_seq:
        return state.last_seq - after if state.gap_free and after >= state.first_seq else state.msgs
    if after - state.first_seq < state.last_seq - after:  # the shorter side is counted
        return state.msgs - _count(connection, f"SELECT count(*) FROM {table} WHERE seq <= ?", (after,))
    return _count(connection, f"SELECT count(*) FROM {table} WHERE seq > ?", (after,))


def num_ahead(
    connection: apsw.Connection, state: StreamState, wanted: Filter, after: int, wall: int, *, chosen: Sequence[int]
) -> int:
    """Like `num_pending`, and of a snapshot only what it has chosen: `chosen` and its end, or nothing."""
    if not chosen or after >= chosen[-1]:
        return num_pending(connection, state, wanted, after, wall)
    snapshot = _count(
        connection,
        f"SELECT count(*) FROM msg_{state.id} WHERE seq IN (SELECT value FROM json_each('{list(chosen[:-1])}')) "
        "AND seq > ? AND (expires IS NULL OR expires > ?)",
        (after, wall),
    )
    return snapshot + num_pending(connection, state, wanted, chosen[-1], wall)


def pending_of(connection: apsw.Connection, state: StreamState, row: ConsumerRow, wall: int) -> int:
    """How many messages a consumer has before it."""
    return num_ahead(connection, state, settings_of(row.config).filter, row.passed, wall, chosen=row.chosen)


def outstanding(connection: apsw.Connection, row: ConsumerRow, now: int) -> int:
    """Delivered and not settled, waiting ones included, exhausted ones not."""
    return _count(
        connection,
        f"SELECT (SELECT coalesce(sum(open), 0) FROM lease WHERE consumer = ?1 AND {LEASED}) + "
        f"(SELECT count(*) FROM pending WHERE consumer = ?1 AND {WAITING})",
        (row.id, now, settings_of(row.config).max_deliver),
    )


def sweep(connection: apsw.Connection, row: ConsumerRow, wall: int, now: int) -> None:
    """Forget what was deleted or ran out while it was pending; the floor moves over it."""
    state = state_of(connection, row.stream)
    if state is None:
        return
    swept, before = False, lowest_pending(connection, row, now)
    for lease in leases_of(connection, row.id):
        if not (state.gap_free and lease.lo >= state.first_seq):
            swept |= _sweep_lease(connection, row, lease, state, wall)
    dead = [
        (row.id, sequence)
        for (sequence,) in every(connection, "SELECT seq FROM pending WHERE consumer = ?", (row.id,))
        if not _alive(connection, state, sequence, sequence, wall)
    ]
    connection.executemany("DELETE FROM pending WHERE consumer = ? AND seq = ?", dead)
    if swept or dead:
        settle_floor(connection, row, before, now)
        save(connection, row)


def _sweep_lease(connection: apsw.Connection, row: ConsumerRow, lease: Leased, state: StreamState, wall: int) -> bool:
    alive = _alive(connection, state, lease.lo, lease.hi, wall)
    marks = bytearray(lease.acked or bytes(len(lease.sequences)))
    dead = [place for place, sequence in lease.unsettled() if sequence not in alive]
    for place in dead:
        marks[place] = 1
    if not dead:
        return False
    left = marks.count(0)
    if left:
        connection.execute(
            "UPDATE lease SET acked = ?, open = ? WHERE consumer = ? AND lo = ?", (bytes(marks), left, row.id, lease.lo)
        )
    else:
        connection.execute("DELETE FROM lease WHERE consumer = ? AND lo = ?", (row.id, lease.lo))
    return True


def _alive(connection: apsw.Connection, state: StreamState, low: int, high: int, wall: int) -> set[int]:
    rows = every(
        connection,
        f"SELECT seq FROM msg_{state.id} WHERE seq BETWEEN ? AND ? AND (expires IS NULL OR expires > ?)",
        (low, high, wall),
    )
    return {sequence for (sequence,) in rows}


def info_of(
    connection: apsw.Connection, row: ConsumerRow, wall: int, now: int, waiting: int = 0
) -> ConsumerInfo | None:
    """Its info as of this transaction; ``None``: its stream is gone."""
    state = state_of(connection, row.stream)
    if state is None:
        return None
    settings: Settings = settings_of(row.config)
    left = settings.paused_until - wall
    redelivered = "SELECT count(*) FROM pending WHERE consumer = ? AND deliveries > 1"
    return ConsumerInfo(
        stream=state.name,
        name=row.name,
        created=time_of_ns(row.created),
        config=settings.config,
        delivered=SequenceInfo(consumer=row.delivered_c, stream=row.delivered_s),
        ack_floor=SequenceInfo(consumer=row.floor_c, stream=row.floor_s),
        num_ack_pending=outstanding(connection, row, now),
        num_redelivered=0 if settings.max_deliver == 1 else _count(connection, redelivered, (row.id,)),
        num_waiting=waiting,
        num_pending=pending_of(connection, state, row, wall),
        paused=left > 0,
        pause_remaining=timedelta(microseconds=left // 1_000) if left > 0 else None,
    )


def _count(connection: apsw.Connection, statement: str, bound: Iterable[int]) -> int:
    return int(one(connection, statement, tuple(bound))[0])
