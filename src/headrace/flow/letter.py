"""The dead letter: its record in headers, its id, and the way back. Every name of the record stands here."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable
from datetime import UTC, datetime, timedelta

from headrace.core.delivery import Delivery, Position
from headrace.core.errors import UsageError
from headrace.core.headers import Headers
from headrace.core.message import Message

__all__ = [
    "ATTEMPTS",
    "ERROR",
    "FIRST",
    "GROUP",
    "ID",
    "KAFKA",
    "LAST",
    "ORDER_KEY",
    "PASS",
    "POSITION",
    "PREFIX",
    "REASON",
    "SOURCE",
    "TIME",
    "error_name",
    "letter_id",
    "letter_of",
    "ns_of_rfc3339",
    "one_line",
    "position_of_text",
    "restore",
    "rfc3339_of_ns",
]

PREFIX = "Headrace-Dead-"
ID = PREFIX + "Id"
"""The first original id."""
SOURCE = PREFIX + "Source"
POSITION = PREFIX + "Position"
GROUP = PREFIX + "Group"
TIME = PREFIX + "Time"
ATTEMPTS = PREFIX + "Attempts"
ERROR = PREFIX + "Error"
REASON = PREFIX + "Reason"
FIRST = PREFIX + "First"
"""When it died for the first time; kept over passes."""
LAST = PREFIX + "Last"
PASS = PREFIX + "Pass"
ORDER_KEY = PREFIX + "Order-Key"

_RECORD = (ID, SOURCE, POSITION, GROUP, TIME, ATTEMPTS, ERROR, REASON, FIRST, LAST, PASS, ORDER_KEY)
_KEPT = {name.lower() for name in (ID, FIRST, PASS)}
KAFKA = (
    "x-source-topic",
    "x-source-partition",
    "x-source-offset",
    "x-source-timestamp",
    "x-logical-key",
    "x-attempt",
    "x-error",
    "x-failed-at",
)
"""What a letter on Kafka carries besides (the kafka room writes them)."""
_OURS = {name.lower() for name in (*_RECORD, *KAFKA)}

_MAX_ID = 255
_MAX_REASON = 1_024
_NOT_PLAIN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z\Z")


def letter_of(delivery: Delivery, error: BaseException, *, topic: str, now_ns: int) -> Message:
    """The dead letter of `delivery` for `topic`: same body, key and headers, and the record, each name once.

    ``Id`` and ``First`` are kept from an earlier pass, ``Pass`` counts on.
    """
    message = delivery.message
    old = message.headers
    now = rfc3339_of_ns(now_ns)
    record = {
        ID: old.get(ID) or message.id,
        SOURCE: message.topic,
        POSITION: str(delivery.position) if delivery.position is not None else None,
        GROUP: delivery.group,
        TIME: rfc3339_of_ns(message.time_ns),
        ATTEMPTS: str(delivery.attempt),
        ERROR: error_name(error),
        REASON: one_line(str(error)) or None,
        FIRST: old.get(FIRST) or now,
        LAST: now,
        PASS: str(_pass_of(old) + 1),
        ORDER_KEY: _key_text(delivery.order_key) if delivery.order_key != message.key else None,
    }
    kept = [(name, value) for name, value in old.items() if name.lower() not in _OURS]
    # Not checked again: what came from a foreign wire is data and must be able to die like any other message.
    headers = Headers.trusted([*kept, *((name, one_line(value, most=None)) for name, value in record.items() if value)])
    return message.replace(
        topic=topic, headers=headers, id=letter_id(message.topic, message.id, delivery.group), time_ns=now_ns
    )


def letter_id(topic: str, message_id: str, group: str | None) -> str:
    """An id of its own: with the original one a deduplicating broker would swallow the letter."""
    return _short_id(f"{topic}.{message_id}.{group or '-'}.dead")


def restore(letter: Message) -> Message:
    """The original message of a dead letter: its topic, body, key, headers and time, under the id ``<Id>.r<Pass>``.

    ``Id``, ``First`` and ``Pass`` stay, so that a second death counts on. ``UsageError`` if it is no dead letter.
    """
    headers = letter.headers
    source, original = headers.get(SOURCE), headers.get(ID)
    if source is None or original is None:
        raise UsageError(f"{letter.topic} {letter.id} has no dead-letter record")
    kept = [(name, value) for name, value in headers.items() if name.lower() not in _OURS or name.lower() in _KEPT]
    time_ns = ns_of_rfc3339(headers.get(TIME) or "")
    return letter.replace(
        topic=source,
        headers=Headers.trusted(kept),
        id=_short_id(f"{original}.r{_pass_of(headers)}"),
        time_ns=letter.time_ns if time_ns is None else time_ns,
    )


def _short_id(text: str) -> str:
    raw = text.encode("utf-8", "surrogatepass")
    return text if len(raw) <= _MAX_ID else hashlib.sha256(raw).hexdigest()


def error_name(error: BaseException) -> str:
    """``module.Class``, without ``builtins``."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def one_line(text: str, *, most: int | None = _MAX_REASON) -> str:
    """Text of a stranger for a header or a log line: controls escaped, at most `most` characters (1,024)."""
    return _NOT_PLAIN.sub(lambda found: ascii(found[0])[1:-1], text[:most])[:most].strip(" \t")


def rfc3339_of_ns(nanoseconds: int) -> str:
    """A time in UTC with nine digits, so that nothing of it is lost."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{(_EPOCH + timedelta(seconds=seconds)).strftime('%Y-%m-%dT%H:%M:%S')}.{rest:09d}Z"


def ns_of_rfc3339(text: str) -> int | None:
    """The time that `rfc3339_of_ns` wrote; ``None`` for anything else."""
    found = _TIME.match(text)
    if found is None:
        return None
    try:
        whole = datetime.fromisoformat(found[1]).replace(tzinfo=UTC) - _EPOCH
    except ValueError:
        return None
    return (whole.days * 86_400 + whole.seconds) * 1_000_000_000 + int((found[2] or "0").ljust(9, "0"))


def position_of_text(text: str | None) -> Position | None:
    """The position that ``str(position)`` wrote."""
    source, at, value = (text or "").rpartition("@")
    return Position(source, int(value)) if at and value.isascii() and value.isdigit() else None


def _pass_of(headers: Headers) -> int:
    text = headers.get(PASS) or "0"
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _key_text(key: Hashable | None) -> str:
    return key.decode("utf-8", "backslashreplace") if isinstance(key, bytes) else str(key)
