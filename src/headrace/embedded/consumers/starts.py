"""Starts: where a new consumer begins in its stream."""

from __future__ import annotations

from array import array

import apsw

from headrace.embedded.consumers.rows import Filter
from headrace.embedded.store.sql import every, one
from headrace.embedded.streams.read import first_at, ns_of
from headrace.streams.config import ConsumerConfig, DeliverPolicy

__all__ = ["start_of"]


def start_of(
    connection: apsw.Connection, stream_id: int, config: ConsumerConfig, wall: int
) -> tuple[int, bytes | None]:
    """The sequence in front of its first message; for last per subject also the chosen ones, then the stream's last."""
    first, last = one(connection, "SELECT first_seq, last_seq FROM stream WHERE id = ?", (stream_id,))
    policy, wanted = config.deliver_policy, Filter(config.filters)
    if policy is DeliverPolicy.NEW:
        return last, None
    if policy is DeliverPolicy.BY_START_SEQUENCE:
        return max(config.start_sequence or 1, first) - 1, None
    if policy is DeliverPolicy.BY_START_TIME and config.start_time is not None:
        return first_at(connection, stream_id, ns_of(config.start_time)) - 1, None
    if policy is DeliverPolicy.LAST:
        newest = _newest(connection, stream_id, wanted, wall)
        return (max(newest) if newest else first) - 1, None
    if policy is DeliverPolicy.LAST_PER_SUBJECT:
        newest = sorted(_newest(connection, stream_id, wanted, wall))
        return (newest[0] if newest else max(first, last)) - 1, array("q", [*newest, last]).tobytes()
    return first - 1, None


def _newest(connection: apsw.Connection, stream_id: int, wanted: Filter, wall: int) -> list[int]:
    """The last live sequence of each matching subject."""
    states = every(connection, "SELECT subject, last_seq FROM subject_state WHERE stream = ?", (stream_id,))
    ids = wanted.ids(connection) if wanted else None
    return [
        sequence
        for subject, sequence in states
        if (ids is None or subject in ids) and _alive(connection, f"msg_{stream_id}", sequence, wall)
    ]


def _alive(connection: apsw.Connection, table: str, sequence: int, wall: int) -> bool:
    found = one(
        connection, f"SELECT 1 FROM {table} WHERE seq = ? AND (expires IS NULL OR expires > ?)", (sequence, wall)
    )
    return found is not None
