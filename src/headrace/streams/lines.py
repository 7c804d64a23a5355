"""The header block that is published with a message: our lines, then the user's. Checked here, never rewritten."""

from __future__ import annotations

import re
from datetime import timedelta

from headrace.core.broker import Expect
from headrace.core.delivery import Position
from headrace.core.errors import ConfigError
from headrace.core.headers import NO_HEADERS, HeadersLike
from headrace.streams import names
from headrace.streams.names import WireBlock
from headrace.streams.options import StreamPublishOptions

__all__ = ["block_of"]

_BAD_ID = re.compile("[\r\n\x00\ud800-\udfff]")
_NEVER = timedelta.max


def block_of(
    headers: HeadersLike | WireBlock | None, msg_id: str | None, options: StreamPublishOptions | None
) -> bytes:
    """``Name: value`` CRLF lines; none = ``b""``. ``ConfigError`` for what the wire cannot carry or the engine owns."""
    if isinstance(headers, WireBlock):
        block: bytes = headers
        msg_id = None  # it stands in there
    else:
        block = b"" if headers is NO_HEADERS or headers is None else names.check_user_headers(headers).to_block()
    if options is not None:
        block = _option_lines(options) + block
    return block if msg_id is None else _id_line(msg_id) + block


def _id_line(msg_id: str) -> bytes:
    if not isinstance(msg_id, str) or not msg_id or msg_id != msg_id.strip(" \t"):
        raise ConfigError(f"msg_id must be text without outer blanks, got {msg_id!a}")
    if not msg_id.isprintable() and _BAD_ID.search(msg_id):
        raise ConfigError(f"msg_id must be text without CR, LF and NUL, got {msg_id!a}")
    return b"Nats-Msg-Id: %b\r\n" % msg_id.encode()


def _option_lines(options: StreamPublishOptions) -> bytes:
    lines: list[tuple[str, str | int]] = []
    if options.expect_stream is not None:
        lines.append((names.EXPECTED_STREAM, options.expect_stream))
    if options.expect is not None:
        lines += _expectations(options.expect)
    if options.expect_subject is not None:
        lines.append((names.EXPECTED_LAST_SUBJECT_SEQUENCE_SUBJECT, options.expect_subject))
    if options.rollup is not None:
        lines.append((names.ROLLUP, options.rollup.value))
    if isinstance(options.ttl, timedelta):  # its __post_init__ has made one of seconds, too
        lines.append((names.TTL, "never" if options.ttl == _NEVER else f"{options.ttl.total_seconds():.0f}s"))
    for name, value in lines:
        if isinstance(value, str) and (_BAD_ID.search(value) or value != value.strip(" \t")):
            raise ConfigError(f"{name} must be text without CR, LF, NUL and outer blanks, got {value!a}")
    return "".join(f"{name}: {value}\r\n" for name, value in lines).encode()


def _expectations(expect: Expect) -> list[tuple[str, str | int]]:
    lines: list[tuple[str, str | int]] = []
    for name, given in (
        (names.EXPECTED_LAST_SEQUENCE, expect.last),
        (names.EXPECTED_LAST_SUBJECT_SEQUENCE, expect.last_for_topic),
        (names.EXPECTED_LAST_MSG_ID, expect.last_id),
    ):
        if given is not None:
            lines.append((name, given.value if isinstance(given, Position) else given))
    return lines
