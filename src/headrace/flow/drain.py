"""Drain: how a worker lets go of what it holds. Stop the engine first, then give back, wait for what runs, flush."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from headrace.core.broker import Subscription
from headrace.core.delivery import RELEASE, Delivery, Nak, Position
from headrace.flow.attempt import Attempts
from headrace.flow.keyed import KeyedQueues
from headrace.flow.letter import one_line
from headrace.flow.place import Place, Why
from headrace.flow.pulls import Pulls
from headrace.flow.stats import Stats
from headrace.flow.sweep import Sweep

__all__ = ["Drain"]

_log = logging.getLogger("headrace.worker")
_ABANDON_AFTER = 1.0
_GIVE_UP_AFTER = 5.0
_GIVE_UP_EVERY = 0.1


class Drain:
    """The end of one worker's life. ``late``: a deadline passed before it was done."""

    def __init__(
        self,
        queues: KeyedQueues,
        places: Sequence[Place],
        attempts: Attempts,
        *,
        pulls: Pulls,
        sweep: Sweep,
        release: Callable[[Sequence[Delivery]], None],
    ) -> None:
        self._queues = queues
        self._places = places
        self._attempts = attempts
        self._pulls = pulls
        self._sweep = sweep
        self._release = release
        self._timers: list[asyncio.TimerHandle] = []
        self._deadline: float | None = None
        self._running = False
        self._abandoned: asyncio.Event = asyncio.Event()
        self.late = False

    def within(self, seconds: float, life: asyncio.Task[None]) -> None:
        """Start nothing more; be done in so many seconds, or cancel what runs. The shortest deadline counts."""
        if not self._queues.closed:
            self._queues.shut()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        if self._deadline is None or deadline < self._deadline:
            self._deadline = deadline
            self._cancel_timers()
            self._timers.append(loop.call_at(deadline, self._too_late, life))

    async def run(self, subscriptions: Sequence[Subscription]) -> None:
        """Let go of everything that is held. An engine that fails at it is told of at the end, not left half-way."""
        failures: list[Exception] = []
        self._running = True
        self._queues.shut()
        # Without the stop first, what is released would come straight back into our own open pull.
        for subscription in subscriptions:
            try:
                await subscription.stop()
            except Exception as error:  # noqa: BLE001  (raised below)
                failures.append(error)
        await self._pulls.stop()
        self._attempts.drained = True
        self._release(self._queues.left())
        await self._wait_for_runners()
        self._release(self._queues.left())
        self._sweep.stop()
        for subscription in subscriptions:
            try:
                await subscription.flush()
            except Exception as error:  # noqa: BLE001  (raised below)
                failures.append(error)
        for another in failures[1:]:
            failures[0].add_note(f"then {type(another).__name__}: {another}")
        if failures:
            raise failures[0]

    def end(self) -> None:
        """Its life is over, whichever way: no timer and no runner stays."""
        self._cancel_timers()
        self._sweep.stop()
        for place in self._places:
            if place.task is not None and not place.task.done() and not place.abandoned:
                place.abandoned = True
                place.task.cancel()

    def release(self, deliveries: Sequence[Delivery], stats: Stats) -> None:
        """Hand back unrun, in the order of their source (they come sorted by key)."""
        self._queues.gone(len(deliveries))
        for delivery in sorted(deliveries, key=_place_in_source) if len(deliveries) > 1 else deliveries:
            settlement = delivery.settlement
            if isinstance(settlement.outcome, Nak):
                settlement.outcome = None
            if settlement.outcome is None:
                delivery.settle(RELEASE)
                stats.released += 1

    async def _wait_for_runners(self) -> None:
        abandoned = asyncio.create_task(self._abandoned.wait())
        try:
            while not self._abandoned.is_set():
                left = [place.task for place in self._places if place.task is not None and not place.task.done()]
                if not left:
                    return
                await asyncio.wait((abandoned, *left), return_when=asyncio.FIRST_COMPLETED)
        finally:
            abandoned.cancel()

    def _too_late(self, life: asyncio.Task[None]) -> None:
        if not self._running and not any(place.task is not None for place in self._places):
            self.late = True
            life.cancel()  # it still opens: nothing is held
            self._timers.append(asyncio.get_running_loop().call_later(_GIVE_UP_AFTER, self._give_up, life))
            return
        if any(place.delivery is not None for place in self._places):
            self.late = True
        for place in self._places:
            if place.delivery is not None:
                place.cancel(Why.SHUTDOWN)
        loop = asyncio.get_running_loop()
        self._timers.append(loop.call_later(_ABANDON_AFTER, self._abandon))
        self._timers.append(loop.call_later(_GIVE_UP_AFTER, self._give_up, life))

    def _abandon(self) -> None:
        """What swallows its cancellation, or sits in a thread, keeps its delivery: the lease must run out on it."""
        for place in self._places:
            if place.delivery is not None:
                place.abandoned = True
                message = place.delivery.message
                where, which = one_line(message.topic), one_line(message.id)
                _log.error("%s %s does not end: abandoned, left to its lease", where, which)
        self._abandoned.set()

    def _give_up(self, life: asyncio.Task[None]) -> None:
        """The engine itself does not answer; nor may it to the next call, so this repeats until its life is over."""
        self.late = True
        life.cancel()
        self._timers.append(asyncio.get_running_loop().call_later(_GIVE_UP_EVERY, self._give_up, life))

    def _cancel_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()


def _place_in_source(delivery: Delivery) -> tuple[str, int]:
    position: Position | None = delivery.position
    return (position.source, position.value) if position is not None else ("", 0)
