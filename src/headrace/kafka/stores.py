"""OffsetStore: where partition mode keeps its checkpoints. One number for each topic and partition: the next offset."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

__all__ = ["MemoryOffsetStore", "OffsetStore"]


@runtime_checkable
class OffsetStore(Protocol):
    """Keeps the next offset of each partition.

    What is saved when the call returns is there for the next `load`. A failure that may pass is any error but a
    ``StoreError`` whose ``retryable`` is false; that one ends the run. A store does not compare: the caller only
    saves values that grow, one at a time.
    """

    async def load(self, topic: str, partition: int) -> int | None:
        """The next offset to read; ``None`` = nothing was ever saved."""
        ...

    async def save(self, topic: str, partition: int, next_offset: int) -> None:
        """Everything below `next_offset` is finished."""
        ...


class MemoryOffsetStore:
    """A dictionary: as long as the object lives."""

    def __init__(self) -> None:
        self._offsets: dict[tuple[str, int], int] = {}

    async def load(self, topic: str, partition: int) -> int | None:
        """The next offset to read; ``None`` = nothing was ever saved."""
        return self._offsets.get((topic, partition))

    async def save(self, topic: str, partition: int, next_offset: int) -> None:
        """Everything below `next_offset` is finished."""
        self._offsets[topic, partition] = next_offset
