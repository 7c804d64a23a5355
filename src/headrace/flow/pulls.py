"""Pulls: one open pull per subscription, each for its share of the free places."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from headrace.core.broker import Subscription
from headrace.flow.attempt import Case
from headrace.flow.keyed import KeyedQueues
from headrace.flow.letter import one_line
from headrace.flow.place import Place
from headrace.flow.stats import Stats

__all__ = ["Pulls"]

_log = logging.getLogger("headrace.worker")
_WAIT = 30.0
_SAID_EVERY = 60.0


class Pulls:
    """The pulling side of one worker. `arm` starts the sweep."""

    def __init__(self, queues: KeyedQueues, stats: Stats, arm: Callable[[], None]) -> None:
        self._queues = queues
        self._stats = stats
        self._arm = arm
        self._tasks: list[asyncio.Task[None]] = []
        self._asked = 0
        self._open = 0
        self._is_full = False
        self._said_next = 0.0
        self._opened: asyncio.Event = asyncio.Event()

    def start(self, subscription: Subscription, ended: Callable[[asyncio.Task[None]], None]) -> None:
        """Pull from it from now on; `ended` is called when that ends, which only an error or `stop` does."""
        task = asyncio.create_task(self._pull(subscription), name="headrace-pull")
        task.add_done_callback(ended)
        self._tasks.append(task)

    def tell_opened(self) -> None:
        """Everything is open."""
        self._opened.set()

    async def wait_opened(self, life: asyncio.Task[None]) -> None:
        """Return once everything is open, or the worker has ended."""
        opened = asyncio.create_task(self._opened.wait())
        try:
            await asyncio.wait((opened, life), return_when=asyncio.FIRST_COMPLETED)
        finally:
            opened.cancel()

    async def emptied(self, life: asyncio.Task[None]) -> None:
        """Return once nothing is held, or the worker has ended."""
        await self.wait_opened(life)
        while self._queues.held and not life.done():
            empty = asyncio.create_task(self._queues.wait_for_room(0))
            try:
                await asyncio.wait((empty, life), return_when=asyncio.FIRST_COMPLETED)
            finally:
                empty.cancel()

    async def stop(self) -> None:
        """End the open pulls; what they had not handed over stays with the engine."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _pull(self, subscription: Subscription) -> None:
        queues, stats = self._queues, self._stats
        while True:
            limit = await self._places()
            self._asked += limit
            self._open += 1
            try:
                deliveries = await subscription.pull(limit, _WAIT)
            finally:
                self._asked -= limit
                self._open -= 1
            if deliveries:
                stats.pulled += len(deliveries)
                queues.add(deliveries)
                self._arm()
            if len(deliveries) < limit:
                queues.tell_room()

    async def _places(self) -> int:
        """Places for the next pull: its share of what is free and not asked for already.

        Waits until a quarter is free or nothing waits to start: a pull per freed place would cost as much as a message.
        """
        queues = self._queues
        quarter = max(1, queues.capacity // 4)
        while True:
            free = queues.capacity - queues.held - self._asked
            if free > 0 and (free >= quarter or not queues.has_ready):
                self._is_full = False
                return max(1, free // max(1, len(self._tasks) - self._open))
            await queues.wait_for_room(queues.capacity - self._asked - quarter)

    def full(self, places: Sequence[Place]) -> None:
        """A runner has nothing to do while every place is taken: counted once per episode, said once a minute."""
        if self._is_full:
            return
        self._is_full = True
        self._stats.full += 1
        now = asyncio.get_running_loop().time()
        if now >= self._said_next:
            self._said_next = now + _SAID_EVERY
            self._say_full(places)

    def _say_full(self, places: Sequence[Place]) -> None:
        """A head that failed is an error; one that runs is a slow handler, or fewer keys than places."""
        key, behind = self._queues.fullest()
        running = [place.delivery for place in places if place.delivery is not None]
        heads = [one for one in (*running, *self._queues.parked) if self._queues.key_of(one) == key]
        head = heads[0] if heads else None
        case = head.settlement.judge if head is not None else None
        _log.log(
            logging.ERROR if isinstance(case, Case) else logging.WARNING,
            "all %d places are taken and runners idle, %d times so far: %d wait behind %s %s (%s)",
            self._queues.capacity,
            self._stats.full,
            behind,
            one_line(head.message.topic) if head is not None else "-",
            one_line(head.message.id) if head is not None else "-",
            one_line(repr(case.error)) if isinstance(case, Case) else "running",
        )
