"""Forgetting: message ids older than their duplicate window go, in rounds off the publish path.

A round looks at every remembered id, a slice per transaction, whatever order the ids have; there is one per half window
as long as any id is left. So a table holds the ids of one and a half windows, and what came during a round.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial

import apsw

from headrace.core.errors import HeadraceError
from headrace.embedded.store.store import Store
from headrace.embedded.streams.catalog import StreamRecord, streams_all, window_ns
from headrace.embedded.streams.limits import forget_ids, has_ids

__all__ = ["Forgetting"]

LEAST_PAUSE = 0.05


class Forgetting:
    """The timer and the rounds of one engine."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._timer: asyncio.TimerHandle | None = None
        self._round: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look after what was remembered before."""
        self._again(await self._store.reader.call(half_window))

    def due(self, when: int) -> None:
        """Ids were stored that may be forgotten at `when` (nanoseconds UTC)."""
        if self._timer is None and self._round is None:
            self._arm((when - self._store.now_ns()) / 1e9)

    async def aclose(self) -> None:
        """No more rounds; the transaction on its way ends first."""
        if self._timer is not None:
            self._timer.cancel()
        if self._round is not None:
            self._round.cancel()
            await asyncio.wait([self._round])

    def _arm(self, delay: float) -> None:
        self._timer = self._store.loop.call_later(max(delay, LEAST_PAUSE), self._begin)

    def _begin(self) -> None:
        self._timer = None
        if not self._store.closed:
            self._round = self._store.loop.create_task(self._go_round())

    async def _go_round(self) -> None:
        pause: float | None = LEAST_PAUSE
        try:
            with suppress(HeadraceError):  # a full disk or a closing store: the next round, or the next opening
                for record in await self._store.reader.call(streams_all):
                    await self._forget(record)
                pause = await self._store.reader.call(half_window)
        finally:
            self._round = None
        self._again(pause)

    async def _forget(self, record: StreamRecord) -> None:
        after: str | None = ""
        while after is not None:
            step = partial(forget_ids, record=record, now=self._store.now_ns(), after=after)
            after = await self._store.streams.call(step)

    def _again(self, pause: float | None) -> None:
        if pause is not None and self._timer is None and not self._store.closed:
            self._arm(pause)


def half_window(connection: apsw.Connection) -> float | None:
    """Half of the shortest window, in seconds, of the streams that remember an id; ``None``: none does."""
    windows = [window_ns(record.config) for record in streams_all(connection) if has_ids(connection, record)]
    return min(windows) / 2e9 if windows else None
