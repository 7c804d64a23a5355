"""Reboot: deadlines stand in the boot clock, which begins again with each boot; what is left of them must not.

So consumers.db says which boot its deadlines belong to, and what both clocks said at one moment of it. Who opens it in
another boot (or on another machine: a restored backup) gives every deadline the wall time that was left of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw

from headrace.embedded.consumers.rows import EXHAUSTED, settings_of
from headrace.embedded.errors import CorruptedError
from headrace.embedded.store.files import CONSUMERS_FILE
from headrace.embedded.store.sql import every, one

__all__ = ["go_on", "note"]

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
STALE = 60_000_000_000
"""A moment this old is noted again: the wall clock may have been set since."""
_FURTHEST = 1 << 62

# All move by the same time, so that what is due keeps its order. At most the full length: the ack wait after that
# delivery; of a nak the delay is not known, so what was left of it at the moment that was noted.
_LEASES = "UPDATE lease SET deadline = min(deadline + :shift, :now + :first) WHERE consumer = :id"
_PENDING = f"""
UPDATE pending SET due = min(due + :shift, :now + CASE WHEN queue IS NULL
    THEN (SELECT value FROM json_each(:waits) WHERE key = min(pending.deliveries, :last) - 1)
    ELSE max(due - :clock, 0) END)
WHERE consumer = :id AND due < {EXHAUSTED}
"""
_REPLAY = "UPDATE replay SET at = min(at + :shift, :now) WHERE consumer = :id"
_ACTIVE = "UPDATE consumer SET active = min(active + :shift, :now) WHERE id = :id"


def go_on(connection: apsw.Connection, wall: int, now: int) -> None:
    """At open, before anything is claimed. Whichever process comes first after a reboot does it for all."""
    boot = _boot_id()
    found = one(connection, "SELECT boot, wall, clock FROM moment")
    if found is not None and [type(each) for each in found] != [str, int, int]:
        raise CorruptedError("the moment that deadlines count from makes no sense", file=CONSUMERS_FILE)
    if found is not None and found[0] == boot and found[2] <= now:
        note(connection, wall, now)
        return
    if found is not None:
        _shift(connection, wall - found[1], found[2], now)
    connection.execute("INSERT OR REPLACE INTO moment(id, boot, wall, clock) VALUES(1, ?, ?, ?)", (boot, wall, now))


def note(connection: apsw.Connection, wall: int, now: int) -> None:
    """Now and then: what both clocks say."""
    connection.execute("UPDATE moment SET wall = ?, clock = ? WHERE clock < ?", (wall, now, now - STALE))


def _shift(connection: apsw.Connection, passed: int, clock: int, now: int) -> None:
    """The wall clock has moved by `passed` since the boot clock of that other boot said `clock`."""
    shift = max(-_FURTHEST, min(_FURTHEST, now - clock - passed))
    for consumer_id, config in every(connection, "SELECT id, config FROM consumer"):
        waits = settings_of(config).waits
        bound: dict[str, Any] = {
            "id": consumer_id, "shift": shift, "now": now, "clock": clock,
            "first": waits[0], "last": len(waits), "waits": str(list(waits)),
        }  # fmt: skip
        for statement in (_LEASES, _PENDING, _REPLAY, _ACTIVE):
            connection.execute(statement, bound)


def _boot_id() -> str:
    """Of this boot. Where there is none, only a boot clock that stands lower than it did tells of another boot."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
