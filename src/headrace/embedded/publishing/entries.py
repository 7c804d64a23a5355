"""From what a caller publishes to what is stored: checked here, before anything is queued, and never rewritten."""

from __future__ import annotations

from functools import lru_cache

from headrace.core.errors import UsageError
from headrace.core.headers import HeadersLike
from headrace.embedded.options import EmbeddedOptions
from headrace.embedded.publishing.run import Entry
from headrace.streams.config import StreamPublishOptions
from headrace.streams.errors import MessageTooLargeError
from headrace.streams.lines import block_of
from headrace.streams.names import WireBlock
from headrace.streams.subjects import validate_subject

__all__ = ["entry_of", "size_of", "too_large"]


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
    if options is not None:
        options = _needed(options)
    block = headers if type(headers) is WireBlock and options is None else block_of(headers, msg_id, options) or None
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
