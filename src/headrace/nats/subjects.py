"""What a subject may be on this wire. Text is UTF-8 byte for byte; what is refused is refused before a byte leaves."""

from __future__ import annotations

import re
from functools import lru_cache

from headrace.core.errors import ConfigError

__all__ = ["MAX_SUBJECT", "check_queue", "check_subject", "encode_filter", "encode_subject"]

MAX_SUBJECT = 1900
"""Bytes. A server takes control lines of 4096: subject and reply of this length fit into one."""
_REFUSED = re.compile("[\\x00-\\x20\\x7f-\\x9f\ud800-\udfff]")


def check_subject(subject: str, what: str = "subject") -> str:
    """A subject to send to: dotted tokens, none empty, none a wildcard, no blanks or controls. ``ConfigError``."""
    _check(subject, what)
    if "*" in subject or ">" in subject:
        tokens = subject.split(".")
        if "*" in tokens or ">" in tokens:
            raise ConfigError(f"{what} must have no wildcard token, got {subject[:256]!a}")
    return subject


@lru_cache(maxsize=4096)
def encode_subject(subject: str) -> bytes:
    """A subject to send to, checked, as bytes."""
    return check_subject(subject).encode()


def encode_filter(subject: str) -> bytes:
    """A subject to listen on, checked, as bytes: ``*`` is one token, ``>`` the last."""
    _check(subject, "subject")
    if ">" in subject.split(".")[:-1]:
        raise ConfigError(f"subject must have > in its last token only, got {subject[:256]!a}")
    return subject.encode()


def check_queue(queue: str) -> bytes:
    """A queue group's name, checked, as bytes."""
    if not isinstance(queue, str) or not queue or _REFUSED.search(queue) or len(queue.encode()) > MAX_SUBJECT:
        raise ConfigError(f"queue must be text without blanks or controls, got {str(queue)[:256]!a}")
    return queue.encode()


def _check(subject: str, what: str) -> None:
    if not isinstance(subject, str) or not subject or _REFUSED.search(subject):
        raise ConfigError(f"{what} must be text without blanks or controls, got {str(subject)[:256]!a}")
    if len(subject.encode()) > MAX_SUBJECT:
        raise ConfigError(f"{what} must have at most {MAX_SUBJECT} bytes, got {len(subject.encode())}")
    if subject[0] == "." or subject[-1] == "." or ".." in subject:
        raise ConfigError(f"{what} must have no empty token, got {subject[:256]!a}")
