"""Stored messages as a server hands them out, in its two forms: as they are with headers of its own, and in JSON."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from headrace.core.headers import NO_HEADERS, Headers
from headrace.jetstream.protocol.values import optional, required, text, time, whole
from headrace.nats.block import lines_of
from headrace.streams.errors import StreamError
from headrace.streams.msg import RawStreamMsg
from headrace.streams.names import LAST_SEQUENCE, SEQUENCE, STREAM, SUBJECT, TIME_STAMP

__all__ = ["NUM_PENDING", "UP_TO_SEQUENCE", "Direct", "direct_of", "number_in", "stored_of", "transport_of"]

NUM_PENDING = "Nats-Num-Pending"
UP_TO_SEQUENCE = "Nats-UpTo-Sequence"
_TRANSPORT = {
    name.lower().encode(): name
    for name in (STREAM, SUBJECT, SEQUENCE, TIME_STAMP, NUM_PENDING, LAST_SEQUENCE, UP_TO_SEQUENCE)
}
_MOST_DIGITS = 20


class Direct(msgspec.Struct, frozen=True, gc=False):
    """A message, and the sequence of the one that was sent before it in the same batch (``None``: no batch)."""

    message: RawStreamMsg
    previous: int | None


def transport_of(header: bytes) -> tuple[dict[str, str], bytes]:
    """The headers that the server has added behind those of the message, and the lines of the message's own.

    A message that was republished brings the same names as its own: the server's part begins with the last
    ``Nats-Stream``.
    """
    lines = lines_of(header).split(b"\r\n")
    if lines and not lines[-1]:
        lines.pop()
    found: dict[str, str] = {}
    while lines and STREAM not in found:
        name, _, value = lines[-1].partition(b":")
        known = _TRANSPORT.get(name.lower())
        if known is None:
            break
        found[known] = value.strip(b" \t").decode("utf-8", "surrogateescape")
        lines.pop()
    return found, b"".join(line + b"\r\n" for line in lines)


def direct_of(header: bytes, data: bytes, where: str) -> Direct | None:
    """The message of a direct get; ``None`` for an answer without the server's headers, which is a status."""
    found, own = transport_of(header)
    if SEQUENCE not in found:
        return None
    stored = time(found.get(TIME_STAMP), f"{where}: {TIME_STAMP}")
    if stored is None or SUBJECT not in found:
        raise StreamError(f"{where}: a message without time or subject")
    message = RawStreamMsg(
        subject=found[SUBJECT],
        sequence=number_in(found, SEQUENCE, where),
        data=data,
        headers=Headers.from_block(own) if own else NO_HEADERS,
        time=stored,
    )
    previous = number_in(found, LAST_SEQUENCE, where) if LAST_SEQUENCE in found else None
    return Direct(message, previous)


def stored_of(given: dict[str, Any], where: str) -> RawStreamMsg:
    """The ``message`` of the answer to MSG.GET."""
    stored = required(given, "time", time, where)
    if stored is None:
        raise StreamError(f"{where}: a message without time")
    block = _bytes(given, "hdrs", where)
    lines = lines_of(block) if block else b""
    return RawStreamMsg(
        subject=required(given, "subject", text, where),
        sequence=required(given, "seq", whole, where),
        data=_bytes(given, "data", where),
        headers=Headers.from_block(lines) if lines else NO_HEADERS,
        time=stored,
    )


def number_in(found: dict[str, str], name: str, where: str) -> int:
    """A number of the server's headers."""
    value = found.get(name, "")
    if not (value.isascii() and value.isdigit()) or len(value) > _MOST_DIGITS:
        raise StreamError(f"{where}: {name} must be a number, got {value[:_MOST_DIGITS]!r}")
    return int(value)


def _bytes(given: dict[str, Any], name: str, where: str) -> bytes:
    try:
        return base64.b64decode(optional(given, name, text, "", where), validate=True)
    except (binascii.Error, ValueError) as error:
        raise StreamError(f"{where}: {name} is no base64: {error}") from error
