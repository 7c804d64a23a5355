"""Sweep: one timer per worker that looks after all that is held: leases, run times, parked messages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from headrace.core.broker import Subscription
from headrace.core.delivery import Delivery
from headrace.flow.keyed import KeyedQueues
from headrace.flow.letter import one_line
from headrace.flow.place import Place, Why
from headrace.flow.stats import Stats

__all__ = ["Sweep"]

_log = logging.getLogger("headrace.worker")
_LONGEST = 1.0
_HUNG = 60.0
_SLACK = 1e-6


class Sweep:
    """Armed only while something is held; nothing of it runs per message."""

    def __init__(
        self,
        queues: KeyedQueues,
        places: Sequence[Place],
        stats: Stats,
        *,
        handler_timeout: float | None,
        release: Callable[[Sequence[Delivery]], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._queues = queues
        self._places = places
        self._stats = stats
        self._handler_timeout = handler_timeout
        self._release = release
        self._fail = fail
        self._keeps: list[tuple[Subscription, float]] = []
        self._next_keep: dict[int, float] = {}
        self._interval = min(_LONGEST, handler_timeout or _LONGEST)
        self._timer: asyncio.TimerHandle | None = None
        self._last_asked = 0.0

    def watch(self, subscription: Subscription) -> None:
        """Look after the leases of this one too."""
        if subscription.lease is not None:
            third = subscription.lease / 3
            self._keeps.append((subscription, third))
            self._interval = min(self._interval, third)

    def arm(self) -> None:
        """Something is held from now on."""
        if self._timer is None:
            loop = asyncio.get_running_loop()
            now = loop.time()
            self._last_asked = now
            self._next_keep = {index: now + third for index, (_, third) in enumerate(self._keeps)}
            self._timer = loop.call_later(self._interval, self._tick)

    def stop(self) -> None:
        """Nothing is held any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = None
        if not self._queues.held:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        try:
            self._keep(now)
            self._look_at_runs(now)
            if now - self._last_asked >= _LONGEST - _SLACK:
                self._last_asked = now
                self._ask_parked()
        except Exception as error:  # noqa: BLE001  (an engine that cannot keep leases ends the worker, not the loop)
            self._fail(error)
            return
        self._timer = loop.call_later(self._interval, self._tick)

    def _keep(self, now: float) -> None:
        for index, (subscription, third) in enumerate(self._keeps):
            if now >= self._next_keep[index] - _SLACK:
                self._next_keep[index] = now + third
                subscription.keep()

    def _look_at_runs(self, now: float) -> None:
        limit = self._handler_timeout
        for place in self._places:
            if place.since is None:
                continue
            lasted = now - place.since
            if limit is not None and lasted >= limit - _SLACK:
                place.cancel(Why.TIMEOUT)
            if lasted >= _HUNG and not place.reported and place.delivery is not None:
                place.reported = True
                message = place.delivery.message
                _log.warning("%s %s runs for %.0f s now", one_line(message.topic), one_line(message.id), lasted)

    def _ask_parked(self) -> None:
        """A parked message that was taken from us must not hold its key, nor the engine's rebalance."""
        for delivery in self._queues.parked:
            if not delivery.owner.start(delivery):
                self._stats.withdrawn += 1
                self._release(self._queues.withdraw_parked(delivery))
