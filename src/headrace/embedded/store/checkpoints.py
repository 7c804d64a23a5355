"""Checkpoints: what moves the logs into their files. Blocking, on a connection of its own, off the commit path."""

from __future__ import annotations

from pathlib import Path

import apsw

from headrace.embedded.store.files import CONSUMERS_FILE, STREAMS_FILE

__all__ = ["checkpoint", "close", "open_both", "unused_bytes"]

FLAGS = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOFOLLOW


def checkpoint(path: Path) -> None:
    """Move both logs into their files as far as nobody is in the way."""
    close(open_both(path))


def open_both(path: Path) -> list[apsw.Connection]:
    """A writing connection to each file. The last one to close carries the log over, which a reader cannot."""
    opened: list[apsw.Connection] = []
    try:
        for name in (STREAMS_FILE, CONSUMERS_FILE):
            opened.append(apsw.Connection(str(path / name), flags=FLAGS))
            opened[-1].set_busy_timeout(5_000)
            opened[-1].execute("PRAGMA fullfsync=ON")
            opened[-1].execute("PRAGMA checkpoint_fullfsync=ON")
    except BaseException:
        for connection in opened:
            connection.close()
        raise
    return opened


def close(connections: list[apsw.Connection]) -> None:
    """Checkpoint and close them."""
    try:
        for connection in connections:
            connection.execute("PRAGMA main.wal_checkpoint(PASSIVE)").fetchall()
    finally:
        for connection in connections:
            connection.close()


def unused_bytes(path: Path) -> int:
    """Bytes inside the message file that deletions have freed: SQLite uses them before it asks for more."""
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_NOFOLLOW
    connection = apsw.Connection(str(path / STREAMS_FILE), flags=flags)
    try:
        pages, size = (connection.pragma(name) for name in ("freelist_count", "page_size"))
        return int(pages) * int(size)
    finally:
        connection.close()
