"""DriverLog: what the driver's clients say, brought to our logger: one WARNING per outage, all the rest DEBUG."""

from __future__ import annotations

import logging
import re

from headrace.core.clock import Clock, SystemClock
from headrace.kafka.codes import Code
from headrace.kafka.errors import KafkaError

__all__ = ["LOGGER", "DriverLog"]

LOGGER = logging.getLogger("headrace.kafka")

_AWAY = frozenset({"FAIL", "ERROR"})
"""The driver's words at the head of a line that says that a broker cannot be reached."""
_QUIET = 60.0
"""Seconds without such a line after which the next one is a new outage: while one lasts there is one every 30 s."""
_LOST = re.compile(r"\(after (\d+)ms in state UP\b")
"""At the end of a line about a link that is lost: how long it had been good."""
_GOOD = 1.0
"""Seconds that a link must have been good for an outage to be over: one that breaks at once is a part of it."""


class DriverLog:
    """Takes the lines and error events of the clients of one broker; they may come from several threads.

    While a broker is away the driver writes up to 20 lines a second. An outage is over once nothing was heard of it for
    a minute, when a link is lost that was made after the outage began, or, if all brokers were `down`, as soon as
    somebody says `recovered`.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._heard: float | None = None
        self._warned = 0.0
        self.down = False
        """Whether all brokers were lost and nobody has recovered since."""

    def log(self, level: int, text: str, *arguments: object) -> None:
        """A line of the driver (it knows this by the name and shape of ``logging.Logger.log``)."""
        away = bool(arguments) and arguments[0] in _AWAY
        if away:
            self._look_back(str(arguments[-1]))
        LOGGER.log(self._level(away=away and level >= logging.ERROR), text, *arguments)

    def failed(self, error: KafkaError) -> None:
        """An error event of a client: nothing that is lost, the driver goes on by itself."""
        if error.code == Code.LOCAL_ALL_BROKERS_DOWN:
            self.down = True
        LOGGER.log(self._level(away=error.retriable), "%s", error)

    def recovered(self) -> None:
        """Something came through: if all brokers were down, that outage is over. Ask `down` first where it is hot."""
        if self.down:
            self.down = False
            self._heard = None
            LOGGER.debug("brokers can be reached again")

    def _look_back(self, line: str) -> None:
        lost = _LOST.search(line)
        if lost is None:
            return
        seconds = int(lost[1]) / 1000
        if seconds >= _GOOD and self._clock.monotonic() - seconds > self._warned:
            self.down = False
            self._heard = None

    def _level(self, *, away: bool) -> int:
        if not away:
            return logging.DEBUG
        now = self._clock.monotonic()
        new = self._heard is None or now - self._heard > _QUIET
        self._heard = now
        if new:
            self._warned = now
        return logging.WARNING if new else logging.DEBUG
