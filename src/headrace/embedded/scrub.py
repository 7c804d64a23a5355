"""Secure deletion: the row is overwritten and deleted, then the log that still holds it is emptied and cut."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw

from headrace.core.errors import BrokerTimeoutError, UnsupportedError
from headrace.embedded.room import Room
from headrace.embedded.store.checkpoints import open_one
from headrace.embedded.store.files import CONSUMERS_FILE, STREAMS_FILE

__all__ = ["scrub"]

PATIENCE = 5.0
AGAIN = 0.02
BUSY_MS = 100
"""Little: while it waits for a reader, nobody can write."""


async def scrub(room: Room, delete: Callable[[apsw.Connection], Any]) -> None:
    """Run `delete`, then see that no file holds what it deleted. A foreign reader can hold that up for 5 s."""
    if not room.store.secure_delete:
        raise UnsupportedError("secure_delete: the store was made without it")
    await room.write(delete)
    path = room.store.path
    if path is None:
        return
    loop = room.store.loop
    until = loop.time() + PATIENCE
    while await room.store.offload(lambda: _held(path)):
        # by a reader, or by a checkpoint: SQLite waits for neither
        if loop.time() >= until:
            raise BrokerTimeoutError("deleted, not yet scrubbed: a reader holds the log; done at the next checkpoint")
        await asyncio.sleep(AGAIN)


def _held(path: Path) -> bool:
    """Empty both logs; whether something was in the way."""
    for name in (STREAMS_FILE, CONSUMERS_FILE):
        connection = open_one(path, name)
        try:
            connection.set_busy_timeout(BUSY_MS)
            connection.execute("PRAGMA secure_delete=ON")
            busy, _, _ = connection.execute("PRAGMA main.wal_checkpoint(TRUNCATE)").fetchone() or (1, 0, 0)
        except apsw.BusyError:
            busy = 1
        finally:
            connection.close()
        if busy:
            return True
    return False
