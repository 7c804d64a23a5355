"""Marks: no sequence is given out before a mark above it is on disk (`Durability.RELAXED`). Never used on the loop.

Where commits are not synced, a power cut takes the last messages and with them the knowledge that their sequences were
given out. The marks stand in consumers.db: one has to be on disk before the transaction on streams.db that needs it
ends. After a death everything goes on above its mark; the gap is legal, a second message under one sequence is not.
"""

from __future__ import annotations

import fcntl
from pathlib import Path

import apsw

from headrace.embedded.store.checkpoints import close, open_both, open_one, rewrite, sync_log
from headrace.embedded.store.files import CONSUMERS_FILE, STREAMS_FILE, hold
from headrace.embedded.store.locks import close_lock
from headrace.embedded.store.sql import every

__all__ = ["Marks", "close_last", "go_on_above"]

LEAST, MOST = 1_024, 65_536
"""How far ahead: little for who publishes little (the gap after a death), more for who publishes much (a sync each)."""

_BEHIND = """
SELECT high.id, high.sequence FROM stream JOIN (
    SELECT id, max(sequence) AS sequence FROM (
        SELECT stream AS id, sequence FROM mark UNION ALL
        SELECT stream, max(delivered_s, floor_s, scanned) FROM consumer WHERE delivered_c > 0)
    GROUP BY id) AS high ON high.id = stream.id
WHERE stream.last_seq < high.sequence
"""
_GO_ON = """
UPDATE stream SET last_seq = ?2, first_seq = CASE WHEN msgs = 0 THEN ?2 + 1 ELSE first_seq END
WHERE id = ?1 AND last_seq < ?2
"""


class Marks:
    """The marks that this process has set. Used on the thread of streams.db only."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: apsw.Connection | None = None
        self._failed = False
        self._set: dict[int, int] = {}
        self._ahead: dict[int, int] = {}

    def cover(self, stream_id: int, sequence: int) -> None:
        """A mark at `sequence` or above is on disk."""
        if sequence > self._set.get(stream_id, 0):
            self._raise(stream_id, sequence)

    def _raise(self, stream_id: int, sequence: int) -> None:
        ahead = min(2 * self._ahead.get(stream_id, LEAST // 2), MOST)
        try:
            if self._connection is None:
                self._connection = open_one(self._path, CONSUMERS_FILE)
            if self._failed:  # a sync that failed is not believed when it is repeated
                rewrite(self._connection)
            self._connection.execute(
                "INSERT INTO mark VALUES(?, ?) ON CONFLICT DO UPDATE SET sequence = max(sequence, excluded.sequence)",
                (stream_id, sequence + ahead),
            )
        except BaseException:
            self._failed = True
            self.close()
            raise
        self._failed = False
        self._set[stream_id], self._ahead[stream_id] = sequence + ahead, ahead

    def close(self) -> None:
        """Close its connection; the marks stay."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def go_on_above(both: apsw.Connection, path: Path) -> None:
    """At the open of a store that nobody else has open: no stream stands below its mark, or below what a consumer got.

    `both` reads both files.
    """
    behind = every(both, _BEHIND)
    if not behind:
        return
    streams, consumers = connections = open_both(path)
    try:
        with streams:
            streams.executemany(_GO_ON, behind)
        consumers.execute("DELETE FROM mark")
    finally:
        close(connections)


def close_last(connections: list[apsw.Connection], path: Path, openers: int, patience: float) -> None:
    """Checkpoint and close both files. Who closes last takes the marks away: after that everything is on disk."""
    lock = -1
    try:
        lock = hold(path, "open", patience)  # nobody joins meanwhile
        if _alone(openers):
            sync_log(path, STREAMS_FILE)
            connections[1].execute("DELETE FROM mark")
    finally:
        close(connections)
        if lock >= 0:
            close_lock(lock)


def _alone(openers: int) -> bool:
    try:
        fcntl.flock(openers, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
