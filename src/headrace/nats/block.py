"""Header blocks: ``NATS/1.0[ <code>[ <description>]]``, lines ``Name: value``, a blank line, CRLF after each (ADR-4).

Blocks stay bytes as long as nobody asks; the functions here cut them up and build them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from headrace.core.errors import ConfigError

__all__ = ["VERSION_LINE", "build", "fields_of", "lines_of", "status_of"]

VERSION_LINE = b"NATS/1.0\r\n"
_VERSION = len(b"NATS/1.0")
_NAME = re.compile(r"[!-9;-~]+\Z")
_NOT_IN_VALUE = re.compile("[\x00\r\n\ud800-\udfff]")


def status_of(header: bytes) -> tuple[int, str] | None:
    """Code and description ("" if none) of a status line; ``None`` for an ordinary message.

    Whether the body is empty, as it must be for a status, is for the caller to look at.
    """
    if header[_VERSION : _VERSION + 1] != b" ":
        return None
    line, _, _ = header.partition(b"\r\n")
    code, _, description = line[_VERSION:].strip().partition(b" ")
    if not code.isdigit() or len(code) > 3:
        return None
    return int(code), description.strip().decode("utf-8", "replace")


def lines_of(header: bytes) -> bytes:
    r"""The ``Name: value\r\n`` lines, without version line and closing blank line."""
    if header.startswith(VERSION_LINE):
        return header[len(VERSION_LINE) : -2]
    _, _, lines = header.partition(b"\r\n")
    return lines.removesuffix(b"\r\n")


def fields_of(header: bytes) -> dict[str, list[str]]:
    """Name (its case kept) -> values in their order; blanks around a value are no data. No line of text is refused."""
    fields: dict[str, list[str]] = {}
    for line in lines_of(header).split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if colon:
            values = fields.setdefault(name.decode("utf-8", "surrogateescape"), [])
            values.append(value.strip(b" \t").decode("utf-8", "surrogateescape"))
    return fields


def build(fields: Iterable[tuple[str, str]]) -> bytes:
    r"""The lines of these fields, as ``publish(headers=…)`` takes them. ``ConfigError``: what would break the block.

    A name is printable ASCII without blank and colon, a value has no CR, LF or NUL.
    """
    return b"".join(b"%b: %b\r\n" % _checked(name, value) for name, value in fields)


def _checked(name: str, value: str) -> tuple[bytes, bytes]:
    if not isinstance(name, str) or not _NAME.match(name):
        raise ConfigError(f"header name must be printable ASCII without blank and colon, got {name!a}")
    if not isinstance(value, str) or _NOT_IN_VALUE.search(value):
        raise ConfigError(f"header {name}: value must be text without CR, LF and NUL, got {value!a}")
    return name.encode(), value.encode()
