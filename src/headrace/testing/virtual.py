"""Virtual time: an event loop that jumps to its next timer instead of waiting, and the clock that goes with it.

``asyncio.sleep``, timeouts and backoff cost nothing on it. Threads are real: while one is at work (between the clock's
``begin`` and ``end``, or in an executor) the loop waits for it and time stands still.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from typing import Any, ParamSpec, TypeVar

from headrace.core.errors import UsageError

__all__ = ["VirtualClock", "VirtualLoop", "virtual_time"]

P = ParamSpec("P")
R = TypeVar("R")

_START_NS = 946_684_800 * 1_000_000_000  # 2000-01-01 UTC
_DEADLOCK_AFTER = 5.0


class VirtualClock:
    """The clock of a `VirtualLoop`: 2000-01-01 UTC and 0 s when the loop begins, the loop's time after that."""

    def __init__(self) -> None:
        self.elapsed = 0.0
        """Virtual seconds since the loop began."""
        self.at_work = 0
        """Threads that have work whose result has not been used up."""

    def now_ns(self) -> int:
        """Nanoseconds since 1970, UTC."""
        return _START_NS + round(self.elapsed * 1_000_000_000)

    def monotonic(self) -> float:
        """Seconds since the loop began."""
        return self.elapsed

    def begin(self) -> None:
        """A thread has got work: time stands still."""
        self.at_work += 1

    def end(self) -> None:
        """Its result has been used up. ``UsageError`` without a `begin`."""
        if not self.at_work:
            raise UsageError("end() without begin()")
        self.at_work -= 1


class _JumpingSelector(selectors.BaseSelector):
    """A selector that moves the clock where another one would block."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._real = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = self._real.select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        if self._clock.at_work:
            return self._real.select(None)
        if timeout is not None:
            self._clock.elapsed += timeout
            return []
        events = self._real.select(_DEADLOCK_AFTER)
        if not events:
            raise UsageError(f"deadlock: nothing ready, no timer, no thread at work for {_DEADLOCK_AFTER:g} s")
        return events

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


class VirtualLoop(asyncio.SelectorEventLoop):
    """A selector event loop on virtual time. ``UsageError`` when nothing can happen for 5 s."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        super().__init__(_JumpingSelector(self.clock))

    def time(self) -> float:
        """Virtual seconds since the loop began."""
        return self.clock.elapsed

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., R], *args: Any
    ) -> asyncio.Future[R]:
        """Run in a thread; time stands still until the result is there."""
        future = super().run_in_executor(executor, func, *args)
        self.clock.begin()
        future.add_done_callback(lambda _: self.clock.end())
        return future

    async def shutdown_default_executor(self, *args: Any, **further: Any) -> None:
        """Join the executor's threads. Time stands still: a limit on that, which Python 3.12 has, cannot run out."""
        self.clock.begin()
        try:
            await super().shutdown_default_executor(*args, **further)
        finally:
            self.clock.end()


def virtual_time(test: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, R]:
    """Run a coroutine function on a `VirtualLoop` of its own, as a plain function."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            return runner.run(test(*args, **kwargs))

    return run
