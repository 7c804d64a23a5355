"""Listeners and hooks: who is told of a connection's life. When one of them raises, the others still hear."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

from headrace.nats.errors import PermissionsError
from headrace.nats.info import ConnectionStats
from headrace.nats.options import ConnectionOptions

__all__ = ["Hooks", "Listener"]

_log = logging.getLogger("headrace.nats")


class Listener(Protocol):
    """Told by plain calls, in order of registration."""

    def lost(self, error: BaseException) -> None:
        """The link is gone; what was handed to the socket and is unanswered has an unknown outcome."""
        ...

    def restored(self) -> None:
        """Connected again, SUBs are sent, what was kept meanwhile is not: what is sent now goes first."""
        ...

    def closed(self, error: BaseException | None) -> None:
        """It is over for good; `error` if not by `aclose`."""
        ...

    def forbidden(self, error: PermissionsError) -> None:
        """What was published to ``error.subject`` was not taken, and will not be answered. The link lives."""
        ...


class Hooks:
    """The ``on_…`` callables of the options, and the listeners."""

    def __init__(self, options: ConnectionOptions, stats: ConnectionStats) -> None:
        self.listeners: list[Listener] = []
        self._options = options
        self._stats = stats

    def report(self, error: BaseException) -> None:
        """Something failed and nobody waits for it: ``on_error``, else the log."""
        self._stats.errors += 1
        if self._options.on_error is None:
            _log.warning("%s: %s", type(error).__name__, error)
            return
        try:
            self._options.on_error(error)
        except Exception:  # noqa: BLE001  (where errors go has failed itself)
            _log.exception("on_error raised")

    def lost(self, error: BaseException) -> None:
        """The link is gone."""
        for listener in tuple(self.listeners):
            self.call(listener.lost, error)
        self.call(self._options.on_disconnect, error)

    def restored(self) -> None:
        """There is a link again."""
        for listener in tuple(self.listeners):
            self.call(listener.restored)

    def reconnected(self) -> None:
        """What was kept has been written."""
        self.call(self._options.on_reconnect)

    def closed(self, error: BaseException | None) -> None:
        """It is over."""
        for listener in tuple(self.listeners):
            self.call(listener.closed, error)
        self.call(self._options.on_closed, error)

    def forbidden(self, error: PermissionsError) -> None:
        """A subject is not allowed."""
        for listener in tuple(self.listeners):
            self.call(listener.forbidden, error)

    def lame_duck(self) -> None:
        """The server is about to go."""
        self.call(self._options.on_lame_duck)

    def call(self, hook: Callable[..., Any] | None, *arguments: Any) -> None:
        """Call what is not ours."""
        if hook is not None:
            try:
                hook(*arguments)
            except Exception as error:  # noqa: BLE001  (another's code: the connection outlives it)
                self.report(error)
