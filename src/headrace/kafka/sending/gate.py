"""Gate: who waits for whom before the driver has a message. A queue for each key in use, and nothing for the others."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable

__all__ = ["Gate", "Turn"]


class Turn:
    """The place of one message, or of one list, behind those before it that have a key of its own."""

    __slots__ = ("_ahead", "_followers", "_gate", "_keys", "_left", "_ready")

    def __init__(self, gate: Gate, keys: frozenset[Hashable]) -> None:
        self._gate = gate
        self._keys = keys
        self._followers: list[Turn] = []
        self._ahead = 0
        self._left = False
        self._ready: asyncio.Future[None] | None = None

    def follow(self, turn: Turn) -> None:
        """Wait for this one too."""
        turn._followers.append(self)
        self._ahead += 1

    async def come(self) -> None:
        """Until all before it have left."""
        if self._ahead:
            self._ready = asyncio.get_running_loop().create_future()
            await self._ready

    def leave(self) -> None:
        """Let the next ones go. Twice is fine."""
        if self._left:
            return
        self._left = True
        self._gate.forget(self, self._keys)
        for follower in self._followers:
            follower.passed()

    def passed(self) -> None:
        """One of those before it has left."""
        self._ahead -= 1
        if not self._ahead and self._ready is not None and not self._ready.done():
            self._ready.set_result(None)


class Gate:
    """Turns by key, in the order of entering; a key is forgotten when its last turn has left."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: dict[Hashable, Turn] = {}

    def enter(self, keys: Iterable[Hashable]) -> Turn:
        """A turn behind the last one of each key."""
        wanted = frozenset(keys)
        turn = Turn(self, wanted)
        for before in {self._last[key] for key in wanted if key in self._last}:
            turn.follow(before)
        for key in wanted:
            self._last[key] = turn
        return turn

    def forget(self, turn: Turn, keys: Iterable[Hashable]) -> None:
        """It has left."""
        for key in keys:
            if self._last.get(key) is turn:
                del self._last[key]

    def __len__(self) -> int:
        return len(self._last)
