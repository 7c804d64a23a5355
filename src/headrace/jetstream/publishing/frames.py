"""Frames: from what a caller publishes to what is sent: checked before a byte leaves, and never rewritten."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.core.errors import PublishError, UnsupportedError, UsageError
from headrace.core.headers import HeadersLike
from headrace.nats.block import VERSION_LINE
from headrace.nats.connection import Connection
from headrace.streams.config import StreamMessage, StreamPublishOptions
from headrace.streams.errors import InvalidSubjectError, MessageTooLargeError
from headrace.streams.info import PubAck
from headrace.streams.lines import block_of
from headrace.streams.names import WireBlock
from headrace.streams.subjects import validate_subject

__all__ = ["Frames", "Part"]

Part = tuple[bytes, bytes]
"""Subject and header lines, as they are sent."""

_LONGEST_LINE = 4096
"""Bytes of a control line that a server reads."""
_REST_OF_LINE = 52
"""Verb, blanks and sizes in it, and the number behind the prefix of the reply subject."""
_MOST_SUBJECTS = 4096
_AROUND_LINES = len(VERSION_LINE) + len(b"\r\n")
_SINCE = (2, 11)
"""A server before this one ignores the headers of these options."""


class Frames:
    """Makes them for one connection. ``subjects``: those that were checked already, as they are sent."""

    def __init__(self, connection: Connection) -> None:
        self.subjects: dict[str, bytes] = {}
        self.most = 0
        """Bytes of the largest message, as last asked for."""
        self._connection = connection
        self._longest = _LONGEST_LINE - _REST_OF_LINE - len(connection.replies.prefix)

    def part(
        self,
        subject: str,
        data: bytes,
        headers: HeadersLike | WireBlock | None,
        msg_id: str | None,
        options: StreamPublishOptions | None,
    ) -> Part:
        """What is sent of a message; misuse and one that is too large raise."""
        part = self._checked(subject, data, headers, msg_id, options)
        size = _size(data, part[1])
        if size > self.most:
            self.ask_most()
            if size > self.most:
                raise _too_large(size, self.most, msg_id)
        return part

    def parts(self, messages: Sequence[StreamMessage]) -> tuple[list[Part], list[PubAck | PublishError | None]]:
        """What is sent of many; and the result of each that is too large. Misuse raises."""
        parts: list[Part] = []
        results: list[PubAck | PublishError | None] = []
        self.ask_most()
        for message in messages:
            part = self._checked(message.subject, message.data, message.headers, message.msg_id, None)
            size = _size(message.data, part[1])
            parts.append(part)
            results.append(None if size <= self.most else _too_large(size, self.most, message.msg_id))
        return parts, results

    def ask_most(self) -> None:
        """Ask the connection, which may have got another server."""
        self.most = self._connection.max_payload

    def _checked(
        self,
        subject: str,
        data: bytes,
        headers: HeadersLike | WireBlock | None,
        msg_id: str | None,
        options: StreamPublishOptions | None,
    ) -> Part:
        wire = self.subjects.get(subject) if type(subject) is str else None
        if wire is None:
            wire = self._subject(subject)
        if type(data) is not bytes:
            raise UsageError(f"data must be bytes, got {type(data).__name__}")
        if options is None:
            if type(headers) is WireBlock:
                return wire, headers
            if headers is None and msg_id is None:
                return wire, b""
        else:
            self._check_known(options)
        return wire, block_of(headers, msg_id, options)

    def _subject(self, subject: str) -> bytes:
        """Publishers use few subjects, and checking one costs a microsecond. What is refused is not remembered."""
        wire = validate_subject(subject).encode()
        if len(wire) > self._longest:
            raise InvalidSubjectError(f"{len(wire)} bytes of subject, at most {self._longest}")
        if len(self.subjects) >= _MOST_SUBJECTS:
            self.subjects.clear()
        self.subjects[subject] = wire
        return wire

    def _check_known(self, options: StreamPublishOptions) -> None:
        """``UnsupportedError`` for what this server would ignore."""
        for name in ("ttl", "expect_subject"):
            given = getattr(options, name)
            server = self._connection.server_info
            if given is not None and server.version_tuple[:2] < _SINCE:
                needed = ".".join(map(str, _SINCE))
                raise UnsupportedError(f"{name} needs nats-server {needed}, this is {server.version}: got {given!r}")


def _size(data: bytes, block: bytes) -> int:
    """What counts for the server's largest message."""
    return len(data) + len(block) + _AROUND_LINES if block else len(data)


def _too_large(size: int, most: int, msg_id: str | None) -> MessageTooLargeError:
    return MessageTooLargeError(f"{size} bytes of headers and body, at most {most}", message_id=msg_id, limit=most)
