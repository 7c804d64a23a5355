"""What most commands take: --url, --json, --yes. And how lengths of time are written."""

from __future__ import annotations

import re
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlsplit

import typer

from headrace.core.errors import ConfigError, HeadraceError

__all__ = [
    "DEFAULT_URL",
    "Json",
    "Partition",
    "Url",
    "Yes",
    "confirm",
    "directory_of",
    "duration_of",
    "is_directory",
    "is_embedded",
    "is_kafka",
    "shown",
]

DEFAULT_URL = "./data"
MEMORY = ":memory:"
_FILE = "file://"

Url = Annotated[
    str,
    typer.Option("--url", envvar="HEADRACE_URL", help="Directory or URL of the broker.", metavar="URL"),
]
"""Where the streams are: ``--url``, else HEADRACE_URL, else ./data."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
"""Machine-readable: one JSON document, or one JSON object per line where messages are printed."""

Partition = Annotated[int | None, typer.Option("--partition", "-p", min=0, help="Of Kafka: only this partition.")]
"""Which partition of a topic; what is not Kafka has none."""

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
"""Go ahead without asking."""

_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)\Z")
_LONGEST = 100 * 365 * 86_400.0


def duration_of(text: str | None, option: str) -> timedelta | None:
    """``500ms``, ``10s``, ``5m``, ``2h``, ``7d`` or plain seconds. ``ConfigError`` naming `option` else."""
    if text is None:
        return None
    found = _DURATION.match(text.strip())
    seconds = float(found[1]) * _UNITS[found[2]] if found else -1.0
    if not 0 <= seconds <= _LONGEST:
        raise ConfigError(f"{option} must be a length of time such as 500ms, 10s, 5m, 2h or 7d, got {text!a}")
    return timedelta(seconds=seconds)


def is_directory(url: str) -> bool:
    """Whether this URL is a directory on this machine, as `connect` reads it."""
    return url != MEMORY and ("://" not in url or url.startswith(_FILE))


def is_embedded(url: str) -> bool:
    """Whether the embedded engine serves this URL."""
    return url == MEMORY or is_directory(url)


def is_kafka(url: str) -> bool:
    """Whether this URL is of Kafka."""
    return url.lower().startswith("kafka://")


def shown(url: str) -> str:
    """The URL as it may be printed: without what may be a secret, however it was quoted."""
    if is_embedded(url) or "@" not in url:
        return url
    return f"{url.partition('://')[0]}://…@{url.rpartition('@')[2]}"


def directory_of(url: str, command: str) -> Path:
    """The directory that `url` names; ``ConfigError`` where it names something else."""
    if not is_directory(url):
        raise ConfigError(f"{command} works on a directory, got --url {shown(url)!a}")
    return Path(unquote(urlsplit(url).path) if url.startswith(_FILE) else url)


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is destroyed. Without a terminal nobody can be asked: ``ConfigError``."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError(f"{question} Nobody can be asked here: say --yes")
    # asyncio only notes a signal for later, and nothing comes later while an answer is waited for
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if not typer.confirm(question, err=True):
            raise HeadraceError("not done")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
