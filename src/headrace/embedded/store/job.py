"""Job: what the thread of a file is given to do, and how its end is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import apsw

__all__ = ["Call", "Job"]


class Job(Protocol):
    """Work for the thread: `run` inside its transaction, `done` or `failed` back on the loop after the commit.

    ``weight`` in bytes bounds a group. ``isolated`` jobs get a savepoint of their own, so that one that raises leaves
    nothing behind; the others promise to check before they write. A commit of ``quiet`` jobs alone wakes nobody: they
    serve those who wait, and bring nothing new.
    """

    weight: int
    isolated: bool
    quiet: bool = False

    def run(self, connection: apsw.Connection) -> None:
        """Do it (on the thread); keep the result in itself."""
        ...

    def undone(self) -> None:
        """Its transaction was taken back (on the thread, before the next one begins). Seldom of interest."""
        return

    def done(self) -> None:
        """The commit is on disk (on the loop)."""
        ...

    def failed(self, error: BaseException) -> None:
        """It was not committed, or that is unknown (on the loop)."""
        ...


class Call(Job):
    """A function of the connection, run for its result."""

    __slots__ = ("function", "future", "result")
    weight = 0
    isolated = True

    def __init__(self, function: Callable[[apsw.Connection], Any], future: asyncio.Future[Any]) -> None:
        self.function = function
        self.future = future
        self.result: Any = None

    def run(self, connection: apsw.Connection) -> None:
        """Call it."""
        self.result = self.function(connection)

    def done(self) -> None:
        """Hand the result to who waits."""
        if not self.future.done():
            self.future.set_result(self.result)

    def failed(self, error: BaseException) -> None:
        """Hand the error to who waits."""
        if not self.future.done():
            self.future.set_exception(error)
