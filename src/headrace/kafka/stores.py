"""OffsetStore: where partition mode keeps its checkpoints. One number for each topic and partition: the next offset."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import apsw

from headrace.core.errors import ClosedError, ConfigError, StoreError, UsageError

__all__ = ["DirectoryOffsetStore", "MemoryOffsetStore", "OffsetStore"]

T = TypeVar("T")

_FILE = "kafka-offsets.db"
_MAKING = "kafka-offsets.making"
_LOCK = "kafka-offsets.lock"
_APPLICATION_ID = 0x48524B4F  # "HRKO"
_FORMAT = 1
_BUSY_MS = 10_000
_MAX_NAME = 255
_TABLES = f"""
CREATE TABLE offsets(
    name TEXT NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL, next_offset INTEGER NOT NULL,
    PRIMARY KEY(name, topic, partition)) WITHOUT ROWID, STRICT;
PRAGMA application_id={_APPLICATION_ID};
PRAGMA user_version={_FORMAT};
"""
_LOAD = "SELECT next_offset FROM offsets WHERE name = ? AND topic = ? AND partition = ?"
_SAVE = """
INSERT INTO offsets(name, topic, partition, next_offset) VALUES(?, ?, ?, ?)
ON CONFLICT(name, topic, partition) DO UPDATE SET next_offset = excluded.next_offset
"""
_TERMINAL = (apsw.CorruptError, apsw.NotADBError, apsw.SQLError, apsw.MismatchError, apsw.ConstraintError)


@runtime_checkable
class OffsetStore(Protocol):
    """Keeps the next offset of each partition.

    What is saved when the call returns is there for the next `load`. Whatever a call raises is taken for a failure that
    may pass, and the call repeated; but a ``StoreError`` whose ``retryable`` is false, or another of headrace's errors
    that no second try mends, ends the run. A store does not compare: it gets one value at a time, and they only grow
    but where the log itself went back.
    """

    async def load(self, topic: str, partition: int) -> int | None:
        """The next offset to read; ``None`` = nothing was ever saved."""
        ...

    async def save(self, topic: str, partition: int, next_offset: int) -> None:
        """Everything below `next_offset` is finished."""
        ...


class MemoryOffsetStore:
    """A dictionary: as long as the object lives."""

    def __init__(self) -> None:
        self._offsets: dict[tuple[str, int], int] = {}

    async def load(self, topic: str, partition: int) -> int | None:
        """The next offset to read; ``None`` = nothing was ever saved."""
        return self._offsets.get((topic, partition))

    async def save(self, topic: str, partition: int, next_offset: int) -> None:
        """Everything below `next_offset` is finished."""
        self._offsets[topic, partition] = next_offset


class DirectoryOffsetStore:
    """The file ``kafka-offsets.db`` in the directory `path` (made if missing); `name` keeps applications apart.

    Any number of processes may use it. A power cut may take back the last saves (records are then handled again), a
    killed process loses nothing. ``StoreError``: terminal where the file is no such file or is damaged, ``retryable``
    where it cannot be read or written now (full disk, no right to write).
    """

    def __init__(self, path: str | os.PathLike[str], *, name: str = "default") -> None:
        if os.name != "posix":
            raise ConfigError("a DirectoryOffsetStore needs Linux or macOS")
        if not isinstance(path, str | os.PathLike) or not os.fspath(path):
            raise ConfigError(f"path must be a directory, got {path!r}")
        if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME or not name.isprintable():
            raise ConfigError(f"name must be 1..{_MAX_NAME} printable characters, got {name!a}")
        self._file = Path(path) / _FILE
        self._name = name
        # One thread, so that a call that was cancelled cannot overtake, and undo, one that was made after it.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="headrace-kafka-offsets")
        self._connection: apsw.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._process = os.getpid()
        self._closed = False

    def __repr__(self) -> str:
        return f"DirectoryOffsetStore({str(self._file.parent)!r}, name={self._name!r})"

    async def load(self, topic: str, partition: int) -> int | None:
        """The next offset to read; ``None`` = nothing was ever saved. Raises ``StoreError``."""

        def read(connection: apsw.Connection) -> int | None:
            row = connection.execute(_LOAD, (self._name, topic, partition)).fetchone()
            return None if row is None else int(row[0])

        return await self._off_the_loop(read)

    async def save(self, topic: str, partition: int, next_offset: int) -> None:
        """Everything below `next_offset` is finished. Raises ``StoreError``; the old value stands then."""

        def write(connection: apsw.Connection) -> None:
            connection.execute(_SAVE, (self._name, topic, partition, next_offset))

        await self._off_the_loop(write)

    async def aclose(self) -> None:
        """Close the file. Twice is fine; any use after is ``ClosedError``."""
        if self._closed:
            return
        self._closed = True
        self._worker.submit(self._let_go)
        # Behind what is under way; a cancelled wait takes nothing of it back.
        await asyncio.get_running_loop().run_in_executor(None, self._worker.shutdown)

    async def _off_the_loop(self, work: Callable[[apsw.Connection], T]) -> T:
        if self._closed:
            raise ClosedError(f"{self!r} was closed")
        if self._process != os.getpid():
            raise UsageError(f"{self!r} belongs to process {self._process}: make one in each process")
        return await asyncio.get_running_loop().run_in_executor(self._worker, self._do, work)

    def _do(self, work: Callable[[apsw.Connection], T]) -> T:
        try:
            if self._connection is not None and _identity(self._file) != self._identity:
                self._let_go()  # the file was removed or replaced: what is written to the old one is lost
            if self._connection is None:
                self._identity, self._connection = _open(self._file)
            return work(self._connection)
        except (apsw.Error, OSError) as error:
            self._let_go()  # the next call begins with a sound connection
            raise _store_error(self._file, error) from error

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(apsw.Error):
                connection.close(force=True)


def _open(file: Path) -> tuple[tuple[int, int] | None, apsw.Connection]:
    """The file's identity, and a connection to it."""
    if not file.exists():
        _make(file)
    identity = _identity(file)
    connection = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.set_busy_timeout(_BUSY_MS)
        connection.execute("PRAGMA trusted_schema=OFF; PRAGMA synchronous=NORMAL")
        _check(connection)
    except BaseException:
        with suppress(apsw.Error):
            connection.close(force=True)
        raise
    return identity, connection


