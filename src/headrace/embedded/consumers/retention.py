"""Retention: which messages of interest and workqueue streams no consumer needs any more.

Decided on the consumers thread, inside the transaction of the acks (there the state of every consumer is current);
deleted afterwards on the streams thread. A crash in between is repaired at open (leftovers.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import apsw

from headrace.embedded.consumers.rows import ConsumerRow, Settings, consumers_of, leases_of, settings_of
from headrace.embedded.store.sql import every, one
from headrace.embedded.streams.catalog import config_of, stream_by_id, subject_name
from headrace.embedded.streams.removal import remove
from headrace.streams.config import RetentionPolicy

__all__ = ["releases", "remove_settled", "retention_of", "unneeded", "wanted"]


def retention_of(connection: apsw.Connection, stream_id: int) -> RetentionPolicy:
    """What acks mean in this stream; limits for one that is gone."""
    found = one(connection, "SELECT config FROM stream WHERE id = ?", (stream_id,))
    return RetentionPolicy.LIMITS if found is None else config_of(found[0]).retention


def releases(connection: apsw.Connection, stream_id: int) -> bool:
    """Whether acks delete messages there."""
    return retention_of(connection, stream_id) is not RetentionPolicy.LIMITS


def wanted(connection: apsw.Connection, stream_id: int, subject: str) -> bool:
    """Whether a consumer of the stream wants messages on this subject: interest streams store nothing else."""
    rows = every(connection, "SELECT config FROM consumer WHERE stream = ?", (stream_id,))
    return any(settings_of(config).filter.matches(subject) for (config,) in rows)


def unneeded(connection: apsw.Connection, stream_id: int, sequences: Iterable[int]) -> list[int]:
    """Those of `sequences` that may go, now that a consumer has settled them."""
    if retention_of(connection, stream_id) is RetentionPolicy.WORKQUEUE:
        return list(sequences)
    needs = [_Needs(connection, row) for row in consumers_of(connection, stream_id)]
    gone: list[int] = []
    for sequence in sequences:
        subject = _subject_of(connection, stream_id, sequence)
        if subject is not None and not any(need.needs(sequence, subject) for need in needs):
            gone.append(sequence)
    return gone


def remove_settled(connection: apsw.Connection, stream_id: int, sequences: Sequence[int]) -> int:
    """Delete them (on the streams thread); a stream that is gone meanwhile has nothing left to delete.

    By its id, which is never given again: another process may have made a new stream of the same name.
    """
    record = stream_by_id(connection, stream_id)
    return 0 if record is None else remove(connection, record, sequences)


class _Needs:
    """What one consumer still needs."""

    def __init__(self, connection: apsw.Connection, row: ConsumerRow) -> None:
        self._row = row
        self._settings: Settings = settings_of(row.config)
        self._held: set[int] = set()
        for lease in leases_of(connection, row.id):
            self._held.update(sequence for _, sequence in lease.unsettled())
        rows = every(connection, "SELECT seq FROM pending WHERE consumer = ?", (row.id,))
        self._held.update(sequence for (sequence,) in rows)

    def needs(self, sequence: int, subject: str) -> bool:
        """Whether it waits for it, or has it and has not settled it."""
        return sequence in self._held or (sequence > self._row.delivered_s and self._settings.filter.matches(subject))


def _subject_of(connection: apsw.Connection, stream_id: int, sequence: int) -> str | None:
    found = one(connection, f"SELECT subject FROM msg_{stream_id} WHERE seq = ?", (sequence,))
    return None if found is None else subject_name(connection, found[0])
