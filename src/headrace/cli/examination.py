"""What `doctor` finds in a store: each file by itself, then every message; and what can be done about it."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from headrace.cli.exits import StoppedError, message_of_error
from headrace.cli.opening import run
from headrace.cli.output import console, counted
from headrace.core.errors import HeadraceError

__all__ = ["FILES", "Finding", "Verdict", "examine_store"]

FILES = {"streams.db": "the messages", "consumers.db": "the positions of all consumers"}
"""The files of a store, and what is in them."""

_SHOWN = 10
_MAGIC = b"SQLite format 3\0"
_RESTORE = "restore the last backup into a new directory: headrace stream restore FILE --url NEW"


class Verdict(Enum):
    """What a check found."""

    GOOD = "ok"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True)
class Finding:
    """One check."""

    check: str
    verdict: Verdict
    text: str


def examine_store(path: Path, *, verify: bool) -> Iterator[Finding]:
    """Look at the files of the store at `path`; with `verify` at every page and message too. Changes nothing."""
    broken = False
    for name, holds in FILES.items():
        wrong = _wrong_with(path / name)
        broken = broken or wrong is not None
        if wrong is None:
            yield Finding(name, Verdict.GOOD, f"{(path / name).stat().st_size:,} bytes: {holds}")
        else:
            yield Finding(name, Verdict.BAD, f"{wrong}: {holds} cannot be read from it")
    if broken:
        yield Finding("advice", Verdict.BAD, f"keep the directory as it is, and {_RESTORE}")
    elif verify:
        yield from _verified(path)


def _wrong_with(file: Path) -> str | None:
    """What can be said of a file without the other one; ``None``: it looks like what it should be."""
    try:
        status = file.lstat()
        if not stat.S_ISREG(status.st_mode):
            return "no regular file"
        if status.st_size == 0:
            return "empty"
        with file.open("rb") as opened:
            if opened.read(len(_MAGIC)) != _MAGIC:
                return "its first bytes are not those of a database"
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return str(error.strerror)
    return _wrong_with_database(file)


def _wrong_with_database(file: Path) -> str | None:
    import apsw

    try:
        connection = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        finally:
            connection.close()
    except apsw.Error as error:
        return str(error)
    return None


def _verified(path: Path) -> Iterator[Finding]:
    from headrace.embedded import verify

    try:
        with console(err=True).status("verifying"):
            report = run(verify(path))
    except StoppedError:
        raise
    except (HeadraceError, OSError) as error:
        yield Finding("store", Verdict.BAD, message_of_error(error))
        return
    if report.ok:
        yield Finding("store", Verdict.GOOD, f"{counted(report.messages, 'message')}, all intact")
        return
    problems: list[Any] = list(report.problems)
    for problem in problems[:_SHOWN]:
        said = " ".join(problem.what.split()).removeprefix(f"{problem.file}: ")
        yield Finding("store", Verdict.BAD, f"{_place(problem)}: {said}")
    if len(problems) > _SHOWN:
        yield Finding("store", Verdict.BAD, f"and {len(problems) - _SHOWN:,} more")
    yield Finding("advice", Verdict.BAD, _advice(problems))


def _place(problem: Any) -> str:
    if problem.stream is None:
        return str(problem.file)
    return problem.stream if problem.sequence is None else f"{problem.stream}@{problem.sequence}"


def _advice(problems: list[Any]) -> str:
    if any(problem.sequence is None for problem in problems):
        return f"pages are damaged; {_RESTORE}"
    streams = ", ".join(sorted({problem.stream for problem in problems}))
    return (
        f"whoever reads {streams} stops at the damaged message, nothing is skipped; other streams go on. Either "
        f"{_RESTORE}; or give that message up with Stream.delete_msg(SEQUENCE)"
    )