def _check(connection: apsw.Connection) -> None:
    """A position that is wrong loses records, so the file is looked through before it is believed; it is small."""
    if (found := connection.pragma("application_id")) != _APPLICATION_ID:
        raise apsw.NotADBError(f"no offsets of headrace (application {found})")
    if (found := connection.pragma("user_version")) != _FORMAT:
        raise apsw.NotADBError(f"format {found}, this version reads {_FORMAT}")
    if (found := connection.execute("PRAGMA quick_check(1)").get) != "ok":
        raise apsw.CorruptError(str(found))


def _make(file: Path) -> None:
    """It is made whole under another name, so that an empty one is known to be damaged."""
    directory = file.parent
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(directory):
        if file.exists():  # another process was faster
            return
        making = directory / _MAKING
        for left in (making, file.with_name(f"{_FILE}-wal"), file.with_name(f"{_FILE}-shm")):
            left.unlink(missing_ok=True)  # the log of a file that was removed must not be carried over into ours
        connection = apsw.Connection(str(making))
        try:
            connection.execute(f"BEGIN; {_TABLES} COMMIT; PRAGMA journal_mode=WAL")
        finally:
            connection.close(force=True)
        making.chmod(0o600)
        making.replace(file)
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _alone(directory: Path) -> Generator[None]:
    """No other process makes the file meanwhile."""
    import fcntl  # noqa: PLC0415  (the rest of the room runs on Windows too)

    descriptor = os.open(directory / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _store_error(file: Path, error: apsw.Error | OSError) -> StoreError:
    wrong = StoreError(f"{file} cannot be used: {error}")
    wrong.retryable = not isinstance(error, (*_TERMINAL, FileExistsError, NotADirectoryError))
    return wrong
