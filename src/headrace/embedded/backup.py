"""Backup and restore: both files as of one moment, packed into one file with a manifest.

Consumers are copied before streams, so that a position is never ahead of the messages. The file: a magic line, the
manifest's length, the manifest (JSON), then the bytes of streams.db and consumers.db.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Sequence
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import apsw
import msgspec

from headrace.core.errors import ConfigError
from headrace.embedded.errors import CorruptedError, NotAStoreError, StoreVersionError
from headrace.embedded.store.connections import read_connection
from headrace.embedded.store.files import CONSUMERS_FILE, STREAMS_FILE
from headrace.embedded.store.schema import APPLICATION_ID, FORMAT
from headrace.embedded.store.store import Store
from headrace.embedded.store.work import off_the_loop
from headrace.embedded.streams.catalog import streams_all
from headrace.embedded.streams.management import drop
from headrace.embedded.verify import examine_directory
from headrace.streams.msg import time_of_ns

__all__ = ["BackupReport", "restore", "take"]

MAGIC = b"headrace backup 1\n"
CHUNK = 1024 * 1024
NAMES = (STREAMS_FILE, CONSUMERS_FILE)


class BackupReport(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a backup. ``bytes``: of the file's contents, ``sha256``: over them."""

    streams: tuple[str, ...]
    messages: int
    bytes: int
    sha256: str
    taken_at: datetime


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup says of itself."""

    format: int
    uuid: str
    report: BackupReport
    sizes: tuple[int, int]


async def take(store: Store, file: Path, streams: Sequence[str] | None, *, overwrite: bool) -> BackupReport:
    """Copy `store` into `file`: written aside, synced, renamed."""
    if not overwrite and await store.offload(file.exists):
        raise ConfigError(f"file exists: {file}; overwrite=True replaces it")
    aside = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    taken_at = time_of_ns(store.now_ns())
    try:
        await store.offload(lambda: aside.mkdir(mode=0o700))
        if store.path is None:
            await store.streams.call(lambda connection: _copy_memory(connection, aside))
        else:
            path = store.path
            await store.offload(lambda: _copy_files(path, aside))
        return await store.offload(lambda: _pack(aside, file, streams, taken_at))
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _copy_memory(connection: apsw.Connection, aside: Path) -> None:
    for schema, name in (("consumers_rw", CONSUMERS_FILE), ("main", STREAMS_FILE)):
        (aside / name).write_bytes(connection.serialize(schema))
        (aside / name).chmod(0o600)
        with closing(apsw.Connection(str(aside / name))) as copy:
            # memory has no header worth the name: what marks a store is written into the copy
            copy.execute(f"PRAGMA application_id={APPLICATION_ID}")
            copy.execute(f"PRAGMA user_version={FORMAT}")


def _copy_files(path: Path, aside: Path) -> None:
    for name in (CONSUMERS_FILE, STREAMS_FILE):
        with closing(read_connection(path / name)) as source:
            _copy(source, "main", aside / name)


def _copy(source: apsw.Connection, schema: str, target: Path) -> None:
    with closing(apsw.Connection(str(target))) as copy:
        target.chmod(0o600)
        with copy.backup("main", source, schema) as backup:
            while not backup.done:
                backup.step(-1)


def _pack(aside: Path, file: Path, streams: Sequence[str] | None, taken_at: datetime) -> BackupReport:
    names, messages, store_uuid = _reduce(aside, streams)
    digest, sizes = hashlib.sha256(), [0, 0]
    for place, name in enumerate(NAMES):
        with (aside / name).open("rb") as source:
            while chunk := source.read(CHUNK):
                digest.update(chunk)
                sizes[place] += len(chunk)
    report = BackupReport(
        streams=names, messages=messages, bytes=sum(sizes), sha256=digest.hexdigest(), taken_at=taken_at
    )
    manifest = msgspec.json.encode(Manifest(format=FORMAT, uuid=store_uuid, report=report, sizes=(sizes[0], sizes[1])))
    packed = aside / "packed"
    descriptor = os.open(packed, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as target:
        os.fchmod(target.fileno(), 0o600)
        target.write(MAGIC + b"%d\n" % len(manifest) + manifest)
        for name in NAMES:
            with (aside / name).open("rb") as source:
                shutil.copyfileobj(source, target, CHUNK)
        target.flush()
        os.fsync(target.fileno())
    packed.replace(file)
    return report


def _reduce(aside: Path, streams: Sequence[str] | None) -> tuple[tuple[str, ...], int, str]:
    """Leave only the wanted streams; what there is then."""
    with closing(apsw.Connection(str(aside / STREAMS_FILE))) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
        records = streams_all(connection)
        unknown = set(streams or ()) - {record.name for record in records}
        if unknown:
            raise ConfigError(f"streams: there is no {min(unknown)!r}")
        dropped = [record for record in records if streams is not None and record.name not in streams]
        with connection:
            for record in dropped:
                drop(connection, record.name)
        if dropped:
            connection.execute("VACUUM")
        (messages,) = connection.execute("SELECT coalesce(sum(msgs), 0) FROM stream").fetchone() or (0,)
        (store_uuid,) = connection.execute("SELECT value FROM meta WHERE key = 'uuid'").fetchone() or ("",)
    with closing(apsw.Connection(str(aside / CONSUMERS_FILE))) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
        with connection:
            for record in dropped:
                own = "consumer IN (SELECT id FROM consumer WHERE stream = ?)"
                for table in ("lease", "pending"):
                    connection.execute(f"DELETE FROM {table} WHERE {own}", (record.id,))
                connection.execute("DELETE FROM consumer WHERE stream = ?", (record.id,))
    return tuple(record.name for record in records if record not in dropped), int(messages), str(store_uuid)


async def restore(
    file: str | os.PathLike[str], path: str | os.PathLike[str], *, streams: Sequence[str] | None = None
) -> BackupReport:
    """Make a store of a backup: every checksum is checked first; all or nothing. `path` must be absent or empty."""
    return await off_the_loop(lambda: _restore(Path(file), Path(path), streams), os.fspath(file))


def _restore(file: Path, path: Path, streams: Sequence[str] | None) -> BackupReport:
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"path must be absent or an empty directory, got {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    aside.mkdir(mode=0o700)
    aside.chmod(0o700)
    try:
        with file.open("rb") as source:
            report = _unpack(source, aside, file)
        if streams is not None:
            names, messages, _ = _reduce(aside, streams)
            report = msgspec.structs.replace(report, streams=names, messages=messages)
        _renew(aside)
        found = examine_directory(aside)
        if not found.ok:
            raise CorruptedError(found.problems[0].what, file=str(file))
        with suppress(FileNotFoundError):
            path.rmdir()
        aside.rename(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return report


def _unpack(source: BinaryIO, aside: Path, file: Path) -> BackupReport:
    if source.readline(len(MAGIC)) != MAGIC:
        raise NotAStoreError(f"{file} is no backup of headrace")
    length = source.readline(20).strip()
    if not length.isdigit():
        raise CorruptedError("the manifest is damaged", file=str(file))
    try:
        manifest = msgspec.json.decode(source.read(int(length)), type=Manifest)
    except msgspec.DecodeError as error:
        raise CorruptedError(f"the manifest is damaged: {error}", file=str(file)) from error
    if manifest.format != FORMAT:
        raise StoreVersionError(manifest.format, FORMAT, str(file))
    digest = hashlib.sha256()
    for name, size in zip(NAMES, manifest.sizes, strict=True):
        descriptor = os.open(aside / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as target:
            os.fchmod(target.fileno(), 0o600)
            left = size
            while left and (chunk := source.read(min(CHUNK, left))):
                digest.update(chunk)
                target.write(chunk)
                left -= len(chunk)
            os.fsync(target.fileno())
    if digest.hexdigest() != manifest.report.sha256 or source.read(1):
        raise CorruptedError("the contents are not what the manifest says", file=str(file))
    return manifest.report


def _renew(aside: Path) -> None:
    """A restored store is another store: it gets an id of its own, and works with a log again.

    Its deadlines count as those of another boot: it may have come from another machine.
    """
    for name in NAMES:
        with closing(apsw.Connection(str(aside / name))) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            if name == STREAMS_FILE:
                connection.execute("UPDATE meta SET value = ? WHERE key = 'uuid'", (uuid.uuid4().hex,))
            else:
                connection.execute("UPDATE moment SET boot = 'restored'")
