"""Between a `Message` and a record of Kafka. Key, value and headers go over as they are; only the id needs a header."""

from __future__ import annotations

import logging
from operator import methodcaller
from typing import ClassVar, Protocol

from headrace.core.errors import UsageError
from headrace.core.headers import NO_HEADERS, Headers, Value, value_of_bytes
from headrace.core.message import Message
from headrace.flow import letter

__all__ = ["UNREADABLE", "Encoded", "Record", "RecordHeaders", "Tombstone", "decode", "encode"]

UNREADABLE = "Headrace-Kafka-Unreadable"
"""The one header of a record whose headers the driver cannot read; its value is the record's position."""

Encoded = tuple[str, bytes | None, bytes | None, list[tuple[str, bytes]], int]
"""topic, value, key, headers, milliseconds since 1970: what the driver's ``produce`` takes."""

_log = logging.getLogger("headrace.kafka")
_headers_of = methodcaller("headers")
"""From C: where it cannot read a name, the driver returns a broken list and an error at once. The interpreter stops
looking for the error where it has seen the call often, and whoever touches the list dies of it."""
_MAX_ID = 255
_LAST_MS = 253_402_300_799_999
"""The last millisecond of the year 9999: what a datetime can hold."""


class Tombstone(Message, frozen=True, kw_only=True, gc=False):
    """A record with a null value: on a compacted topic its key is deleted. ``body`` is ``b""``, whatever is given."""

    has_body: ClassVar[bool] = False
    body: bytes = b""


Pairs = list[tuple[str, bytes | None]]
"""Headers as the driver hands them out."""


class RecordHeaders(Headers):
    """The headers of a record, at least one: their bytes become text on first access, most are never looked at.

    A null value reads as an empty one.
    """

    __slots__ = ("_raw",)
    _raw: Pairs

    def __init__(self, raw: Pairs) -> None:
        self._raw = raw
        self._pairs = None

    def items(self) -> tuple[tuple[str, Value], ...]:
        """All pairs in order."""
        if self._pairs is None:
            self._pairs = tuple([(name, value_of_bytes(raw) if raw else "") for name, raw in self._raw])
        return self._pairs

    @property
    def size(self) -> int:
        """Bytes in names and values."""
        size = 0
        for name, raw in self._raw:
            size += len(name) if name.isascii() else len(name.encode())
            if raw:
                size += len(raw)
        return size

    def to_block(self) -> bytes:
        """``Name: value`` CRLF lines."""
        return Headers.trusted(self.items()).to_block()

    def __bool__(self) -> bool:
        return True


class Record(Protocol):
    """What is asked of the driver's record, each once: asked again for unreadable headers, it hands out broken ones."""

    def key(self) -> bytes | None:
        """The key."""
        ...

    def value(self) -> bytes | None:
        """The value."""
        ...

    def timestamp(self) -> tuple[int, int]:
        """The kind of timestamp (0: none, 1: the sender's, 2: the broker's), and milliseconds."""
        ...

    def headers(self) -> Pairs | None:
        """Names and values."""
        ...


def decode(record: Record, topic: str, source: str, offset: int, id_header: str) -> tuple[Message, int]:
    """The message that stands there, and its kind of timestamp. `source` is ``topic/partition``.

    Whatever was written, there is a message. Without a legal id in `id_header` it is ``topic/partition/offset``; a time
    that is none becomes 1970 or the end of 9999; headers that the driver cannot read become one that says so.
    """
    headers, message_id = NO_HEADERS, ""
    try:
        pairs = _headers_of(record)
    except SystemError:
        headers = _unreadable(f"{source}@{offset}")
    else:
        if pairs:
            name, raw = pairs[0]
            if len(pairs) == 1 and name == id_header:
                usual = raw and len(raw) <= _MAX_ID and raw.isalnum()  # of ASCII: a sixth of what the exact look costs
                message_id = raw.decode() if usual else _id_of(raw)
            else:
                headers, message_id = _lifted(pairs, id_header)
    if not message_id:
        message_id = f"{source}/{offset}"
    kind, milliseconds = record.timestamp()
    if not 0 <= milliseconds <= _LAST_MS:
        milliseconds = 0 if milliseconds < 0 else _LAST_MS
    key, time_ns, body = record.key(), milliseconds * 1_000_000, record.value()
    if body is None:
        return Tombstone(topic=topic, key=key, headers=headers, id=message_id, time_ns=time_ns), kind
    return Message(topic=topic, body=body, key=key, headers=headers, id=message_id, time_ns=time_ns), kind


