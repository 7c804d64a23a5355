"""Connections: how the files are opened, made and, after a failure, opened again. Blocking; never on the loop."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import apsw

from headrace.core.errors import ConfigError, StoreError
from headrace.embedded.errors import NotAStoreError, StoreVersionError, SyncFailedError
from headrace.embedded.options import Durability, EmbeddedOptions
from headrace.embedded.store.checkpoints import rewrite
from headrace.embedded.store.files import (
    CONSUMERS_FILE,
    MAKING,
    STREAMS_FILE,
    Turnstile,
    create_file,
    hold,
    join,
    prepare,
    reserve,
    sync_directory,
)
from headrace.embedded.store.locks import close_lock
from headrace.embedded.store.marks import Marks, go_on_above
from headrace.embedded.store.schema import APPLICATION_ID, CONSUMERS, FORMAT, REPLAY, STREAMS
from headrace.embedded.store.sql import one

__all__ = ["Connections", "Opened", "check_format", "read_connection", "untouched"]

_NEEDED = (3, 53, 0)
if tuple(int(part) for part in apsw.sqlite_lib_version().split(".")) < _NEEDED:
    raise ConfigError(f"SQLite must be >= 3.53 (older ones can corrupt a WAL), got {apsw.sqlite_lib_version()}")

BUSY_MS = 10_000
WAL_PAGES = 8192
"""32 MiB."""
LARGEST_LOG = 48 * 1024 * 1024
_READ = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_NOFOLLOW
_WRITE = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_NOFOLLOW


@dataclass
class Opened:
    """What `Connections.open` has opened."""

    path: Path | None
    streams: apsw.Connection | None = None
    consumers: apsw.Connection | None = None
    reader: apsw.Connection | None = None
    glass: apsw.Connection | None = None
    """The loop's own, to glance through."""
    gates: dict[str, Turnstile] = field(default_factory=dict[str, Turnstile])
    recovered: bool = False
    alone: bool = False
    """Whether no other process had it open."""
    marks: Marks | None = None
    """Set where commits are not synced."""
    alive: int = -1
    """A descriptor that holds the shared lock of all openers."""

    def close(self) -> None:
        """Close all of it, nothing written."""
        for connection in (self.streams, self.consumers, self.reader, self.glass):
            if connection is not None:
                let_go(connection)
        for gate in self.gates.values():
            gate.close()
        if self.alive >= 0:
            close_lock(self.alive)


