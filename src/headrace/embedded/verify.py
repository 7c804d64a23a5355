"""Verification: every record of a store is looked at; nothing is changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import msgspec

from headrace.core.errors import StoreError
from headrace.embedded.advisories import Problem
from headrace.embedded.errors import CorruptedError, translated
from headrace.embedded.options import EmbeddedOptions
from headrace.embedded.store.connections import Connections
from headrace.embedded.store.work import off_the_loop
from headrace.embedded.streams.catalog import StreamRecord, streams_all, subject_name
from headrace.embedded.streams.checksum import checksum

__all__ = ["VerifyReport", "examine", "examine_directory", "verify"]


class VerifyReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. ``ok``: no problem."""

    ok: bool
    messages: int
    problems: tuple[Problem, ...] = ()


async def verify(path: str | os.PathLike[str]) -> VerifyReport:
    """Look at every record of the store in this directory; it need not be open."""
    return await off_the_loop(lambda: examine_directory(Path(path)), os.fspath(path))


def examine_directory(path: Path) -> VerifyReport:
    """`examine` the store at `path` through a connection of its own."""
    connections = Connections(path, EmbeddedOptions(read_only=True))
    with closing(connections.open()) as opened:
        assert opened.reader is not None  # noqa: S101  (read-only engines have a reader)
        return examine(opened.reader)


def examine(connection: apsw.Connection) -> VerifyReport:
    """Check the pages of both files, and the checksum and counters of every message."""
    problems: list[Problem] = []
    messages = 0
    try:
        for (line,) in connection.execute("PRAGMA integrity_check(20)"):
            if line != "ok":
                problems.append(Problem(file="streams.db or consumers.db", what=str(line)))
        for record in streams_all(connection):
            count = 0
            for problem in _examine_stream(connection, record):
                if problem is None:
                    count += 1
                else:
                    problems.append(problem)
            messages += count
            row = connection.execute("SELECT msgs FROM stream WHERE id = ?", (record.id,)).fetchone()
            if row is not None and row[0] != count:
                what = f"{count} messages, counted as {row[0]}"
                problems.append(Problem(stream=record.name, file="streams.db", what=what))
    except apsw.Error as error:
        problems.append(Problem(file="streams.db", what=str(translated(error))))
    return VerifyReport(ok=not problems, messages=messages, problems=tuple(problems))


def _examine_stream(connection: apsw.Connection, record: StreamRecord) -> Iterator[Problem | None]:
    rows = connection.execute(f"SELECT seq, ts, subject, headers, data, crc FROM msg_{record.id} ORDER BY seq")
    for seq, ts, subject, headers, data, crc in rows:
        try:
            sound = checksum(seq, ts, subject_name(connection, subject), headers, data) == crc
        except (TypeError, apsw.CorruptError, CorruptedError, StoreError):
            sound = False
        if not sound:
            yield Problem(stream=record.name, sequence=seq, file="streams.db", what="the checksum does not match")
        yield None
