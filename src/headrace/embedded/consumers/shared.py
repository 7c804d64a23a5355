"""Shared: what all consumers of an opened store share: the store, who is parked, and what must follow a commit."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import Protocol

import apsw

from headrace.embedded.consumers.counts import num_ahead, num_pending, state_of
from headrace.embedded.consumers.followup import RemoveJob, Syncer
from headrace.embedded.consumers.retention import leftovers
from headrace.embedded.consumers.rows import Filter
from headrace.embedded.store.sql import one
from headrace.embedded.store.store import Store
from headrace.embedded.store.wake import Members
from headrace.embedded.streams.catalog import streams_all
from headrace.streams.session import PullSession

__all__ = ["Parked", "Shared"]


class Parked(Protocol):
    """A consumer with a parked pull."""

    id: int
    stream: str
    seen: int
    """Last sequence of the stream at the last claim."""

    def kick(self) -> None:
        """Something may have come."""
        ...


class Shared:
    """The ground under every place of this process."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.parked: set[Parked] = set()
        self.sessions: set[PullSession] = set()
        self.closing = False
        self.members: Members | None = None
        self.late_settles = 0
        self.next_queue: Callable[[], int] = itertools.count(1).__next__
        """Orders naks that fall due at the same time."""
        self._removals: set[RemoveJob] = set()
        self._syncer = Syncer(store)
        store.on_commit_streams.append(self._committed)

    async def join(self) -> None:
        """Join the other processes, and take over what dead ones held."""
        if self.store.path is not None:
            self.members = Members(self.store, self.wake)
            self.members.join()
            self.store.notify = self.members.notify
            await self.store.consumers.call(self.members.first_look)

    async def leave(self) -> None:
        """Leave the other processes. What was handed out and is not settled is left to its lease."""
        member = self.store.member

        def orphan(connection: apsw.Connection) -> None:
            for table in ("lease", "pending"):
                connection.execute(f"UPDATE {table} SET owner = 0 WHERE owner = ?", (member,))

        try:
            await self.store.consumers.call(orphan)
        finally:
            if self.members is not None:
                self.members.leave()

    async def repair(self) -> None:
        """Delete what no consumer of an interest or workqueue stream needs."""

        def find(connection: apsw.Connection) -> list[tuple[str, list[int]]]:
            return [(record.name, leftovers(connection, record.id)) for record in streams_all(connection)]

        for stream, sequences in await self.store.consumers.call(find):
            self.remove(stream, sequences)
        await self.removed()

    def wake(self) -> None:
        """Something may have come: look for every parked pull."""
        for place in list(self.parked):
            place.kick()

    def _committed(self) -> None:
        if self.store.path is None:
            # one thread for everything: claims commit here too, and must not wake themselves
            for place in list(self.parked):
                if self._last_of(place) != place.seen:
                    place.kick()
            return
        self.wake()
        self.store.notify()

    def _last_of(self, place: Parked) -> int:
        found = one(self.store.reader.connection, "SELECT last_seq FROM stream WHERE name = ?", (place.stream,))
        return -2 if found is None else int(found[0])

    def hand_over(self, connection: apsw.Connection) -> None:
        """What dead members held falls due (on the thread, before each claim)."""
        if self.members is not None:
            self.members.hand_over(connection)

    def remove(self, stream: str, sequences: Sequence[int]) -> None:
        """Delete settled messages; `removed` waits for it."""
        if sequences:
            job = RemoveJob(stream, sequences, self._removals)
            self.store.streams.submit(job)

    async def removed(self) -> None:
        """Wait until what was settled so far is deleted."""
        while self._removals:
            await self.store.streams.call(_nothing)

    def synced(self, waiters: list[asyncio.Future[None]]) -> None:
        """Resolve them once what was committed survives what the durability promises."""
        self._syncer.resolve(waiters)

    def count_between(self, stream: str, wanted: Filter, chosen: Sequence[int], low: int, high: int) -> int:
        """Matching live messages behind `low`, up to `high`. On the loop: asked for by plain functions, and seldom."""
        connection, wall = self.store.reader.connection, self.store.now_ns()
        row = one(connection, "SELECT id FROM stream WHERE name = ?", (stream,))
        state = state_of(connection, row[0]) if row else None
        if state is None:
            return 0
        ahead = num_ahead(connection, state, wanted, low, wall, chosen=chosen)
        return ahead - num_pending(connection, state, wanted, high, wall)


def _nothing(_: apsw.Connection) -> None:
    return
