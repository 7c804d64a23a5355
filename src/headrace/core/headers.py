"""Headers: ordered, multi-valued, looked up without regard to case, immutable, parsed on first access."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import cast

from headrace.core.errors import ConfigError

__all__ = ["NO_HEADERS", "Headers", "HeadersLike", "text_of_value", "value_of_bytes"]

Value = str | bytes
Pair = tuple[str, Value]

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}\Z")  # RFC 9110, 5.6.2: token
_NOT_IN_VALUE = re.compile("[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


def _fold(name: str) -> str:
    """ASCII A-Z only: the KELVIN SIGN is not a k."""
    return name.lower() if name.isascii() else name.translate(_LOWER)


def _is_text(value: str) -> bool:
    return not _NOT_IN_VALUE.search(value) and value.strip(" \t") == value


def value_of_bytes(raw: bytes) -> Value:
    """The one form of a value: bytes that would be a legal text value are that text, others stay bytes."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return raw
    return text if _is_text(text) else raw


def text_of_value(value: Value) -> str:
    """A value as text; what is not UTF-8 shows as surrogate escapes."""
    return value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")


def _bytes_of_value(value: Value) -> bytes:
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value


def _checked(name: str, value: Value) -> Pair:
    if not isinstance(name, str) or not _NAME.match(name):
        raise ConfigError(f"header name must be 1..256 characters of an RFC 9110 token, got {name!a}")
    if isinstance(value, bytes):
        return name, value_of_bytes(value)
    if not isinstance(value, str):
        raise ConfigError(f"header {name}: value must be str or bytes, got {type(value).__name__}")
    if not _is_text(value):
        raise ConfigError(f"header {name}: control character, surrogate or outer blank in {value!a}")
    return name, value


def _flatten(pairs: HeadersLike) -> Iterator[Pair]:
    if isinstance(pairs, Headers):
        yield from pairs.items()
    elif isinstance(pairs, Mapping):
        for name, values in cast("Mapping[str, Value | Sequence[Value]]", pairs).items():
            yield from ((name, value) for value in ((values,) if isinstance(values, str | bytes) else values))
    else:
        yield from pairs


class Headers:
    """Ordered (name, value) pairs. A name may repeat and keeps its spelling; look-up folds ASCII case only.

    Values are ``str``, or ``bytes`` where they are no legal text; bytes that are legal text become that text, so
    that both spellings are one value. `set`, `add` and `remove` give new headers. Names and values are refused
    (``ConfigError``), never rewritten.
    """

    __slots__ = ("_block", "_pairs")
    _pairs: tuple[Pair, ...] | None
    _block: bytes

    def __init__(self, pairs: HeadersLike = ()) -> None:
        self._pairs = tuple(_checked(name, value) for name, value in _flatten(pairs))
        self._block = b""

    @classmethod
    def from_block(cls, block: bytes) -> Headers:
        """Headers of ``Name: value`` CRLF lines as received; nothing is checked, parsed on first access."""
        self = cls.__new__(cls)
        self._pairs = None
        self._block = block
        return self

    @classmethod
    def trusted(cls, pairs: Iterable[Pair]) -> Headers:
        """Headers of pairs that came from a wire: foreign names and values are data, nothing is checked."""
        self = cls.__new__(cls)
        self._pairs = tuple(pairs)
        self._block = b""
        return self

    def to_block(self) -> bytes:
        """``Name: value`` CRLF lines."""
        if self._pairs is None:
            return self._block
        return b"".join(b"%b: %b\r\n" % (name.encode(), _bytes_of_value(value)) for name, value in self._pairs)

    def items(self) -> tuple[Pair, ...]:
        """All pairs in order."""
        if self._pairs is None:
            self._pairs = tuple(_parse(self._block))
        return self._pairs

    def get(self, name: str, default: str | None = None) -> str | None:
        """The first value of `name` as text (undecodable bytes as surrogate escapes), else `default`."""
        wanted = _fold(name)
        for own, value in self.items():
            if _fold(own) == wanted:
                return text_of_value(value)
        return default

    def get_bytes(self, name: str) -> bytes | None:
        """The exact bytes of the first value of `name`."""
        wanted = _fold(name)
        for own, value in self.items():
            if _fold(own) == wanted:
                return _bytes_of_value(value)
        return None

    def get_all(self, name: str) -> tuple[str, ...]:
        """All values of `name`, in order."""
        wanted = _fold(name)
        return tuple(text_of_value(value) for own, value in self.items() if _fold(own) == wanted)

    def set(self, name: str, value: Value) -> Headers:
        """New headers in which `name` has this one value, at the place of the first or at the end."""
        pair = _checked(name, value)
        wanted = _fold(name)
        kept: list[Pair] = []
        placed = False
        for own in self.items():
            if _fold(own[0]) != wanted:
                kept.append(own)
            elif not placed:
                kept.append(pair)
                placed = True
        return Headers.trusted(kept if placed else [*kept, pair])

    def add(self, name: str, value: Value) -> Headers:
        """New headers with one more pair."""
        return Headers.trusted((*self.items(), _checked(name, value)))

    def remove(self, name: str) -> Headers:
        """New headers without `name`."""
        wanted = _fold(name)
        return Headers.trusted(pair for pair in self.items() if _fold(pair[0]) != wanted)

    @property
    def size(self) -> int:
        """Bytes in names and values."""
        if self._pairs is None:
            return len(self._block)
        return sum(len(name.encode()) + len(_bytes_of_value(value)) for name, value in self._pairs)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get_bytes(name) is not None

    def __len__(self) -> int:
        return len(self.items())

    def __bool__(self) -> bool:
        return bool(self._block if self._pairs is None else self._pairs)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Headers):
            return NotImplemented
        return self._folded() == other._folded()

    def __hash__(self) -> int:
        return hash(self._folded())

    def __repr__(self) -> str:
        return f"Headers({list(self.items())!r})"

    def _folded(self) -> tuple[Pair, ...]:
        return tuple((_fold(name), value) for name, value in self.items())


HeadersLike = Headers | Mapping[str, "Value | Sequence[Value]"] | Iterable[Pair]
"""What is taken where headers are given: headers, a mapping to one or many values, or pairs."""

NO_HEADERS = Headers()
"""The empty headers."""


def _parse(block: bytes) -> Iterator[Pair]:
    """One leading space and the surrounding blanks of a value are no data (NATS header block, ADR-4)."""
    for line in block.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if colon:
            yield name.decode("utf-8", "surrogateescape"), value_of_bytes(value.strip(b" \t"))
