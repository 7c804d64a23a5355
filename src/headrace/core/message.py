"""Message: what is sent, an immutable value. Its id, and the one check of what user code hands over."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, ClassVar

import msgspec
from msgspec import field

from headrace.core.errors import ConfigError, Fault, PublishError, UsageError
from headrace.core.headers import NO_HEADERS, Headers

__all__ = ["MAX_HEADERS", "MAX_HEADER_BYTES", "Message", "check_group", "check_message", "check_topic", "new_id"]

MAX_HEADERS = 1_000
MAX_HEADER_BYTES = 64 * 1024
_MAX_NAME = 255
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Ids:
    """Ids of one process: 48 bits of milliseconds, a 16 bit counter, 64 random bits redrawn after a fork.

    Time-ordered, so that an index over them grows at its right edge; no uuid, which costs ten times as much.
    """

    __slots__ = ("_last", "_tail")

    def __init__(self) -> None:
        self._last = 0
        self.redraw()

    def redraw(self) -> None:
        """New random bits: a child must never continue its parent's ids."""
        self._tail = os.urandom(8).hex()

    def next(self) -> str:
        """The next id, 32 lower-case hex characters, greater than all before it in this process."""
        # A full counter borrows the next millisecond; so does a clock that steps back.
        self._last = last = max(self._last + 1, time.time_ns() // 1_000_000 << 16)
        return f"{last:016x}{self._tail}"


_ids = _Ids()
os.register_at_fork(after_in_child=_ids.redraw)
new_id = _ids.next


class Message(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is sent. Immutable: a retry always sees the same bytes.

    Nothing is checked here (received data must never kill a pull); `check_message` does it where user code hands
    a message over. ``time_ns`` is the sender's time in nanoseconds since 1970, not the broker's. ``has_body`` is False
    for an engine's own kind of message without any: its ``body`` is empty, and no codec of bodies touches it.
    """

    has_body: ClassVar[bool] = True
    topic: str
    body: bytes
    key: bytes | None = None
    headers: Headers = NO_HEADERS
    id: str = field(default_factory=new_id)
    time_ns: int = field(default_factory=time.time_ns)

    @property
    def time(self) -> datetime:
        """`time_ns` as an aware datetime in UTC, to the microsecond."""
        return _EPOCH + timedelta(microseconds=self.time_ns // 1_000)

    @property
    def size(self) -> int:
        """Bytes of body, headers and key."""
        return len(self.body) + self.headers.size + len(self.key or b"")

    def replace(self, **fields: Any) -> Message:
        """A copy with other fields; id and time stay unless they are given."""
        return msgspec.structs.replace(self, **fields)


def check_message(message: Message) -> None:
    """Check a message that user code hands over.

    Raises ``UsageError`` (type of body or key, topic not set), ``ConfigError`` (topic, id) or ``PublishError``
    with ``Fault.REJECTED`` (more than 1,000 headers, or more than 64 KiB of them).
    """
    topic, key, message_id = message.topic, message.key, message.id
    if type(message.body) is not bytes:
        _check_bytes("body", message.body)
    if key is not None and type(key) is not bytes:
        _check_bytes("key", key)
    if not topic:
        raise UsageError("the message has no topic: send it through a Topic, or set one")
    if type(topic) is str:
        _check_topic_once(topic)
    else:
        check_topic(topic)
    simple = type(message_id) is str and message_id.isascii() and message_id.isprintable()
    if not simple or not 0 < len(message_id) <= _MAX_NAME:
        _check_id(message_id)
    if message.headers is not NO_HEADERS:
        _check_headers(message)


def check_topic(topic: str, *, wildcards: bool = False) -> str:
    """A topic's name: dotted tokens, at most 255 bytes. `*` and `>` only with `wildcards`. ``ConfigError`` if not."""
    if not isinstance(topic, str):
        raise ConfigError(f"topic must be str, got {topic!r}")
    tokens = topic.split(".")
    if "" in tokens or len(topic.encode("utf-8", "replace")) > _MAX_NAME or not _is_plain(topic):
        raise ConfigError(f"topic must be dotted tokens, at most 255 bytes, no blanks or controls: {topic!a}")
    if not wildcards and ("*" in topic or ">" in topic):
        raise ConfigError(f"wildcards are for subscribing only: {topic!a}")
    if (
        any(("*" in token and token != "*") or (">" in token and token != ">") for token in tokens)
        or ">" in tokens[:-1]
    ):
        raise ConfigError(f"* stands alone in a token, > alone in the last: {topic!a}")
    return topic


@lru_cache(4096)
def _check_topic_once(topic: str) -> None:
    """Publishers use few topics, and checking one costs a microsecond. What is refused is not remembered."""
    check_topic(topic)


def check_group(group: str) -> str:
    """A group's name: 1..128 of letters, digits, ``.``, ``_``, ``-``. ``ConfigError`` if not."""
    if not isinstance(group, str) or not 0 < len(group) <= 128 or not _GROUP.issuperset(group):
        raise ConfigError(f"group must be 1..128 of A-Z a-z 0-9 . _ -, got {group!a}")
    return group


_GROUP = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")


def _is_plain(text: str) -> bool:
    if text.isascii():
        return text.isprintable() and " " not in text
    return not any(
        char.isspace() or ord(char) < 32 or 127 <= ord(char) < 160 or 0xD800 <= ord(char) < 0xE000 for char in text
    )


def _check_bytes(name: str, value: object) -> None:
    if not isinstance(value, bytes):
        raise UsageError(f"{name} must be bytes, got {type(value).__name__}: use bytes(…), or .encode() for text")


def _check_id(message_id: str) -> None:
    if not isinstance(message_id, str) or not message_id:
        raise ConfigError(f"id must be 1..255 bytes of text, got {message_id!a}")
    fits = len(message_id.encode("utf-8", "replace")) <= _MAX_NAME and not any(
        ord(char) < 32 or 127 <= ord(char) < 160 or 0xD800 <= ord(char) < 0xE000 for char in message_id
    )
    if not fits:
        raise ConfigError(f"id must be 1..255 bytes without control characters, got {message_id!a}")


def _check_headers(message: Message) -> None:
    headers = message.headers
    if not isinstance(headers, Headers):
        raise UsageError(f"headers must be Headers, got {type(headers).__name__}: use Headers(…)")
    if len(headers) > MAX_HEADERS:
        raise PublishError(
            f"{len(headers)} headers, at most {MAX_HEADERS}",
            message_id=message.id,
            limit=MAX_HEADERS,
            fault=Fault.REJECTED,
        )
    if headers.size > MAX_HEADER_BYTES:
        raise PublishError(
            f"{headers.size} bytes of headers, at most {MAX_HEADER_BYTES}",
            message_id=message.id,
            limit=MAX_HEADER_BYTES,
            fault=Fault.REJECTED,
        )
