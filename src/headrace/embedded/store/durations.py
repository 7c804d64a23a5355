"""Durations: how long something took, each time."""

from __future__ import annotations

__all__ = ["Durations"]


class Durations:
    """Count, total and longest, in seconds."""

    __slots__ = ("count", "longest", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = self.longest = 0.0

    def add(self, took: float) -> None:
        """Once more."""
        self.count += 1
        self.total += took
        self.longest = max(self.longest, took)
