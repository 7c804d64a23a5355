"""Checkpoints: what moves the logs into their files. Blocking, on a connection of its own, off the commit path."""

from __future__ import annotations

from pathlib import Path

import apsw

from headrace.embedded.errors import SyncFailedError
from headrace.embedded.store.files import CONSUMERS_FILE, STREAMS_FILE

__all__ = ["checkpoint", "close", "open_both", "open_one", "rewrite", "sync_log", "unused_bytes"]

FLAGS = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOFOLLOW


def checkpoint(path: Path) -> None:
    """Move both logs into their files as far as nobody is in the way."""
    close(open_both(path))


def open_both(path: Path) -> list[apsw.Connection]:
    """A writing connection to each file. The last one to close carries the log over, which a reader cannot."""
    opened: list[apsw.Connection] = []
    try:
        for name in (STREAMS_FILE, CONSUMERS_FILE):
            opened.append(open_one(path, name))  # noqa: PERF401  (what was opened is closed if the next one fails)
    except BaseException:
        for connection in opened:
            connection.close()
        raise
    return opened


def open_one(path: Path, name: str) -> apsw.Connection:
    """A writing connection whose commits are on disk when they return."""
    connection = apsw.Connection(str(path / name), flags=FLAGS)
    try:
        connection.set_busy_timeout(5_000)
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA fullfsync=ON")
        connection.execute("PRAGMA checkpoint_fullfsync=ON")
    except BaseException:
        connection.close()
        raise
    return connection


def close(connections: list[apsw.Connection]) -> None:
    """Checkpoint and close them."""
    try:
        for connection in connections:
            connection.execute("PRAGMA main.wal_checkpoint(PASSIVE)").fetchall()
    finally:
        for connection in connections:
            connection.close()


def rewrite(connection: apsw.Connection) -> None:
    """Move the whole log into its file, so that every page is written and synced; ``SyncFailedError`` if blocked."""
    busy, _, _ = next(iter(connection.execute("PRAGMA main.wal_checkpoint(TRUNCATE)")))
    if busy:
        raise SyncFailedError("the checkpoint was blocked")


def sync_log(path: Path, name: str) -> None:
    """What was committed to this file is on disk. Through SQLite's own file layer: it knows how a disk is flushed.

    A missing log was carried over by a checkpoint, and synced by that.
    """
    log = path / f"{name}-wal"
    try:
        file = apsw.VFSFile("", str(log), [apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_READWRITE, 0])
    except apsw.CantOpenError:
        if log.exists():
            raise
        return
    try:
        file.xSync(apsw.SQLITE_SYNC_FULL)
    finally:
        file.xClose()


def unused_bytes(path: Path) -> int:
    """Bytes inside the message file that deletions have freed: SQLite uses them before it asks for more."""
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_NOFOLLOW
    connection = apsw.Connection(str(path / STREAMS_FILE), flags=flags)
    try:
        pages, size = (connection.pragma(name) for name in ("freelist_count", "page_size"))
        return int(pages) * int(size)
    finally:
        connection.close()
