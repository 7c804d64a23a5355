"""Secure deletion: the row is overwritten and deleted, then the log that still holds it is emptied and cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import apsw

from headrace.core.errors import BrokerTimeoutError, UnsupportedError
from headrace.embedded.errors import StoreLockedError
from headrace.embedded.room import Room
from headrace.embedded.store.files import CONSUMERS_FILE, STREAMS_FILE

__all__ = ["scrub"]

PATIENCE_MS = 5_000


async def scrub(room: Room, delete: Callable[[apsw.Connection], Any]) -> None:
    """Run `delete`, then see that no file holds what it deleted. A foreign reader can hold that up for 5 s."""
    if not room.store.secure_delete:
        raise UnsupportedError("secure_delete: the store was made without it")
    await room.write(delete)
    if room.store.path is not None:
        await room.store.offload(lambda: _empty_logs(room))


def _empty_logs(room: Room) -> None:
    assert room.store.path is not None  # noqa: S101  (memory has no log)
    for name in (STREAMS_FILE, CONSUMERS_FILE):
        connection = apsw.Connection(
            str(room.store.path / name), flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOFOLLOW
        )
        try:
            connection.set_busy_timeout(PATIENCE_MS)
            connection.execute("PRAGMA secure_delete=ON")
            busy, _, _ = connection.execute("PRAGMA main.wal_checkpoint(TRUNCATE)").fetchone() or (1, 0, 0)
        except apsw.BusyError as error:
            raise StoreLockedError(str(error)) from error
        finally:
            connection.close()
        if busy:
            raise BrokerTimeoutError("deleted, not yet scrubbed: a reader holds the log; done at the next checkpoint")
