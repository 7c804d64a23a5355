"""What commands print: tables for people, JSON for machines. Text of strangers never reaches the terminal raw."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Protocol, cast

import msgspec
from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

__all__ = [
    "Counter",
    "builtins_of",
    "cell",
    "console",
    "counted",
    "counting",
    "print_document",
    "print_facts",
    "print_line",
    "print_table",
    "safe",
]

_UNBOUNDED = 100_000  # columns of an output that is no terminal: nothing is cut or wrapped


def console(*, err: bool = False) -> Console:
    """A console over stdout or stderr; where that is no terminal, as wide as it takes."""
    stream = sys.stderr if err else sys.stdout
    return Console(file=stream, highlight=False, markup=False, width=None if stream.isatty() else _UNBOUNDED)


def safe(text: str) -> str:
    """Text for a terminal: control and escape sequences, line ends and bidi tricks are shown, not done."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def cell(value: object) -> str:
    """A value as it stands in a table."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, timedelta):
        return _length(value)
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, list | tuple):
        return ", ".join(cell(item) for item in cast("Sequence[object]", value)) or "-"
    return safe(str(value))


def counted(number: int, noun: str) -> str:
    """``1 message``, ``2 messages``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _length(value: timedelta) -> str:
    """A length of time in the largest unit that it is whole in, as options take it."""
    for unit, name in ((timedelta(days=1), "d"), (timedelta(hours=1), "h"), (timedelta(minutes=1), "m")):
        if value and not value % unit:
            return f"{value // unit}{name}"
    return f"{value.total_seconds():g}s"


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """A table, numbers to the right; `empty` is said where it has no row."""
    held = [list(row) for row in rows]
    if not held:
        print(empty)
        return
    terminal = sys.stdout.isatty()
    table = Table(box=box.SIMPLE_HEAD if terminal else None, pad_edge=False, header_style="bold")
    for place, column in enumerate(columns):
        numbers = all(isinstance(row[place], int) for row in held)
        whole = numbers or any(isinstance(row[place], datetime) for row in held)  # text gives way, these never
        header = column.replace(" ", "\n") if whole and terminal else column
        table.add_column(header, justify="right" if numbers else "left", overflow="fold", no_wrap=whole)
    for row in held:
        table.add_row(*(Text(cell(value)) for value in row))
    console().print(table)


def print_facts(facts: Mapping[str, object]) -> None:
    """Names and values, a line each; what is ``None`` is left out."""
    shown = {name: value for name, value in facts.items() if value is not None}
    width = max((len(name) for name in shown), default=0)
    for name, value in shown.items():
        print(f"{name:<{width}}  {cell(value)}")


def print_document(value: object) -> None:
    """One JSON document."""
    print(_printable(msgspec.json.format(msgspec.json.encode(builtins_of(value)), indent=2).decode(), indent=2))


def print_line(value: object) -> None:
    """One JSON object on a line of its own, at once."""
    print(_printable(msgspec.json.encode(builtins_of(value)).decode()), flush=True)


def _printable(text: str, indent: int | None = None) -> str:
    """JSON as it is, or in ASCII where stdout cannot carry it: an escape of the stream's would not be JSON."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(json.loads(text), indent=indent)
    return text


def builtins_of(value: object) -> Any:
    """What JSON knows: lengths of time in seconds, times in ISO 8601, enums by their word, structs by their fields."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(name): builtins_of(item) for name, item in cast("Mapping[object, object]", value).items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [builtins_of(item) for item in cast("Iterable[object]", value)]
    if isinstance(value, msgspec.Struct):
        return {name: builtins_of(getattr(value, name)) for name in value.__struct_fields__}
    if is_dataclass(value):
        return {field.name: builtins_of(getattr(value, field.name)) for field in fields(value)}
    return value


class Counter(Protocol):
    """Told how far long work has come."""

    def __call__(self, amount: int, /) -> None:
        """So much more is done."""
        ...


@contextmanager
def counting(what: str, total: int | None, *, in_bytes: bool = False) -> Generator[Counter]:
    """A progress bar on stderr while the block runs, where that is a terminal; `total` ``None`` = unknown."""
    if not sys.stderr.isatty():
        yield _nothing
        return
    amount = DownloadColumn() if in_bytes else MofNCompleteColumn()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), amount, TimeRemainingColumn())
    with Progress(*columns, console=console(err=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda amount, /: progress.advance(task, amount)


def _nothing(_: int, /) -> None:
    """Nobody looks."""