class Connections:
    """Opens the files of one store as its options say."""

    def __init__(self, path: str | os.PathLike[str], options: EmbeddedOptions) -> None:
        self.given = path
        self.options = options
        self.directory: Path | None = None
        self.secure_delete = options.secure_delete
        """Whether what is deleted is overwritten: the options decide when a store is made, after that the store."""

    def open(self) -> Opened:
        """Open (and make) everything."""
        if os.fspath(self.given) == ":memory:":
            return Opened(None, streams=self._memory())
        self.directory = directory = prepare(self.given, create=self.options.create, read_only=self.options.read_only)
        if self.options.read_only:
            return Opened(directory, reader=self.reader())
        opened = Opened(directory)
        lock = hold(directory, "open", self.options.seconds("timeout"))
        try:
            opened.alive, opened.alone = join(directory)
            # a log that nobody uses was left by a death; beside other processes it is only theirs
            opened.recovered = opened.alone and (directory / f"{STREAMS_FILE}-wal").exists()
            self._make_files(directory)
            opened.streams = self.streams()
            opened.consumers = self.consumers()
            opened.reader = self.reader()
            opened.glass = self.reader()
            if opened.alone:
                go_on_above(opened.reader, directory)
            if self.options.durability is Durability.RELAXED:
                opened.marks = Marks(directory)
            for name in ("streams", "consumers"):
                opened.gates[name] = Turnstile(directory, name)
            with suppress(OSError):  # a full disk must not keep a store closed
                reserve(directory, self.options.reserve_bytes)
        except BaseException:
            opened.close()
            raise
        finally:
            close_lock(lock)
        return opened

    def streams(self) -> apsw.Connection:
        """The writer of streams.db, consumers.db attached to read."""
        relaxed = self.options.durability is Durability.RELAXED
        with self._connected(STREAMS_FILE, _WRITE) as connection:
            check_format(connection, "main", str(self.directory))
            found = one(connection, "SELECT value FROM meta WHERE key = 'secure_delete'")
            self.secure_delete = bool(found and found[0])
            self._tune(connection, "NORMAL" if relaxed else "FULL")
            self._attach(connection, CONSUMERS_FILE, "consumers_ro")
        return connection

    def consumers(self) -> apsw.Connection:
        """The writer of consumers.db, streams.db attached to read."""
        with self._connected(CONSUMERS_FILE, _WRITE) as connection:
            self._tune(connection, "NORMAL")
            if one(connection, "SELECT 1 FROM sqlite_schema WHERE name = 'replay'") is None:
                connection.execute(REPLAY)
            self._attach(connection, STREAMS_FILE, "streams_ro")
        return connection

    def reader(self) -> apsw.Connection:
        """Reads both."""
        with self._connected(STREAMS_FILE, _READ) as connection:
            check_format(connection, "main", str(self.directory))
            connection.execute("PRAGMA trusted_schema=OFF")
            self._attach(connection, CONSUMERS_FILE, "consumers_ro")
        return connection

    def recover_streams(self, connection: apsw.Connection, error: BaseException) -> apsw.Connection:
        """After a failed write or sync: see `_again`."""
        return self._again(connection, error, self.streams)

    def recover_consumers(self, connection: apsw.Connection, error: BaseException) -> apsw.Connection:
        """After a failed write or sync: see `_again`."""
        return self._again(connection, error, self.consumers)

    def _again(
        self, connection: apsw.Connection, error: BaseException, make: Callable[[], apsw.Connection]
    ) -> apsw.Connection:
        """A failed sync is never believed when it is repeated: close, reopen, and rewrite all pages by a checkpoint."""
        if not isinstance(error, apsw.IOError | apsw.CantOpenError | SyncFailedError):
            return connection
        connection.close(force=True)
        fresh = make()
        try:
            rewrite(fresh)
        except BaseException:
            fresh.close(force=True)
            raise
        return fresh

    @contextmanager
    def _connected(self, name: str, flags: int) -> Generator[apsw.Connection]:
        """A connection that is closed only if what follows fails."""
        assert self.directory is not None  # noqa: S101  (only files come here)
        connection = apsw.Connection(str(self.directory / name), flags=flags, statementcachesize=256)
        try:
            connection.set_busy_timeout(BUSY_MS)
            yield connection
        except BaseException:
            let_go(connection)
            raise

    def _tune(self, connection: apsw.Connection, synchronous: str) -> None:
        check_format(connection, "main", str(self.directory))
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute(f"PRAGMA main.synchronous={synchronous}")
        # checkpoints are a job of their own: they must not sit in the way of a commit
        # (maintenance.py); only a log that outgrows that job is carried over by the commit itself. On a full disk
        # the reserve must have room for the log in the file, and as much again for deletions.
        reserve = self.options.reserve_bytes
        pages = min(WAL_PAGES, reserve // (2 * 4096)) if reserve else WAL_PAGES
        connection.execute(f"PRAGMA wal_autocheckpoint={pages}")
        # a log is written over in place, not cut (twice as fast); but what grew while a reader held it shrinks again
        connection.execute(f"PRAGMA main.journal_size_limit={LARGEST_LOG}")
        connection.execute("PRAGMA fullfsync=ON")
        connection.execute("PRAGMA checkpoint_fullfsync=ON")
        connection.execute(f"PRAGMA secure_delete={'ON' if self.secure_delete else 'OFF'}")
        connection.execute("PRAGMA temp_store=MEMORY")
        connection.execute("PRAGMA main.cache_size=-16384")

    def _attach(self, connection: apsw.Connection, name: str, schema: str) -> None:
        assert self.directory is not None  # noqa: S101  (only files come here)
        uri = f"file:{_quoted(str(self.directory / name))}?mode=ro"
        connection.execute(f"ATTACH ? AS {schema}", (uri,))
        check_format(connection, schema, str(self.directory / name))

    def _memory(self) -> apsw.Connection:
        connection = apsw.Connection(":memory:", statementcachesize=256)
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute(f"PRAGMA secure_delete={'ON' if self.secure_delete else 'OFF'}")
        connection.execute("ATTACH ':memory:' AS consumers_rw")
        connection.execute(STREAMS)
        prefixed = CONSUMERS.replace("TABLE ", "TABLE consumers_rw.").replace("INDEX ", "INDEX consumers_rw.")
        connection.execute(prefixed)
        self._write_meta(connection)
        return connection

    def _make_files(self, directory: Path) -> None:
        """Make what is missing. Nothing is ever reset silently: one file without the other is an error."""
        streams, consumers = directory / STREAMS_FILE, directory / CONSUMERS_FILE
        if streams.exists() and consumers.exists():
            return
        if streams.exists():
            raise StoreError(
                f"{consumers} is missing beside {streams}: the positions of all consumers are gone. "
                "The messages are intact in it; restore a backup into a new directory"
            )
        if not consumers.exists():
            self._make(consumers, CONSUMERS)
        elif self._is_used(consumers):
            raise StoreError(f"{streams} is missing beside {consumers}: the messages are gone; restore a backup")
        self._make(streams, STREAMS)

    def _is_used(self, consumers: Path) -> bool:
        """Whether it has known consumers. One that has not was left by a death between the making of the two files."""
        with closing(read_connection(consumers)) as connection:
            check_format(connection, "main", str(consumers))
            return connection.execute("SELECT 1 FROM consumer").fetchone() is not None

    def _make(self, path: Path, schema: str) -> None:
        """Under another name until it is whole, so that a death leaves no half of a store."""
        fresh = path.with_name(path.name + MAKING)
        for left in path.parent.glob(f"{fresh.name}*"):
            left.unlink()
        create_file(fresh)
        with closing(apsw.Connection(str(fresh), flags=_WRITE)) as connection:
            connection.execute("PRAGMA page_size=4096")
            connection.execute("PRAGMA journal_mode=WAL")
            with connection:
                connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version={FORMAT}")
                connection.execute(schema)
                if schema is STREAMS:
                    self._write_meta(connection)
        fresh.rename(path)
        sync_directory(path.parent)

    def _write_meta(self, connection: apsw.Connection) -> None:
        rows = {"uuid": uuid.uuid4().hex, "generation": 0, "secure_delete": int(self.options.secure_delete)}
        connection.executemany("INSERT INTO meta(key, value) VALUES(?, ?)", list(rows.items()))


def check_format(connection: apsw.Connection, schema: str, where: str) -> None:
    """``NotAStoreError`` or ``StoreVersionError`` before anything is written."""
    try:
        application = connection.pragma("application_id", schema=schema)
        version = connection.pragma("user_version", schema=schema)
    except apsw.NotADBError as error:
        raise NotAStoreError(f"{where}: {error}") from error
    if application != APPLICATION_ID:
        raise NotAStoreError(f"{where} is a file of something else (application id {application}); it was not touched")
    if version != FORMAT:
        raise StoreVersionError(int(version), FORMAT, where)


def untouched(connection: apsw.Connection) -> None:
    """Closing it will not carry the log over: what could not be opened stays as it was found."""
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)


def let_go(connection: apsw.Connection) -> None:
    """Close it `untouched`, whatever else fails."""
    with suppress(apsw.Error):
        untouched(connection)
        connection.close(force=True)


def read_connection(path: Path) -> apsw.Connection:
    """A connection of its own that reads one file."""
    connection = apsw.Connection(str(path), flags=_READ)
    connection.set_busy_timeout(BUSY_MS)
    connection.execute("PRAGMA trusted_schema=OFF")
    return connection


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
