"""Shared: what all consumers of an opened store share: the store, who is parked, and what must follow a commit."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import apsw

from headrace.embedded.consumers.counts import num_ahead, num_pending, state_of
from headrace.embedded.consumers.followup import RemoveJob, Syncer
from headrace.embedded.consumers.leftovers import leftovers
from headrace.embedded.consumers.retention import releases, unneeded
from headrace.embedded.consumers.rows import Filter
from headrace.embedded.store.sql import one
from headrace.embedded.store.store import Store
from headrace.embedded.store.wake import Members
from headrace.embedded.streams.catalog import streams_all
from headrace.streams.config import RetentionPolicy
from headrace.streams.session import PullSession

__all__ = ["RETRY", "Parked", "Shared"]

MOST_LEFTOVERS = 50_000
MOST_REMOVED = 5_000
RETRY = 1.0
"""Seconds until what could not be written is tried again."""


class Parked(Protocol):
    """A consumer with a parked pull."""

    id: int
    stream: str

    def kick(self) -> None:
        """Something may have come."""
        ...


class Shared:
    """The ground under every place of this process."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.parked: set[Parked] = set()
        self.sessions: dict[PullSession, None] = {}
        """In the order in which they were opened: so they hand back at the end."""
        self.on_parked: Callable[[int | None], None] = _unwatched
        """Called when a pull is parked, with its consumer's inactive threshold: expiry sets it."""
        self.closing = False
        self.members: Members | None = None
        self.late_settles = 0
        self.next_queue: Callable[[], int] = itertools.count(1).__next__
        """Orders naks that fall due at the same time."""
        self._removals: set[RemoveJob] = set()
        self._unremoved: dict[int, set[int]] = {}
        """What could not be deleted: stream id -> sequences. It is tried again."""
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

    async def repair(self, stream_id: int | None = None) -> None:
        """Delete what no consumer of this (or any) interest or workqueue stream needs.

        Looked for beside the writers, so that nobody's claims wait; whether each may go is asked again among them, as
        somebody may have made a consumer meanwhile that wants it.
        """
        records = await self.store.reader.call(streams_all)
        wanted = [record.id for record in records if record.config.retention is not RetentionPolicy.LIMITS]
        for each in wanted if stream_id is None else {stream_id}.intersection(wanted):
            after = 0
            while found := await self.store.reader.call(
                partial(leftovers, stream_id=each, after=after, most=MOST_LEFTOVERS)
            ):
                for place in range(0, len(found), MOST_REMOVED):
                    sure = partial(_still_unneeded, each, found[place : place + MOST_REMOVED])
                    self.remove(each, await self.store.consumers.call(sure))
                    await self.removed()
                after = found[-1]

    def wake(self) -> None:
        """Something may have come: look for every parked pull."""
        for place in list(self.parked):
            place.kick()

    def _committed(self) -> None:
        self.wake()
        self.store.notify()

    def hand_over(self, connection: apsw.Connection) -> None:
        """What dead members held falls due (on the thread, before each claim)."""
        if self.members is not None:
            self.members.hand_over(connection)

    def remove(self, stream_id: int, sequences: Sequence[int]) -> None:
        """Delete settled messages; `removed` waits for it."""
        if sequences:
            job = RemoveJob(stream_id, sequences, self._was_removed)
            self._removals.add(job)
            self.store.streams.submit(job)

    def _was_removed(self, job: RemoveJob, gone: bool) -> None:  # noqa: FBT001  (the one fact)
        self._removals.discard(job)
        if gone or self.closing:
            return  # what is left at the end is found by the repair at the next open
        if not self._unremoved:
            self.store.loop.call_later(RETRY, self._remove_again)
        self._unremoved.setdefault(job.stream_id, set()).update(job.sequences)

    def _remove_again(self) -> None:
        unremoved, self._unremoved = self._unremoved, {}
        if not self.closing and not self.store.closed:
            for stream_id, sequences in unremoved.items():
                self.remove(stream_id, sorted(sequences))

    async def removed(self) -> None:
        """Wait until what was settled so far is deleted."""
        while self._removals:
            await self.store.streams.call(_nothing)

    def synced(self, waiters: list[asyncio.Future[None]]) -> None:
        """Resolve them once what was committed survives what the durability promises."""
        self._syncer.resolve(waiters)

    def count_between(self, stream: str, wanted: Filter, chosen: Sequence[int], low: int, high: int) -> int:
        """Matching live messages behind `low`, up to `high`. On the loop: asked for by plain functions, and seldom."""
        wall = self.store.now_ns()

        def count(connection: apsw.Connection) -> int:
            row = one(connection, "SELECT id FROM stream WHERE name = ?", (stream,))
            state = state_of(connection, row[0]) if row else None
            if state is None:
                return 0
            ahead = num_ahead(connection, state, wanted, low, wall, chosen=chosen)
            return ahead - num_pending(connection, state, wanted, high, wall)

        return self.store.glance(count)


def _unwatched(_: int | None) -> None:
    return


def _still_unneeded(stream_id: int, sequences: Sequence[int], connection: apsw.Connection) -> list[int]:
    return unneeded(connection, stream_id, sequences) if releases(connection, stream_id) else []


def _nothing(_: apsw.Connection) -> None:
    return
