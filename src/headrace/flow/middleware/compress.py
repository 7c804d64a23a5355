"""Compress / Decompress: gzip from the standard library, lz4 and zstd from an extra. Bounded both ways."""

from __future__ import annotations

from headrace.core.errors import CodecError, ConfigError
from headrace.core.headers import Headers
from headrace.core.message import Message
from headrace.flow.compose import ReceiveRewrite, SendRewrite
from headrace.flow.middleware.codings import CODINGS, Bound

__all__ = ["Compress", "Decompress"]

_HEADER = "Content-Encoding"
_IDENTITY = "identity"
_MIB = 1024 * 1024
_MAX_LAYERS = 4


class Compress(SendRewrite):
    """Send: compress the body and append the coding to ``Content-Encoding``.

    ``coding``: ``gzip`` (default), ``lz4`` or ``zstd``; ``level``: the coding's own (default: its default);
    ``min_size``: bodies under so many bytes (256) stay as they are, and so do those that would not get smaller. Equal
    bodies give equal bytes. ``ConfigError`` for another coding, a wrong level, or a package that is missing.
    """

    def __init__(self, coding: str = "gzip", level: int | None = None, min_size: int = 256) -> None:
        if coding not in CODINGS:
            raise ConfigError(f"coding must be one of {', '.join(CODINGS)}, got {coding!r}")
        if isinstance(min_size, bool) or not isinstance(min_size, int) or min_size < 0:
            raise ConfigError(f"min_size must be an integer >= 0, got {min_size!r}")
        self._coding = coding
        self._min_size = min_size
        self._compress = CODINGS[coding].compressor(level)

    def change(self, message: Message) -> Message:
        """The message compressed, or as it is."""
        if len(message.body) < self._min_size or not message.has_body:
            return message
        body = self._compress(message.body)
        if len(body) >= len(message.body):
            return message
        codings = [*message.headers.get_all(_HEADER), self._coding]
        return message.replace(body=body, headers=message.headers.set(_HEADER, ", ".join(codings)))


class Decompress(ReceiveRewrite):
    """Receive: undo ``Content-Encoding`` from the right while the coding is known; the header keeps the rest.

    A body may grow to ``max_size`` bytes (64 MiB), and to ``max_ratio`` (100) times its size or 1 MiB, whichever is
    more; that is checked while decoding. At most 4 codings. ``CodecError`` over a bound, for a truncated body and for
    junk behind it.
    """

    def __init__(self, max_size: int = 64 * _MIB, max_ratio: float = 100) -> None:
        if isinstance(max_size, bool) or not isinstance(max_size, int) or max_size < 1:
            raise ConfigError(f"max_size must be an integer >= 1, got {max_size!r}")
        if not max_ratio >= 1:
            raise ConfigError(f"max_ratio must be >= 1, got {max_ratio!r}")
        self._max_size = max_size
        self._max_ratio = max_ratio

    def change(self, message: Message) -> Message:
        """The message with what is known of its codings undone."""
        values = message.headers.get_all(_HEADER)
        if not values or not message.has_body:
            return message
        codings = [coding.strip() for value in values for coding in value.split(",")]
        left, body = self._undo(codings, message.body)
        if len(left) == len(codings):
            return message
        return message.replace(body=body, headers=_with_codings(message.headers, left))

    def _undo(self, codings: list[str], body: bytes) -> tuple[list[str], bytes]:
        most = min(self._max_size, max(_MIB, int(self._max_ratio * len(body))))
        left, layers = list(codings), 0
        while left and (left[-1].lower() in CODINGS or left[-1].lower() == _IDENTITY):
            coding = left.pop().lower()
            if coding == _IDENTITY:
                continue
            layers += 1
            if layers > _MAX_LAYERS:
                raise CodecError(f"more than {_MAX_LAYERS} content codings on one body")
            body = CODINGS[coding].decompress(body, Bound(most))
        return left, body


def _with_codings(headers: Headers, codings: list[str]) -> Headers:
    return headers.set(_HEADER, ", ".join(codings)) if codings else headers.remove(_HEADER)
