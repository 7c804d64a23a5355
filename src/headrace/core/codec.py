"""Codec: between a value and the bytes of a body. Every fault is a CodecError with path and reason, never the body."""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar

import msgspec

from headrace.core.errors import CodecError, ConfigError

__all__ = ["BytesCodec", "Codec", "JsonCodec", "TextCodec"]

T = TypeVar("T")
MAX_SIZE = 64 * 1024 * 1024


class Codec(Protocol[T]):
    """Turns a value into a body and back."""

    @property
    def content_type(self) -> str | None:
        """What `Content-Type` says of the body; ``None`` = nothing."""
        ...

    def encode(self, value: T) -> bytes:
        """The body of `value`, or ``CodecError``."""
        ...

    def decode(self, body: bytes) -> T:
        """The value of `body`, or ``CodecError``."""
        ...


class BytesCodec:
    """The body as it is."""

    content_type: str | None = None

    def encode(self, value: bytes) -> bytes:
        """Take bytes only; ``CodecError`` else."""
        if not isinstance(value, bytes):
            raise CodecError(f"body must be bytes, got {type(value).__name__}")
        return value

    def decode(self, body: bytes) -> bytes:
        """Give the body."""
        return body


class TextCodec:
    """Strict UTF-8."""

    content_type: str | None = "text/plain; charset=utf-8"

    def encode(self, value: str) -> bytes:
        """UTF-8 of the text; ``CodecError`` for a lone surrogate."""
        if not isinstance(value, str):
            raise CodecError(f"body must be str, got {type(value).__name__}")
        try:
            return value.encode()
        except UnicodeEncodeError as error:
            raise CodecError(f"text is not valid Unicode at character {error.start}") from None

    def decode(self, body: bytes) -> str:
        """The text; ``CodecError`` with the offset of the first bad byte."""
        try:
            return body.decode()
        except UnicodeDecodeError as error:
            raise CodecError(f"body is not UTF-8 at byte {error.start}") from None


class JsonCodec(Generic[T]):
    """JSON by msgspec, checked against `type`: of two equal names the last wins, NaN is written as ``null``.

    A body over `max_size` bytes (default 64 MiB) is refused before it is read. ``ConfigError`` for a type msgspec
    does not know.
    """

    content_type: str | None = "application/json"

    def __init__(self, type: Any = Any, *, max_size: int = MAX_SIZE) -> None:
        try:
            self._decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(type)
        except TypeError as error:
            raise ConfigError(f"no JSON codec for {type!r}: {error}") from error
        self._encoder = msgspec.json.Encoder()
        self._max_size = max_size

    def encode(self, value: T) -> bytes:
        """JSON of `value`."""
        try:
            return self._encoder.encode(value)
        except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise CodecError(f"cannot encode {type(value).__name__} as JSON: {error}") from error

    def decode(self, body: bytes) -> T:
        """The value, checked against the type."""
        if len(body) > self._max_size:
            raise CodecError(f"body of {len(body)} bytes, at most {self._max_size}")
        try:
            return self._decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError) as error:
            raise CodecError(f"not the JSON expected: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """What went wrong and where, without the body's text: msgspec names path and type, others only their kind."""
    return str(error) if isinstance(error, msgspec.MsgspecError) else type(error).__name__
