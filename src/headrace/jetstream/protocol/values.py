"""Single JSON values of the server's API, read strictly: what is not as it must be is a `StreamError` that says where.

Lengths of time are nanoseconds on the wire, times RFC 3339 with up to nine fraction digits (kept to the microsecond).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, TypeVar, cast

import msgspec

from headrace.core.errors import ConfigError
from headrace.streams.errors import StreamError

__all__ = [
    "encoded",
    "flag",
    "length",
    "lengths",
    "mapping",
    "ns_of",
    "optional",
    "record",
    "records",
    "required",
    "section",
    "sections",
    "text",
    "text_of_time",
    "texts",
    "time",
    "whole",
    "wholes",
    "word",
]

T = TypeVar("T")
E = TypeVar("E", bound=Enum)
Read = Callable[[object, str], T]
"""Reads one value; the text says where it stands."""

_MICROSECOND = timedelta(microseconds=1)
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)\Z", re.ASCII)
_SHOWN = 60


def required(data: dict[str, Any], name: str, read: Read[T], where: str) -> T:
    """The value of this name; a missing one is an error."""
    value = data.get(name)
    if value is None:
        raise StreamError(f"{where}: {name} is missing")
    return read(value, f"{where}: {name}")


def optional(data: dict[str, Any], name: str, read: Read[T], default: T, where: str) -> T:
    """The value of this name, or `default` where there is none."""
    value = data.get(name)
    return default if value is None else read(value, f"{where}: {name}")


def section(data: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    """The object of this name, empty where there is none."""
    value = data.get(name)
    return {} if value is None else record(value, f"{where}: {name}")


def sections(data: dict[str, Any], name: str, where: str) -> list[dict[str, Any]]:
    """The list of objects of this name, empty where there is none."""
    value = data.get(name)
    return [] if value is None else records(value, f"{where}: {name}")


def text(value: object, where: str) -> str:
    """Text."""
    if not isinstance(value, str):
        raise _wrong(value, "text", where)
    return value


def whole(value: object, where: str) -> int:
    """A whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(value, "a whole number", where)
    return value


def flag(value: object, where: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise _wrong(value, "true or false", where)
    return value


def texts(value: object, where: str) -> tuple[str, ...]:
    """A list of texts."""
    return tuple(text(each, where) for each in _list(value, where))


def wholes(value: object, where: str) -> tuple[int, ...]:
    """A list of whole numbers."""
    return tuple(whole(each, where) for each in _list(value, where))


def mapping(value: object, where: str) -> dict[str, str]:
    """An object of texts."""
    return {key: text(each, where) for key, each in record(value, where).items()}


def record(value: object, where: str) -> dict[str, Any]:
    """An object."""
    if not isinstance(value, dict):
        raise _wrong(value, "an object", where)
    return cast("dict[str, Any]", value)


def records(value: object, where: str) -> list[dict[str, Any]]:
    """A list of objects."""
    return [record(each, where) for each in _list(value, where)]


def length(value: object, where: str) -> timedelta:
    """A length of time."""
    try:
        return timedelta(microseconds=whole(value, where) // 1_000)
    except OverflowError:
        raise _wrong(value, "nanoseconds", where) from None


def lengths(value: object, where: str) -> tuple[timedelta, ...]:
    """A list of lengths of time."""
    return tuple(length(each, where) for each in _list(value, where))


def time(value: object, where: str) -> datetime | None:
    """A time in UTC; ``None`` for the year 1, which is how a server says that there is none."""
    given = text(value, where)
    if not _TIME.match(given):
        raise _wrong(value, "an RFC 3339 time", where)
    try:
        read = datetime.fromisoformat(given)
        return None if read.year == 1 else read.astimezone(UTC)
    except (ValueError, OverflowError):
        raise _wrong(value, "an RFC 3339 time", where) from None


def word(kind: type[E]) -> Read[E]:
    """Reads a member of this enum by its wire word."""

    def read(value: object, where: str) -> E:
        try:
            return kind(text(value, where))
        except ValueError:
            raise _wrong(value, f"one of {', '.join(str(each.value) for each in kind)}", where) from None

    return read


def encoded(where: str, body: dict[str, Any]) -> bytes:
    """A request as JSON; ``ConfigError`` for what JSON cannot say (``extra`` is the caller's)."""
    try:
        return msgspec.json.encode(body)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise ConfigError(f"{where}: the request is no JSON: {error}") from error


def ns_of(given: timedelta) -> int:
    """A length of time in nanoseconds."""
    return given // _MICROSECOND * 1_000


def text_of_time(given: datetime) -> str:
    """An aware datetime as RFC 3339 in UTC."""
    return given.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _list(value: object, where: str) -> list[object]:
    if not isinstance(value, list):
        raise _wrong(value, "a list", where)
    return cast("list[object]", value)


def _wrong(value: object, wanted: str, where: str) -> StreamError:
    shown = repr(value)
    return StreamError(f"{where} must be {wanted}, got {shown if len(shown) <= _SHOWN else shown[:_SHOWN] + '…'}")
