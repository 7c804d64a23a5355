"""Clock: the only source of time. Waiting is the running loop's, so that a virtual loop owns both."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Protocol, cast

__all__ = ["Clock", "SystemClock", "current_clock"]


_BOOT: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(Protocol):
    """What time it is, and whether a thread is at work (a virtual loop must not jump meanwhile)."""

    def now_ns(self) -> int:
        """Nanoseconds since 1970, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds since boot: never goes back, the same for all processes of the machine."""
        ...

    def begin(self) -> None:
        """Called on the loop: a thread has got work."""
        ...

    def end(self) -> None:
        """Called on the loop: the result of that work has been used up."""
        ...


class SystemClock:
    """The machine's time."""

    def now_ns(self) -> int:
        """Nanoseconds since 1970, UTC."""
        return time.time_ns()

    monotonic = staticmethod(partial(time.clock_gettime, _BOOT))
    """Seconds since boot (Linux: time spent asleep included)."""

    def begin(self) -> None:
        """Do nothing: real time passes by itself."""

    def end(self) -> None:
        """Do nothing: real time passes by itself."""


def current_clock(clock: Clock | None = None) -> Clock:
    """The clock given, else the running loop's own (``loop.clock``), else the system's."""
    if clock is not None:
        return clock
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return SystemClock()
    return cast("Clock", getattr(loop, "clock", None) or SystemClock())
