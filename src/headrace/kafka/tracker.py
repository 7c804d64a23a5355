"""OffsetTracker: which offsets of one partition are begun and which finished, and so what may be committed."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from operator import lt

from headrace.core.errors import UsageError

__all__ = ["OffsetTracker"]


class OffsetTracker:
    """The offsets of one partition in order of arrival, each finished or not. Pure: no I/O, no clock, no lock.

    Commit `committable`: the offset after the longest prefix that is finished. What counts is arrival, not arithmetic:
    compaction and transaction markers leave gaps, and no gap may hold it back. Both calls are O(1), amortised.
    """

    __slots__ = ("_order", "_swept", "_unfinished", "begun")

    def __init__(self) -> None:
        self._order: deque[int] = deque()  # ascending, from the oldest unfinished one on
        self._unfinished: set[int] = set()
        self._swept: int | None = None
        self.begun: int | None = None
        """The last offset begun; ``None`` = none yet."""

    def begin(self, offset: int) -> None:
        """The record at `offset` has arrived. ``UsageError`` if `offset` is not above the last one begun."""
        last = self.begun
        if last is not None and offset <= last:
            raise UsageError(f"offset {offset} begun after {last}")
        self.begun = offset
        self._order.append(offset)
        self._unfinished.add(offset)

    def begin_many(self, offsets: Sequence[int]) -> None:
        """`begin` for each of them, or ``UsageError`` for none: they must ascend, from above the last one begun."""
        if not offsets:
            return
        last = self.begun
        if (last is not None and offsets[0] <= last) or not all(map(lt, offsets, islice(offsets, 1, None))):
            raise UsageError(f"offsets {offsets[0]}..{offsets[-1]} begun after {last}: they must ascend")
        self.begun = offsets[-1]
        self._order.extend(offsets)
        self._unfinished.update(offsets)

    def finish(self, offset: int) -> None:
        """The record at `offset` needs no more work. ``UsageError`` if it was not begun, or is finished already."""
        unfinished = self._unfinished
        try:
            unfinished.remove(offset)
        except KeyError:
            raise _strange(offset) from None
        order = self._order
        if order[0] == offset:
            order.popleft()
            while order and order[0] not in unfinished:
                offset = order.popleft()
            self._swept = offset

    def finish_many(self, offsets: Sequence[int]) -> None:
        """`finish` for each of them, all different, in any order; or ``UsageError`` for none."""
        order, unfinished = self._order, self._unfinished
        if not unfinished.issuperset(offsets):
            raise _strange(next(offset for offset in offsets if offset not in unfinished))
        unfinished.difference_update(offsets)
        while order and order[0] not in unfinished:
            self._swept = order.popleft()

    @property
    def committable(self) -> int | None:
        """The next offset to read once everything before it is finished; ``None`` = nothing is. Never goes back."""
        return None if self._swept is None else self._swept + 1

    @property
    def unfinished(self) -> int:
        """How many are begun and not finished."""
        return len(self._unfinished)

    @property
    def tracked(self) -> int:
        """How many are held: the unfinished ones, and the finished ones behind the oldest of them."""
        return len(self._order)

    @property
    def ahead(self) -> list[int]:
        """The finished ones behind the oldest unfinished: what `committable` cannot tell of."""
        unfinished = self._unfinished
        return [offset for offset in self._order if offset not in unfinished]

    @property
    def oldest(self) -> int | None:
        """The oldest unfinished offset; ``None`` = all are finished."""
        return self._order[0] if self._order else None


def _strange(offset: int) -> UsageError:
    return UsageError(f"offset {offset} was not begun, or finished before")
