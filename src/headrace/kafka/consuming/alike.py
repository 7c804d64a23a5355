"""Alike: which records of a poll stand together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, repeat
from operator import methodcaller
from typing import Any

__all__ = ["alike"]

_error_of, _topic_of, _partition_of = methodcaller("error"), methodcaller("topic"), methodcaller("partition")


def alike(records: Sequence[Any]) -> Iterator[int]:
    """How many records in a row are of one partition; an error stands alone."""
    if {*map(type, map(_error_of, records))} - {type(None)}:
        return repeat(1, len(records))
    places = zip(map(_topic_of, records), map(_partition_of, records), strict=True)
    return (len([*same]) for _, same in groupby(places))
