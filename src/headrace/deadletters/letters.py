"""What the room of dead letters shows: one letter, a group of them by error, and the report of a redrive."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from headrace.core.delivery import Position
from headrace.core.message import Message
from headrace.flow import letter as record

__all__ = ["ErrorGroup", "Letter", "RedriveReport", "letter_from"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter. ``message`` is the letter as stored, ``position`` where it stands in the dead-letter topic.

    The rest is its record: ``id`` (first original), ``source`` (topic; ``None`` = there is no record), ``group``,
    ``attempts``, ``error`` (class), ``reason``, ``time`` (of the original), ``first`` and ``last`` death, ``passes``.
    """

    message: Message
    id: str
    source: str | None
    position: Position | None
    group: str | None
    attempts: int
    error: str
    reason: str
    time: datetime | None
    first: datetime | None
    last: datetime | None
    passes: int

    def restore(self) -> Message:
        """The original message, to be published again. ``UsageError`` where there is no record."""
        return record.restore(self.message)


@dataclass(frozen=True, slots=True)
class ErrorGroup:
    """Letters with the same error and reason: how many, from when to when, and the newest of them."""

    error: str
    reason: str
    count: int
    first: datetime | None
    last: datetime | None
    example: Letter


@dataclass(frozen=True, slots=True)
class RedriveReport:
    """``moved``: published again and removed; ``skipped``: not wanted; ``failed``: refused for good, or no record."""

    moved: int = 0
    skipped: int = 0
    failed: int = 0


def letter_from(message: Message, position: Position | None) -> Letter:
    """Read the record. A stranger's message gives a letter without a source."""
    headers = message.headers
    return Letter(
        message=message,
        id=headers.get(record.ID) or message.id,
        source=headers.get(record.SOURCE),
        position=position,
        group=headers.get(record.GROUP),
        attempts=_number(headers.get(record.ATTEMPTS)),
        error=headers.get(record.ERROR) or "",
        reason=headers.get(record.REASON) or "",
        time=_time(headers.get(record.TIME)),
        first=_time(headers.get(record.FIRST)),
        last=_time(headers.get(record.LAST)),
        passes=_number(headers.get(record.PASS)),
    )


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 10 else 0


def _time(text: str | None) -> datetime | None:
    nanoseconds = record.ns_of_rfc3339(text or "")
    return None if nanoseconds is None else _EPOCH + timedelta(microseconds=nanoseconds // 1_000)
