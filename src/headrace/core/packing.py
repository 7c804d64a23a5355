"""Headrace-Packed: the one header for all that a wire cannot carry as it is (messages.md 3.2.5). Engines share it.

Its value is base64url (no padding) of JSON ``[[position, name, base64 of the value's bytes], …]`` in order of position.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Sequence
from typing import cast

from headrace.core.headers import Value, value_of_bytes

__all__ = ["PACKED", "Pair", "pack", "unpack"]

PACKED = "Headrace-Packed"
Pair = tuple[str, Value]


def pack(pairs: Sequence[Pair], fits: Callable[[str, Value], bool]) -> list[Pair]:
    """The pairs for a wire: those that fit as they are, all others in one `PACKED` pair at the end.

    ``fits`` is asked once per pair, in order, so that it may keep count (repeated names, number of pairs).
    """
    kept: list[Pair] = []
    packed: list[tuple[int, str, str]] = []
    for position, (name, value) in enumerate(pairs):
        if fits(name, value):
            kept.append((name, value))
        else:
            raw = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
            packed.append((position, name, base64.b64encode(raw).decode()))
    if packed:
        text = json.dumps(packed, separators=(",", ":"))
        kept.append((PACKED, base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")))
    return kept


def unpack(pairs: Iterable[Pair]) -> tuple[Pair, ...]:
    """The pairs as they were before `pack`. A packed header that makes no sense is left alone, as data."""
    given = tuple(pairs)
    lowered = PACKED.lower()
    places = [place for place, (name, _) in enumerate(given) if name.lower() == lowered]
    if len(places) != 1:
        return given
    place = places[0]
    entries = _entries(given[place][1])
    if not entries:
        return given
    restored = [*given[:place], *given[place + 1 :]]
    for position, name, value in entries:
        if position > len(restored):
            return given
        restored.insert(position, (name, value))
    return tuple(restored)


def _entries(packed: Value) -> list[tuple[int, str, Value]] | None:
    """What a packed value says; ``None`` where anything in it is wrong."""
    try:
        raw = packed.encode("ascii") if isinstance(packed, str) else packed
        # altchars with validate: the lenient decoder would skip what is no base64.
        text = base64.b64decode(raw + b"=" * (-len(raw) % 4), altchars=b"-_", validate=True)
        items: object = json.loads(text)
        return _checked(cast("list[object]", items)) if isinstance(items, list) else None
    except (ValueError, TypeError, RecursionError):
        return None


def _checked(items: list[object]) -> list[tuple[int, str, Value]]:
    entries: list[tuple[int, str, Value]] = []
    last = -1
    for item in items:
        if not isinstance(item, list) or len(cast("list[object]", item)) != 3:
            raise ValueError("an entry is [position, name, value]")
        position, name, value = cast("list[object]", item)
        if isinstance(position, bool) or not isinstance(position, int) or position <= last:
            raise ValueError("positions ascend")
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError("name and value are texts")
        last = position
        entries.append((position, name, value_of_bytes(base64.b64decode(value.encode("ascii"), validate=True))))
    return entries
