"""Lengths of time as users write them: a timedelta, or seconds as a number. Wire units stay in the engines."""

from __future__ import annotations

import math
from datetime import timedelta

from headrace.core.errors import ConfigError

__all__ = ["Duration", "seconds_of", "seconds_or_none"]

Duration = timedelta | float
"""A length of time: ``timedelta`` or seconds."""

_LONGEST = timedelta.max.total_seconds()


def seconds_of(value: Duration, field: str, *, least: float = 0.0, most: float = _LONGEST) -> float:
    """Seconds that `value` stands for. ``ConfigError`` naming `field`: no length of time, or outside least..most."""
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{field} must be a timedelta or seconds, got {value!r}")
    else:
        seconds = float(value)
    if not math.isfinite(seconds) or not least <= seconds <= most:
        bound = f"{least:g}..{most:g} s" if most < _LONGEST else f">= {least:g} s"
        raise ConfigError(f"{field} must be {bound}, got {value!r}")
    return seconds


def seconds_or_none(value: Duration | None, field: str, *, least: float = 0.0, most: float = _LONGEST) -> float | None:
    """Like `seconds_of`, but ``None`` (= default) stays ``None``."""
    return None if value is None else seconds_of(value, field, least=least, most=most)
