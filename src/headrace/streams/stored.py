"""Stored messages, read without a consumer: what may be asked for, and what is said and counted, on both engines."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from headrace.core.errors import ConfigError
from headrace.streams.errors import error_for
from headrace.streams.msg import RawStreamMsg
from headrace.streams.subjects import validate_filter

__all__ = ["LAST", "check_newest", "check_page", "checked_sequence", "not_found", "size_of"]

LAST = 1 << 60
"""No sequence is above it."""
_MOST = 10_000
_HEADER_FRAME = len(b"NATS/1.0\r\n\r\n")


def checked_sequence(value: int) -> int:
    """A sequence to look for, at most `LAST`. ``ConfigError`` if it is none."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigError(f"sequence must be an integer >= 0, got {value!r}")
    return min(value, LAST)


def check_page(start: Any, offset: int, limit: int) -> None:
    """What `Stream.read` takes: a sequence or an aware time, what to skip, and at most 10,000 messages."""
    if isinstance(start, bool) or not isinstance(start, int | datetime) or (isinstance(start, int) and start < 0):
        raise ConfigError(f"start must be a sequence >= 0 or an aware datetime, got {start!r}")
    if isinstance(start, datetime) and start.tzinfo is None:
        raise ConfigError(f"start must be an aware datetime, got {start!r}")
    for name, value, least, most in (("offset", offset, 0, 1 << 62), ("limit", limit, 1, _MOST)):
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ConfigError(f"{name} must be an integer in {least}..{most}, got {value!r}")


def check_newest(subjects: Sequence[str], up_to_sequence: int | None, batch: int | None) -> None:
    """What `Stream.get_last_for` takes."""
    if isinstance(subjects, str) or not subjects:
        raise ConfigError(f"subjects must be a sequence of at least one, got {subjects!r}")
    for subject in subjects:
        validate_filter(subject)
    for name, value in (("up_to_sequence", up_to_sequence), ("batch", batch)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ConfigError(f"{name} must be an integer >= 1, got {value!r}")


def not_found() -> Exception:
    """The error where no message is what was asked for."""
    return error_for(404, 10037, "no message found")


def size_of(message: RawStreamMsg) -> int:
    """What a server counts of a message that it sends: subject, headers, body."""
    block = message.headers.to_block()
    return len(message.subject.encode()) + (len(block) + _HEADER_FRAME if block else 0) + len(message.data)
