"""Checks: what is sent, before anything is queued."""

from __future__ import annotations

from typing import cast

from headrace.core.errors import Fault, PublishError, UsageError
from headrace.core.headers import NO_HEADERS
from headrace.core.message import Message, check_message

__all__ = ["Checks", "unusable"]

_YEAR_10000 = 253_402_300_800_000_000_000
"""Nanoseconds since 1970."""


class Checks:
    """`check` is called for each message: what is usual costs next to nothing."""

    __slots__ = ("_id_header", "_limit")

    def __init__(self, max_message_bytes: int, id_header: str) -> None:
        self._limit = max_message_bytes
        self._id_header = len(id_header)

    def check(self, message: Message) -> None:
        """``UsageError`` for no message, or a time that Kafka cannot keep; `check_message`'s; too large: REJECTED."""
        if not isinstance(cast("object", message), Message):
            raise UsageError(f"a Message is needed, got {type(message).__name__}")
        check_message(message)
        if type(message.time_ns) is not int or not 0 <= message.time_ns < _YEAR_10000:
            raise UsageError(f"time_ns must be within 1970..9999, got {message.time_ns!r}")
        size = len(message.body) + self._id_header + len(message.id)
        if message.key is not None:
            size += len(message.key)
        if message.headers is not NO_HEADERS:
            size += message.headers.size
        if size > self._limit:
            raise PublishError(
                f"{size} bytes with key and headers, at most {self._limit} (max_message_bytes)",
                message_id=message.id,
                limit=self._limit,
                fault=Fault.REJECTED,
            )


def unusable(message: object, error: Exception) -> PublishError:
    """The result of an item of many that is not sent."""
    if isinstance(error, PublishError):
        return error
    message_id = message.id if isinstance(message, Message) and isinstance(message.id, str) else None
    made = PublishError(f"{type(error).__name__}: {error}", message_id=message_id, fault=Fault.REJECTED)
    made.__cause__ = error
    return made
