"""Checks and normal forms for the config dataclasses; each raises ``ConfigError`` naming field and value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from headrace.core.duration import Duration, seconds_of
from headrace.core.errors import ConfigError

__all__ = [
    "check_count",
    "check_flags",
    "check_kind",
    "check_text",
    "check_time",
    "set_duration",
    "set_mapping",
    "set_texts",
    "timedelta_of",
]


def check_count(config: object, *fields: str, least: int = 1, most: int | None = None) -> None:
    """Each field is ``None`` or an integer in least..most."""
    for field in fields:
        value = getattr(config, field)
        if value is None:
            continue
        if (
            isinstance(value, bool)
            or not isinstance(value, int)
            or value < least
            or (most is not None and value > most)
        ):
            bound = f">= {least}" if most is None else f"{least}..{most}"
            raise ConfigError(f"{field} must be an integer {bound}, got {value!r}")


def check_flags(config: object, *fields: str) -> None:
    """Each field is a bool."""
    for field in fields:
        if not isinstance(getattr(config, field), bool):
            raise ConfigError(f"{field} must be True or False, got {getattr(config, field)!r}")


def check_kind(config: object, field: str, kind: type[Any] | tuple[type[Any], ...]) -> None:
    """The field is ``None`` or of this class; of an enum its wire word is taken too."""
    value = getattr(config, field)
    if value is None or isinstance(value, kind):
        return
    if isinstance(kind, type) and issubclass(kind, Enum) and isinstance(value, str):
        for member in kind:
            if member.value == value:
                object.__setattr__(config, field, member)
                return
    wanted = kind.__name__ if isinstance(kind, type) else " or ".join(each.__name__ for each in kind)
    raise ConfigError(f"{field} must be {wanted}, got {value!r}")


def check_text(config: object, *fields: str) -> None:
    """Each field is ``None`` or text."""
    for field in fields:
        value = getattr(config, field)
        if value is not None and not isinstance(value, str):
            raise ConfigError(f"{field} must be str, got {value!r}")


def check_time(config: object, field: str) -> None:
    """The field is ``None`` or an aware datetime."""
    value = getattr(config, field)
    if value is not None and (not isinstance(value, datetime) or value.tzinfo is None):
        raise ConfigError(f"{field} must be an aware datetime, got {value!r}")


def timedelta_of(value: Duration, field: str, *, least: float = 0.0, most: float | None = None) -> timedelta:
    """The one form of a length of time; ``ConfigError`` for zero unless `least` is negative, and outside the bounds."""
    seconds = seconds_of(value, field, least=max(least, 0.0))
    if (least >= 0 and seconds == 0) or (most is not None and seconds > most):
        bound = f"{least:g}..{most:g} s" if most is not None else "> 0 s" if least == 0 else f">= {least:g} s"
        raise ConfigError(f"{field} must be {bound}, got {value!r}")
    return value if isinstance(value, timedelta) else timedelta(seconds=seconds)


def set_duration(config: object, *fields: str, least: float = 0.0, most: float | None = None) -> None:
    """Each field is ``None``, or a length of time that becomes a ``timedelta``."""
    for field in fields:
        value = getattr(config, field)
        if value is not None:
            object.__setattr__(config, field, timedelta_of(value, field, least=least, most=most))


def set_texts(config: object, *fields: str) -> None:
    """Each field is a sequence of texts that becomes a tuple; one text alone is refused, it would be taken apart."""
    for field in fields:
        value: object = getattr(config, field)
        if isinstance(value, str | bytes) or not isinstance(value, Sequence | set | frozenset):
            raise ConfigError(f"{field} must be a sequence of str, got {value!r}")
        texts: tuple[object, ...] = tuple(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        if not all(isinstance(text, str) for text in texts):
            raise ConfigError(f"{field} must be a sequence of str, got {value!r}")
        object.__setattr__(config, field, texts)


def set_mapping(config: object, field: str) -> None:
    """The field is ``None`` or a mapping of text to text, copied."""
    value: object = getattr(config, field)
    if value is None:
        return
    if not isinstance(value, Mapping):
        raise ConfigError(f"{field} must be a mapping of str to str, got {value!r}")
    copied: dict[object, object] = dict(value)  # pyright: ignore[reportUnknownArgumentType]
    if not all(isinstance(text, str) for pair in copied.items() for text in pair):
        raise ConfigError(f"{field} must be a mapping of str to str, got {value!r}")
    object.__setattr__(config, field, copied)
