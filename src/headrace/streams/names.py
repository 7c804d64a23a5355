"""Header names of streams, and the check of what a caller may put into headers (jetstream.md 3.2.3)."""

from __future__ import annotations

import re

from headrace.core.errors import ConfigError
from headrace.core.headers import Headers, HeadersLike

__all__ = [
    "BATCH_COMMIT",
    "BATCH_ID",
    "BATCH_SEQUENCE",
    "EXPECTED_LAST_MSG_ID",
    "EXPECTED_LAST_SEQUENCE",
    "EXPECTED_LAST_SUBJECT_SEQUENCE",
    "EXPECTED_LAST_SUBJECT_SEQUENCE_SUBJECT",
    "EXPECTED_STREAM",
    "LAST_SEQUENCE",
    "MSG_ID",
    "ROLLUP",
    "SEQUENCE",
    "STREAM",
    "SUBJECT",
    "TIME_STAMP",
    "TTL",
    "WireBlock",
    "check_user_headers",
    "user_headers",
]

MSG_ID = "Nats-Msg-Id"
EXPECTED_STREAM = "Nats-Expected-Stream"
EXPECTED_LAST_SEQUENCE = "Nats-Expected-Last-Sequence"
EXPECTED_LAST_SUBJECT_SEQUENCE = "Nats-Expected-Last-Subject-Sequence"
EXPECTED_LAST_SUBJECT_SEQUENCE_SUBJECT = "Nats-Expected-Last-Subject-Sequence-Subject"
EXPECTED_LAST_MSG_ID = "Nats-Expected-Last-Msg-Id"
ROLLUP = "Nats-Rollup"
TTL = "Nats-TTL"
STREAM = "Nats-Stream"
SEQUENCE = "Nats-Sequence"
TIME_STAMP = "Nats-Time-Stamp"
SUBJECT = "Nats-Subject"
LAST_SEQUENCE = "Nats-Last-Sequence"
BATCH_ID = "Nats-Batch-Id"
BATCH_SEQUENCE = "Nats-Batch-Sequence"
BATCH_COMMIT = "Nats-Batch-Commit"

_NAME = re.compile(r"[!-9;-~]+\Z")
_VALUE_FORBIDDEN = re.compile("[\r\n\x00\ud800-\udfff]")
_VALUE_FORBIDDEN_BYTES = re.compile(b"[\r\n\x00]")


class WireBlock(bytes):
    """A whole header block that this library made itself, ``Nats-Msg-Id`` included: an engine stores it unread."""

    __slots__ = ()


def check_user_headers(headers: HeadersLike | None) -> Headers:
    """The headers a caller gave, checked; no headers for ``None``. The caller's object is never changed.

    ``ConfigError``: a name starting ``Nats-`` (any case; use the typed option), a name or value that the wire cannot
    carry: names printable ASCII without ``:``, values without CR, LF, NUL and outer blanks. Nothing is rewritten.
    """
    if headers is None:
        return _NONE
    made = headers if isinstance(headers, Headers) else Headers(headers)
    for name, value in made.items():
        if name[:5].lower() == "nats-":
            raise ConfigError(f"header {name}: names starting Nats- are the engine's, use the typed option")
        if not _NAME.match(name):
            raise ConfigError(f"header name must be printable ASCII without ':' or blank, got {name!a}")
        bad = _VALUE_FORBIDDEN.search(value) if isinstance(value, str) else _VALUE_FORBIDDEN_BYTES.search(value)
        if bad or _stripped(value) != value:
            raise ConfigError(f"header {name}: CR, LF, NUL, surrogate or outer blank in {value!a}")
    return made


def user_headers(headers: Headers) -> Headers:
    """These headers without the engine's (``Nats-…``, any case): for publishing a received message again."""
    pairs = headers.items()
    kept = [pair for pair in pairs if pair[0][:5].lower() != "nats-"]
    return headers if len(kept) == len(pairs) else Headers.trusted(kept)


_NONE = Headers()


def _stripped(value: str | bytes) -> str | bytes:
    return value.strip(" \t") if isinstance(value, str) else value.strip(b" \t")
