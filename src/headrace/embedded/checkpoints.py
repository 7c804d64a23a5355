"""Checkpoints: what moves the logs into their files. Blocking, on a connection of its own, off the commit path."""

from __future__ import annotations

from pathlib import Path

import apsw

from headrace.embedded.files import CONSUMERS_FILE, STREAMS_FILE

__all__ = ["checkpoint"]


def checkpoint(path: Path, mode: str) -> int:
    """Move both logs into their files; how many bytes are left in them."""
    left = 0
    for name in (STREAMS_FILE, CONSUMERS_FILE):
        connection = apsw.Connection(str(path / name), flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOFOLLOW)
        try:
            connection.set_busy_timeout(5_000)
            connection.execute("PRAGMA fullfsync=ON")
            connection.execute("PRAGMA checkpoint_fullfsync=ON")
            _, pages, moved = connection.execute(f"PRAGMA main.wal_checkpoint({mode})").fetchone() or (0, 0, 0)
            left += max(0, pages - moved) * 4096
        finally:
            connection.close()
    return left
