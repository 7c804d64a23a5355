"""From what a caller publishes to what is stored: checked here, before anything is queued, and never rewritten."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from headrace.core.broker import Expect
from headrace.core.delivery import Position
from headrace.core.errors import ConfigError, UsageError
from headrace.core.headers import NO_HEADERS, HeadersLike
from headrace.embedded.options import EmbeddedOptions
from headrace.embedded.publishing.run import Entry
from headrace.streams import names
from headrace.streams.config import StreamPublishOptions
from headrace.streams.errors import MessageTooLargeError
from headrace.streams.names import WireBlock
from headrace.streams.subjects import validate_subject

__all__ = ["entry_of", "size_of", "too_large"]

_BAD_ID = re.compile("[\r\n\x00\ud800-\udfff]")


def size_of(entry: Entry) -> int:
    """Bytes of a message: headers and body."""
    return len(entry.data) + (0 if entry.block is None else len(entry.block) + 12)


def entry_of(  # noqa: PLR0917  (called per message: keywords cost)
    limits: EmbeddedOptions, subject: str, data: bytes, headers: HeadersLike | WireBlock | None,
    msg_id: str | None, order_key: bytes | None, options: StreamPublishOptions | None, *, raising: bool = True,
) -> Entry:  # fmt: skip
    """The entry of a message. Misuse raises at once; one that is too large does, or becomes its result in a batch."""
    if type(subject) is str:
        _check_subject(subject)
    else:
        validate_subject(subject)
    if type(data) is not bytes:
        raise UsageError(f"data must be bytes, got {type(data).__name__}")
    block: bytes | None = None
    if isinstance(headers, WireBlock):
        block = headers
    elif headers is not NO_HEADERS and headers is not None:
        block = names.check_user_headers(headers).to_block() or None
    if options is not None:
        options = _needed(options)
        block = (_option_lines(options) + (block or b"")) or None if options is not None else block
    if msg_id is not None and not isinstance(headers, WireBlock):
        if not msg_id or (not msg_id.isprintable() and _BAD_ID.search(msg_id)) or msg_id != msg_id.strip(" \t"):
            raise ConfigError(f"msg_id must be text without CR, LF, NUL and outer blanks, got {msg_id!r}")
        line = f"Nats-Msg-Id: {msg_id}\r\n".encode()
        block = line if block is None else line + block
    if len(data) + (0 if block is None else len(block) + 12) <= limits.max_payload:
        return Entry(subject, data, block, msg_id, order_key, options)
    error = too_large(limits, len(data) + len(block or b""), msg_id)
    if raising:
        raise error
    return Entry(subject, b"", None, msg_id, order_key, error)


def too_large(limits: EmbeddedOptions, size: int, msg_id: str | None) -> MessageTooLargeError:
    """The error of a message of so many bytes."""
    text = f"{size} bytes of headers and body, at most {limits.max_payload}"
    return MessageTooLargeError(text, message_id=msg_id, limit=limits.max_payload)


@lru_cache(4096)
def _check_subject(subject: str) -> None:
    """Publishers use few subjects, and checking one costs a microsecond. What is refused is not remembered."""
    validate_subject(subject)


def _needed(options: StreamPublishOptions) -> StreamPublishOptions | None:
    """``None`` where nothing is asked that the transaction has to look at."""
    asked = (options.expect, options.expect_stream, options.ttl, options.rollup)
    return options if asked != (None, None, None, None) else None


def _option_lines(options: StreamPublishOptions) -> bytes:
    """The headers that a server would have got, and stores."""
    lines: list[tuple[str, Any]] = []
    if options.expect_stream is not None:
        lines.append((names.EXPECTED_STREAM, options.expect_stream))
    if options.expect is not None:
        lines += _expectations(options.expect)
    if options.expect_subject is not None:
        lines.append((names.EXPECTED_LAST_SUBJECT_SEQUENCE_SUBJECT, options.expect_subject))
    ttl: Any = options.ttl
    if ttl is not None:
        lines.append((names.TTL, "never" if ttl.days >= 999_999_999 else int(ttl.total_seconds())))
    if options.rollup is not None:
        lines.append((names.ROLLUP, options.rollup.value))
    return "".join(f"{name}: {value}\r\n" for name, value in lines).encode()


def _expectations(expect: Expect) -> list[tuple[str, Any]]:
    lines: list[tuple[str, Any]] = []
    for name, given in (
        (names.EXPECTED_LAST_SEQUENCE, expect.last),
        (names.EXPECTED_LAST_SUBJECT_SEQUENCE, expect.last_for_topic),
        (names.EXPECTED_LAST_MSG_ID, expect.last_id),
    ):
        if given is not None:
            lines.append((name, given.value if isinstance(given, Position) else given))
    return lines
