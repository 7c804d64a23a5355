"""Place: one runner, what it runs, and how a handler is driven there without a task of its own."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from enum import Enum, auto
from typing import Any, cast

from headrace.core.delivery import Delivery

__all__ = ["Place", "Why", "drive"]


class Why(Enum):
    """Why the worker cancelled a run."""

    TIMEOUT = auto()
    SHUTDOWN = auto()


class Place:
    """One runner: its task and what it runs. ``since``: loop time since when its handler waits for something."""

    __slots__ = ("abandoned", "delivery", "reported", "since", "task", "why")

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.delivery: Delivery | None = None
        self.since: float | None = None
        self.why: Why | None = None
        self.reported = False
        self.abandoned = False

    def cancel(self, why: Why) -> None:
        """Cancel what it runs; the runner itself goes on."""
        if self.task is not None and self.why is None:
            self.why = why
            self.task.cancel()

    async def uncancel(self) -> Why | None:
        """Take back every cancellation of the run that just ended, and say why the worker had asked for one."""
        task = cast("asyncio.Task[None]", self.task)
        while task.cancelling():
            while task.cancelling():
                task.uncancel()
            try:
                await asyncio.sleep(0)  # one that came too late for the handler would hit the next one
            except asyncio.CancelledError:
                continue
        why, self.why = self.why, None
        return why


@types.coroutine
def drive(
    context: Context, coroutine: Coroutine[Any, Any, None], waited: object
) -> Generator[object, Any, BaseException | None]:
    """Pass on what the loop sends and throws to a coroutine that runs in `context`; give what it raised, if it did.

    What the coroutine waits for is yielded to the runner's own task: ``current_task``, ``asyncio.timeout`` and task
    groups work in it.
    """
    run: Callable[..., object] = context.run
    while True:
        resume: Callable[[Any], object]
        try:
            argument: Any = yield waited
        except GeneratorExit:
            run(coroutine.close)
            raise
        except BaseException as thrown:  # noqa: BLE001  (it is the coroutine's, not ours)
            resume, argument = coroutine.throw, thrown
        else:
            resume = coroutine.send
        try:
            waited = run(resume, argument)
        except StopIteration:
            return None
        except BaseException as error:  # noqa: BLE001  (returned, not swallowed)
            return error
