"""Signals: SIGINT and SIGTERM ask every running worker of a loop to stop. One installation per loop, put back after."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Generator
from typing import Any
from weakref import WeakKeyDictionary

__all__ = ["on_stop_signal"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Desk:
    """The callbacks of one loop, and what stood there before."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._before: dict[signal.Signals, Any] = {}
        self.callbacks: list[Callable[[], None]] = []

    def install(self) -> None:
        for number in _SIGNALS:
            before = signal.getsignal(number)
            self._loop.add_signal_handler(number, self._called)
            self._before[number] = before

    def restore(self) -> None:
        for number, before in self._before.items():
            self._loop.remove_signal_handler(number)
            if before is not None:  # None: it was not set by Python, and Python cannot set it again
                signal.signal(number, before)
        self._before.clear()

    def _called(self) -> None:
        for callback in tuple(self.callbacks):
            callback()


_desks: WeakKeyDictionary[asyncio.AbstractEventLoop, _Desk] = WeakKeyDictionary()


@contextlib.contextmanager
def on_stop_signal(callback: Callable[[], None]) -> Generator[None, None, None]:
    """Call `callback` on the running loop at each SIGINT or SIGTERM. Outside the main thread: do nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    desk = _desks.get(loop)
    if desk is None:
        desk = _Desk(loop)
        desk.install()
        _desks[loop] = desk
    desk.callbacks.append(callback)
    try:
        yield
    finally:
        desk.callbacks.remove(callback)
        if not desk.callbacks:
            del _desks[loop]
            desk.restore()
