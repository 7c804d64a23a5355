"""Beyond: what is finished above a committed offset, written into the commit's own text for whoever reads on from it.

Work ends in any order, a commit says only where its unbroken beginning ends. Without more, the next member would do
again what stands behind one unfinished record. The text is ``headrace/1 `` and base64 of numbers (LEB128): the newest
leader epoch that was read from plus one (0 = unknown); then how far it is to the next run of finished offsets, how
long that is, and so on from the committed offset. It is a help, not a promise: whoever cannot read it handles those
records again. A record of a newer leader epoch is not meant: the log was cut, and written anew from there.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Iterable

__all__ = ["read", "written"]

_MARK = "headrace/1 "
_MOST = 2_000
"""Bytes of numbers: brokers keep 4,096 of text (``offset.metadata.max.bytes``)."""


def written(base: int, finished: Iterable[int], leader: int) -> str:
    """The text for a commit of `base`; "" if nothing is `finished` (ascending, above `base`).

    What is too much stays out, the highest offsets first.
    """
    numbers = bytearray(_number(leader + 1))
    upto, head = base, len(numbers)
    for start, stop in _ranges(finished):
        more = _number(start - upto) + _number(stop - start)
        if len(numbers) + len(more) > _MOST:
            break
        numbers += more
        upto = stop
    return _MARK + b64encode(bytes(numbers)).decode() if len(numbers) > head else ""


def read(base: int, text: str | None, most: int) -> tuple[set[int], int]:
    """The finished offsets above `base`, at most so many (none where the text is not ours), and the leader epoch."""
    found: set[int] = set()
    if not text or not text.startswith(_MARK):
        return found, -1
    try:
        numbers = _numbers(b64decode(text[len(_MARK) :], validate=True))
    except (binascii.Error, ValueError):
        return found, -1
    upto = base
    for gap, length in zip(numbers[1::2], numbers[2::2], strict=False):
        start = upto + gap
        if length > most - len(found):
            break
        found.update(range(start, start + length))
        upto = start + length
    return found, numbers[0] - 1 if numbers else -1


def _ranges(offsets: Iterable[int]) -> Iterable[tuple[int, int]]:
    start = stop = -1
    for offset in offsets:
        if offset == stop:
            stop += 1
            continue
        if start >= 0:
            yield start, stop
        start, stop = offset, offset + 1
    if start >= 0:
        yield start, stop


def _number(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


def _numbers(data: bytes) -> list[int]:
    numbers: list[int] = []
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(value)
            value = shift = 0
        elif shift > 63:
            raise ValueError("a number without an end")
    return numbers
