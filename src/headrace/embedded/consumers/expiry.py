"""Expiry: consumers that nobody used for their inactive threshold go. Counted across processes and restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import apsw

from headrace.embedded.consumers.leftovers import leftovers
from headrace.embedded.consumers.reboot import note
from headrace.embedded.consumers.rows import drop
from headrace.embedded.consumers.shared import Shared
from headrace.embedded.store.job import Job
from headrace.embedded.store.sql import every

__all__ = ["Expiry"]

LOOK = 5.0
"""Longest time between two looks on a directory: other processes make consumers too, and may die."""


class Expiry:
    """Looks when the next consumer could be over its threshold."""

    def __init__(self, shared: Shared, dropped: Callable[[int, str, str, str], None]) -> None:
        self._shared = shared
        self._dropped = dropped
        self._timer: asyncio.TimerHandle | None = None
        self._looking = False
        shared.on_parked = self._parked

    async def start(self) -> None:
        """The first look."""
        self.look()

    def stop(self) -> None:
        """No more looks."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def watch(self, threshold: int | None) -> None:
        """There is a consumer with this threshold."""
        if threshold is not None:
            self._arm(threshold / 1e9)

    def _parked(self, threshold: int | None) -> None:
        """A pull uses this consumer from here on: look before another process, which sees none, could think it idle."""
        if threshold is not None:
            self.watch(threshold // 2)

    def _arm(self, delay: float) -> None:
        loop = self._shared.store.loop
        when = loop.time() + delay + 1e-6
        if self._shared.closing or (self._timer is not None and self._timer.when() <= when):
            return
        self.stop()
        self._timer = loop.call_later(delay + 1e-6, self.look)

    def look(self) -> None:
        """Delete what is over; those with a parked pull here are used."""
        self.stop()
        if self._looking or self._shared.closing or self._shared.store.closed:
            return
        self._looking = True
        used = [place.id for place in self._shared.parked]
        self._shared.store.consumers.submit(ExpiryJob(self._shared, self, used))

    def looked(self, found: list[tuple[int, int, str, str, list[int]]], delay: int | None) -> None:
        """A look is over."""
        self._looking = False
        for consumer_id, stream_id, stream, name, gone in found:
            self._shared.remove(stream_id, gone)
            self._dropped(consumer_id, stream, name, "inactive")
        wait = None if delay is None else max(0.0, delay / 1e9)
        if self._shared.store.path is not None:
            wait = LOOK if wait is None else min(wait, LOOK)
        if wait is not None:
            self._arm(wait)


class ExpiryJob(Job):
    """One look."""

    weight = 0
    isolated = True
    quiet = True

    def __init__(self, shared: Shared, expiry: Expiry, used: list[int]) -> None:
        self._shared = shared
        self._expiry = expiry
        self._used = used
        self.found: list[tuple[int, int, str, str, list[int]]] = []
        self.delay: int | None = None

    def run(self, connection: apsw.Connection) -> None:
        """Delete idle consumers; find out when the next may be due."""
        now = self._shared.store.boot_ns()
        note(connection, self._shared.store.now_ns(), now)
        rows = every(
            connection,
            "SELECT consumer.id, consumer.stream, stream.name, consumer.name, consumer.active, consumer.inactive "
            "FROM consumer JOIN stream ON stream.id = consumer.stream WHERE consumer.inactive IS NOT NULL",
        )
        for consumer_id, stream_id, stream, name, active, inactive in rows:
            if consumer_id in self._used:
                connection.execute("UPDATE consumer SET active = ? WHERE id = ?", (now, consumer_id))
                left = inactive // 2  # looked at twice per threshold, so that no other process thinks it idle
            else:
                left = active + inactive - now
            if left > 0:
                self.delay = left if self.delay is None else min(self.delay, left)
                continue
            drop(connection, consumer_id)
            self.found.append((consumer_id, stream_id, stream, name, leftovers(connection, stream_id)))

    def done(self) -> None:
        """Tell what went."""
        self._expiry.looked(self.found, self.delay)

    def failed(self, error: BaseException) -> None:
        """Look again later."""
        self._expiry.looked([], int(LOOK * 1e9))
