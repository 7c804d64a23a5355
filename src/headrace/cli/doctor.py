"""`headrace doctor`: is this machine, and this store, in order?"""

from __future__ import annotations

import os
import platform
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from headrace.cli import records
from headrace.cli.examination import FILES, Finding, Verdict, examine_store
from headrace.cli.exits import ExitCode
from headrace.cli.opening import open_broker, run, streams_of
from headrace.cli.options import DEFAULT_URL, Json, Url, directory_of, is_directory, shown
from headrace.cli.output import counted, print_document, safe

__all__ = ["doctor"]

_LEAST_SQLITE = (3, 53)
_LEAST_FREE = 256 << 20
_SLOW_SYNCS = 50.0
_SYNC_SECONDS = 0.5
_RECORD = b"x" * 128
_NETWORK = {"nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "afs", "ceph", "glusterfs", "fuse.glusterfs", "fuse.sshfs"}
_UNSURE = ("fuse", "9p", "virtiofs")


def doctor(
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Read and check every message.")] = True,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Check the machine and the store: versions, directory, file system, sync rate, every stored message."""
    findings = list(_machine())
    if is_directory(url):
        path = directory_of(url, "doctor")
        findings += _directory(path)
        if _is_store(path):
            findings += examine_store(path, verify=verify)
    else:
        findings.append(_connection(url))
    healthy = all(finding.verdict is not Verdict.BAD for finding in findings)
    if json:
        print_document({"url": shown(url), "healthy": healthy, "checks": findings})
    else:
        for finding in findings:
            print(f"{finding.verdict.value:<8} {finding.check:<12} {safe(finding.text)}")
    if not healthy:
        raise typer.Exit(ExitCode.FAILED)


def _machine() -> Iterator[Finding]:
    system = f"Python {platform.python_version()} on {platform.system()} {platform.release()} {platform.machine()}"
    yield Finding("machine", Verdict.GOOD if sys.platform in {"linux", "darwin"} else Verdict.BAD, system)
    try:
        import apsw
    except ImportError as error:
        yield Finding("sqlite", Verdict.BAD, f"apsw cannot be imported: {error}")
        return
    version = apsw.sqlite_lib_version()
    new_enough = tuple(int(part) for part in version.split(".")[:2]) >= _LEAST_SQLITE
    text = f"SQLite {version} in apsw {apsw.apsw_version()}"
    needed = "" if new_enough else f"; {_LEAST_SQLITE[0]}.{_LEAST_SQLITE[1]} or newer is needed"
    yield Finding("sqlite", Verdict.GOOD if new_enough else Verdict.BAD, text + needed)


def _directory(path: Path) -> Iterator[Finding]:
    there = path
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        yield Finding("directory", Verdict.BAD, f"{there} is no directory")
        return
    yield _access(path, there)
    yield _file_system(there)
    free = shutil.disk_usage(there).free
    yield Finding("space", Verdict.GOOD if free >= _LEAST_FREE else Verdict.WARNING, f"{free >> 20:,} MiB free")
    yield _sync_rate(there)


def _access(path: Path, there: Path) -> Finding:
    if there != path:
        text = f"{path} is not there yet; the first publish makes it"
        return Finding("directory", Verdict.GOOD if os.access(there, os.W_OK) else Verdict.BAD, text)
    status = path.stat()
    facts = f"{path.resolve()}, mode {stat.S_IMODE(status.st_mode):04o}, owner {status.st_uid}"
    if status.st_uid != os.geteuid():
        return Finding("directory", Verdict.BAD, f"{facts}: owned by somebody else")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return Finding("directory", Verdict.BAD, f"{facts}: others may write to it")
    if any(path.iterdir()) and not _is_store(path):
        return Finding("directory", Verdict.BAD, f"{facts}: not empty, and no store")
    text = facts if _is_store(path) else f"{facts}: empty; the first publish makes the store"
    return Finding("directory", Verdict.GOOD if os.access(path, os.W_OK) else Verdict.BAD, text)


def _is_store(path: Path) -> bool:
    return any((path / name).exists() for name in FILES)


def _file_system(path: Path) -> Finding:
    kind = _kind_of_file_system(path.resolve())
    if kind is None:
        return Finding("file system", Verdict.GOOD, "kind unknown on this machine")
    if kind in _NETWORK:
        return Finding("file system", Verdict.BAD, f"{kind}: a network file system cannot hold a store")
    if kind.startswith(_UNSURE):
        return Finding("file system", Verdict.WARNING, f"{kind}: locks and syncs are only as good as what is behind it")
    return Finding("file system", Verdict.GOOD, kind)


def _kind_of_file_system(path: Path) -> str | None:
    """The type of the mount that holds `path`: the longest mount point above it; ``None`` without /proc/mounts."""
    try:
        lines = Path("/proc/mounts").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    best, kind = "", None
    for line in lines:
        _, mount, found, *_ = line.split(" ")
        point = mount.replace("\\040", " ")
        if path.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, found
    return kind


def _sync_rate(path: Path) -> Finding:
    """Append 128 bytes and sync, over and over, in a file that has no name and goes with its descriptor."""
    sync = getattr(os, "fdatasync", os.fsync)
    try:
        with tempfile.TemporaryFile(dir=path, prefix=".headrace-doctor-") as file:
            syncs, start = 0, time.perf_counter()
            while (took := time.perf_counter() - start) < _SYNC_SECONDS:
                os.write(file.fileno(), _RECORD)
                sync(file.fileno())
                syncs += 1
    except OSError as error:
        return Finding("sync", Verdict.BAD, f"cannot write here: {error}")
    rate = syncs / took
    text = f"{rate:,.0f} a second, {took / syncs * 1e3:.2f} ms each"
    if rate < _SLOW_SYNCS:
        return Finding("sync", Verdict.WARNING, f"{text}: slow; publish in batches or from many tasks")
    return Finding("sync", Verdict.GOOD, text)


def _connection(url: str) -> Finding:
    async def look() -> str:
        async with open_broker(url, look_only=True) as broker:
            if (kafka := records.kafka_of(broker)) is not None:
                found = await kafka.topics.metadata()
                return f"Kafka answers; {counted(len(found.brokers), 'broker')}, {counted(len(found.topics), 'topic')}"
            streams = streams_of(broker)
            account = await streams.account_info()
            text = f"answers; {account.streams} streams, {account.consumers} consumers"
            if (connection := getattr(streams, "connection", None)) is None:
                return text
            return f"nats-server {connection.server_info.version} {text}"

    return Finding("broker", Verdict.GOOD, run(look()))
