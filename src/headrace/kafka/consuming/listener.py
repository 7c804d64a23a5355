"""Listener: who hears of what the driver's thread brings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from headrace.kafka.consuming.partition import Partition, Run

__all__ = ["Listener"]


class Listener(Protocol):
    """Who hears of a poller. All on the loop, in order."""

    def arrived(self, runs: Sequence[Run]) -> None:
        """Records."""
        ...

    def assigned(self, stays: Sequence[Partition]) -> None:
        """These are ours from now on."""
        ...

    def revoking(self, stays: Sequence[Partition], quiet: Callable[[], None]) -> None:
        """They go. `quiet` is to be called once nothing of them runs."""
        ...

    def gone(self, stays: Sequence[Partition], *, lost: bool) -> None:
        """They are ours no more."""
        ...

    def failed(self, error: BaseException) -> None:
        """The poller has ended."""
        ...
