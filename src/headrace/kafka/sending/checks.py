"""Checks: what is sent, before anything is queued."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from headrace.core.errors import ClosedError, ConfigError, Fault, PublishError, UsageError
from headrace.core.headers import NO_HEADERS, Headers
from headrace.core.message import Message, check_message
from headrace.kafka.wire import encode

__all__ = ["Checks", "unusable"]

_YEAR_10000 = 253_402_300_800_000_000_000
"""Nanoseconds since 1970."""
_MOST_ID = 255
_SHORT_KEY = 1_000


class Checks:
    """For what is usual a check costs a fifth of a microsecond. ``known``: topics that there are, so good names."""

    __slots__ = ("_id_header", "_known", "_limit", "_small")

    def __init__(self, max_message_bytes: int, id_header: str, known: set[str]) -> None:
        self._limit = max_message_bytes
        self._id_header = id_header
        self._known = known
        self._small = max_message_bytes - len(id_header) - _MOST_ID - _SHORT_KEY
        """A body up to here cannot be too large, whatever stands beside it."""

    def one(self, message: Message) -> None:
        """``UsageError`` for no message, or a time that Kafka cannot keep; `check_message`'s; too large: REJECTED."""
        for error in self.many((message,)).values():
            raise error

    def many(self, messages: Sequence[Message]) -> dict[int, Exception]:
        """The places of those that cannot be sent, and why. One loop without a call per message."""
        refused: dict[int, Exception] = {}
        known, small = self._known, self._small
        for place, message in enumerate(messages):
            if (
                type(message) is Message
                and message.headers is NO_HEADERS
                and type(topic := message.topic) is str
                and topic in known
                and type(body := message.body) is bytes
                and len(body) <= small
                and ((key := message.key) is None or (type(key) is bytes and len(key) <= _SHORT_KEY))
                and type(message_id := message.id) is str
                and 0 < len(message_id) <= _MOST_ID
                and message_id.isascii()
                and message_id.isprintable()
                and type(message.time_ns) is int
                and 0 <= message.time_ns < _YEAR_10000
            ):
                continue
            try:
                self._check(message)
            except (UsageError, ConfigError, PublishError) as error:
                refused[place] = error
        return refused

    def _check(self, message: Message) -> None:
        if not isinstance(cast("object", message), Message):
            raise UsageError(f"a Message is needed, got {type(message).__name__}")
        try:
            self._measure(message)
        except UnicodeEncodeError:  # a name from a foreign wire, with half of a surrogate pair, has no size of its own
            self._measure(self._as_sent(message))

    def _measure(self, message: Message) -> None:
        if type(message.time_ns) is not int or not 0 <= message.time_ns < _YEAR_10000:
            raise UsageError(f"time_ns must be within 1970..9999, got {message.time_ns!r}")
        check_message(message)
        size = len(message.body) + len(self._id_header) + len(message.id.encode())
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

    def _as_sent(self, message: Message) -> Message:
        """With its headers as they stand in the record. ``UsageError`` for a value that is neither text nor bytes."""
        try:
            pairs = encode(message, self._id_header)[3]
        except UnicodeEncodeError as error:
            raise UsageError(f"a header cannot be sent: {error}") from error
        return message.replace(headers=Headers.trusted(pairs[1:]))


def unusable(message: object, error: Exception) -> PublishError:
    """The result of an item of many that is not sent: refused, or its sender was closed before."""
    if isinstance(error, PublishError):
        return error
    message_id = message.id if isinstance(message, Message) and isinstance(message.id, str) else None
    fault = Fault.UNAVAILABLE if isinstance(error, ClosedError) else Fault.REJECTED
    made = PublishError(f"{type(error).__name__}: {error}", message_id=message_id, fault=fault)
    made.__cause__ = error
    return made
