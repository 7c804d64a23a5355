"""Fence: whether this process may still take itself for a member of its group."""

from __future__ import annotations

import logging
from collections.abc import Callable

__all__ = ["Fence"]

_log = logging.getLogger("headrace.kafka")
_DOUBT = 2.0
"""Seconds after a standstill until what the group has decided meanwhile was heard of: the driver asks at once."""


class Fence:
    """Closed after a standstill that is longer than half a `session`, in seconds (``None``: it is never closed).

    A process that was stopped, or a machine that was, goes on with what it had in hand; the group may have given its
    partitions to others, and the driver hears of that moments later. The driver's thread gives a sign of life many
    times a second, unless nothing here runs; so the loop can tell before it begins anything. Half: a member may be
    given up as soon as a session less a heartbeat, a third of it, is over.
    """

    __slots__ = ("_from", "_now", "_seen", "_until", "longest")

    def __init__(self, session: float | None, now: Callable[[], float]) -> None:
        self._now = now
        self.longest = float("inf") if session is None else session / 2
        """Seconds of a standstill that is none."""
        self.begin()

    def begin(self) -> None:
        """There is something to lose from now on. The driver's thread."""
        self._seen = self._from = now = self._now()
        self._until = now + self.longest
        """The driver's thread writes it, the loop reads it."""

    def alive(self) -> None:
        """A sign of life. The driver's thread."""
        now = self._now()
        if now - self._seen > self.longest:
            self._from = now + _DOUBT
            self._until = now
            _log.warning("stood still for %.1f s: nothing begins until the group was heard", now - self._seen)
        elif now >= self._from:
            self._until = now + self.longest
        self._seen = now

    def holds(self) -> bool:
        """Whether a run may begin. The loop."""
        return self._now() < self._until
