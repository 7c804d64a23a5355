"""Replay: what was stored with a gap in between is handed out with the same gap (replay policy original).

The gap counts from the delivery of the message before, in whichever process that was, so its moment stands in a row per
consumer. What was stored after that delivery comes at once: the reader has caught up, and time itself keeps the rhythm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw

from headrace.embedded.store.sql import one

__all__ = ["MOST_AT_ONCE", "due_now", "note"]

MOST_AT_ONCE = 64
"""Messages looked at for one claim: seldom is more than one due."""


def due_now(connection: apsw.Connection, consumer_id: int, rows: Sequence[Any], now: int) -> tuple[int, int]:
    """How many of these messages (sequence and time first) are due now; none: when the first one is."""
    found = one(connection, "SELECT stamp, at, last_seq FROM replay WHERE consumer = ?", (consumer_id,))
    sequence, stamp = rows[0][:2]
    if found is not None and sequence <= found[2]:
        due = found[1] + stamp - found[0]
        if due > now:
            return 0, due
    together = (place for place, row in enumerate(rows) if row[1] != stamp)
    return next(together, len(rows)), now


def note(connection: apsw.Connection, consumer_id: int, stamp: int, now: int, last_seq: int) -> None:
    """A message stored at `stamp` is delivered now, while the stream ends at `last_seq`."""
    connection.execute(
        "INSERT OR REPLACE INTO replay(consumer, stamp, at, last_seq) VALUES(?, ?, ?, ?)",
        (consumer_id, stamp, now, last_seq),
    )
