"""Subjects and names: what is allowed, what matches, and one legal token of any text. Everything refused raises first.

Rules: jetstream.md 3.2, after the NATS subject rules (ADR-6 names and subjects). Text is UTF-8 byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from headrace.core.errors import ConfigError
from headrace.streams.errors import InvalidConsumerNameError, InvalidStreamNameError, InvalidSubjectError

__all__ = [
    "escape_token",
    "matches",
    "overlaps",
    "unescape_token",
    "validate_consumer_name",
    "validate_filter",
    "validate_name",
    "validate_subject",
]

_MAX_NAME = 255
_NOT_IN_NAME = re.compile("[\\x00-\\x20\\x7f-\\x9f>*./\\\\\ud800-\udfff]")
_NOT_IN_SUBJECT = re.compile("[\\x00-\\x20\\x7f-\\x9f\ud800-\udfff]")
_PLAIN = re.compile(r"[A-Za-z0-9_-]")


def validate_name(name: str, *, error: type[ConfigError] = InvalidStreamNameError) -> str:
    r"""A stream's name: 1..255 bytes, none of ``> * . / \\``, blanks, control characters. Raises `error` if not."""
    if not isinstance(name, str) or not name or _NOT_IN_NAME.search(name) or len(name.encode()) > _MAX_NAME:
        raise error(f"name must be 1..{_MAX_NAME} bytes without > * . / \\, blanks or controls, got {name!a}")
    return name


def validate_consumer_name(name: str) -> str:
    """A consumer's name: the rules of `validate_name`; ``InvalidConsumerNameError``."""
    return validate_name(name, error=InvalidConsumerNameError)


def validate_subject(subject: str) -> str:
    """A subject to publish to: dotted tokens without wildcards, not below ``$`` or ``_INBOX.``. `InvalidSubjectError`.

    A bare server would accept a wildcard and store it as it is.
    """
    _check(subject)
    if _has_wildcard(subject):
        raise InvalidSubjectError(f"subject must have no wildcard token, got {subject!a}")
    if subject.startswith(("$", "_INBOX.")):
        raise InvalidSubjectError(f"subjects below $ and _INBOX. are the server's, got {subject!a}")
    return subject


def validate_filter(subject: str) -> str:
    """A filter: dotted tokens, ``*`` alone in a token, ``>`` alone in the last. ``InvalidSubjectError`` if not.

    A ``*`` or ``>`` inside a longer token is no wildcard to a server, but never what is meant: refused.
    """
    _check(subject)
    if ">" in subject or "*" in subject:
        tokens = subject.split(".")
        if ">" in tokens[:-1] or any(len(token) > 1 and ("*" in token or ">" in token) for token in tokens):
            raise InvalidSubjectError(f"* stands alone in a token, > alone in the last, got {subject!a}")
    return subject


def matches(pattern: str, subject: str) -> bool:
    """Whether the filter `pattern` matches `subject`: ``*`` is one token, ``>`` one or more at the end."""
    if pattern in (subject, ">"):
        return True
    if ">" not in pattern and "*" not in pattern:
        return False
    return _matcher(pattern)(subject) is not None


def overlaps(one: str, other: str) -> bool:
    """Whether some subject is matched by both filters."""
    ours, theirs = one.split("."), other.split(".")
    for own, its in zip(ours, theirs, strict=False):
        if own == ">" or its == ">":
            return True
        if own not in (its, "*") and its != "*":
            return False
    return len(ours) == len(theirs)


def escape_token(text: str) -> str:
    """One legal token (and name) of any text; injective. Letters, digits, ``_`` and ``-`` stay; empty is ``=``.

    All other characters become ``=XX`` for each byte of their UTF-8 (``=`` because ``%`` reads badly in URLs).
    """
    if not text:
        return "="
    return "".join(char if _PLAIN.match(char) else _escaped(char) for char in text)


def unescape_token(token: str) -> str:
    """The text of which `escape_token` made this token. ``ConfigError`` for anything else."""
    if token == "=":
        return ""
    parts = token.split("=")
    raw = bytearray(parts[0].encode("utf-8", "surrogatepass"))
    try:
        for part in parts[1:]:
            raw += bytes.fromhex(part[:2]) + part[2:].encode("utf-8", "surrogatepass")
        text = raw.decode("utf-8", "surrogatepass")
    except ValueError:
        raise ConfigError(f"token is not an escaped text, got {token!a}") from None
    if escape_token(text) != token:
        raise ConfigError(f"token is not an escaped text, got {token!a}")
    return text


def _escaped(char: str) -> str:
    return "".join(f"={byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))


def _check(subject: str) -> None:
    if not isinstance(subject, str) or not subject or _NOT_IN_SUBJECT.search(subject):
        raise InvalidSubjectError(f"subject must be text without blanks or controls, got {subject!a}")
    if subject[0] == "." or subject[-1] == "." or ".." in subject:
        raise InvalidSubjectError(f"subject must have no empty token, got {subject!a}")


def _has_wildcard(subject: str) -> bool:
    if "*" not in subject and ">" not in subject:
        return False
    tokens = subject.split(".")
    return "*" in tokens or ">" in tokens


@lru_cache(maxsize=4096)
def _matcher(pattern: str) -> Callable[[str], re.Match[str] | None]:
    parts = [r"[^.]+" if token == "*" else re.escape(token) for token in pattern.split(".")]
    if pattern.endswith(".>"):
        parts[-1] = r".+"
    return re.compile(r"\.".join(parts), re.DOTALL).fullmatch