def encode(message: Message, id_header: str) -> Encoded:
    """What to hand to the driver. ``UsageError`` for a time before 1970 or after 9999.

    Of a dead letter the headers of the library of origin are worked out too (``x-source-topic`` …).
    """
    milliseconds = message.time_ns // 1_000_000
    if not 0 <= milliseconds <= _LAST_MS:
        raise UsageError(f"{message.topic} {message.id}: its time is before 1970 or after 9999: {message.time_ns} ns")
    headers = [(id_header, message.id.encode())]
    if message.headers is not NO_HEADERS:
        _add_headers(headers, message, id_header)
    value = None if isinstance(message, Tombstone) else message.body
    return message.topic, value, message.key, headers, milliseconds or 1  # the driver takes 0 for "now"


def _id_of(raw: bytes | None) -> str:
    """The id that `raw` is; empty where it is none."""
    try:
        text = raw.decode() if raw else ""
    except UnicodeDecodeError:
        return ""
    if len(text) <= _MAX_ID and text.isascii() and text.isprintable():
        return text
    fits = raw is not None and len(raw) <= _MAX_ID
    # As `check_message` sees it: with an illegal id the message could not even become a dead letter.
    return text if fits and not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in text) else ""


def _lifted(pairs: Pairs, id_header: str) -> tuple[Headers, str]:
    """The headers without the id's, and the first id. Spelled as ours it counts, else in any case of letters."""
    kept = [pair for pair in pairs if pair[0] != id_header]
    if len(kept) == len(pairs):
        lowered = id_header.lower()
        spelled = next((name for name, _ in pairs if name.lower() == lowered), None)
        return (RecordHeaders(kept), "") if spelled is None else _lifted(pairs, spelled)
    first = pairs[0] if pairs[0][0] == id_header else next(pair for pair in pairs if pair[0] == id_header)
    return RecordHeaders(kept) if kept else NO_HEADERS, _id_of(first[1])


def _unreadable(position: str) -> Headers:
    _log.warning("%s: the driver cannot read the headers, the name of one is not UTF-8", position)
    return Headers.trusted([(UNREADABLE, position)])


def _add_headers(headers: list[tuple[str, bytes]], message: Message, id_header: str) -> None:
    lowered, length = id_header.lower(), len(id_header)
    dead = False
    for name, value in message.headers.items():
        if len(name) == length and name.lower() == lowered:
            continue
        if name == letter.SOURCE:
            dead = True
        raw = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
        headers.append((name if name.isascii() and "\0" not in name else _safe(name), raw))
    if dead and (added := _origin_of(message)):
        headers[:] = [pair for pair in headers if pair[0].lower() not in letter.KAFKA]
        headers.extend((name, text.encode("utf-8", "backslashreplace")) for name, text in added)


def _safe(name: str) -> str:
    """A name from a foreign wire as the driver can take it: it ends at a NUL, and dies of half a surrogate pair."""
    return name.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()


def _origin_of(message: Message) -> list[tuple[str, str]]:
    """What the library of origin says of a dead letter, from the record alone; nothing where there is no record."""
    headers = message.headers
    source = headers.get(letter.SOURCE)
    if source is None or headers.get(letter.ID) is None:
        return []
    partition, offset = _place_of(headers.get(letter.POSITION), source)
    error, reason = headers.get(letter.ERROR), headers.get(letter.REASON)
    key = headers.get(letter.ORDER_KEY)
    if key is None and message.key is not None:
        key = message.key.decode("utf-8", "backslashreplace")
    found = (
        ("x-source-topic", source),
        ("x-source-partition", partition),
        ("x-source-offset", offset),
        ("x-source-timestamp", headers.get(letter.TIME)),
        ("x-logical-key", key),
        ("x-attempt", headers.get(letter.ATTEMPTS)),
        ("x-error", f"{error}: {reason}" if error and reason else error),
        ("x-failed-at", headers.get(letter.LAST)),
    )
    return [(name, text) for name, text in found if text is not None]


def _place_of(text: str | None, topic: str) -> tuple[str | None, str | None]:
    """Partition and offset of a position on Kafka; other engines' sources have another form."""
    position = letter.position_of_text(text)
    if position is None:
        return None, None
    name, slash, partition = position.source.rpartition("/")
    if name != topic or not slash or not (partition.isascii() and partition.isdigit()):
        return None, None
    return partition, str(position.value)
