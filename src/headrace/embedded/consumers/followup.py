"""What follows a commit of acks: settled messages are deleted, and who asked for certainty waits for a sync."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import apsw

from headrace.embedded.consumers.retention import remove_settled
from headrace.embedded.errors import translated
from headrace.embedded.options import Durability
from headrace.embedded.store.checkpoints import sync_log
from headrace.embedded.store.files import CONSUMERS_FILE
from headrace.embedded.store.job import Job
from headrace.embedded.store.store import Store

__all__ = ["RemoveJob", "Syncer"]


class RemoveJob(Job):
    """Delete settled messages of an interest or workqueue stream (on the streams thread)."""

    weight = 0
    isolated = True

    def __init__(self, stream_id: int, sequences: Sequence[int], ended: Callable[[RemoveJob, bool], None]) -> None:
        self.stream_id = stream_id
        self.sequences = sequences
        self._ended = ended

    def run(self, connection: apsw.Connection) -> None:
        """Delete them."""
        remove_settled(connection, self.stream_id, self.sequences)

    def done(self) -> None:
        """They are gone."""
        self._ended(self, True)

    def failed(self, error: BaseException) -> None:
        """They are still there."""
        self._ended(self, False)


class Syncer:
    """Makes commits of consumers.db survive a power cut: its WAL is written at each commit, synced only on demand.

    Syncing it through a file of our own is safe: SQLite's locks are on the other files.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._path = store.path if store.options.durability is Durability.FSYNC else None
        self._waiting: list[asyncio.Future[None]] = []
        self._running = False
        self._mending: asyncio.Task[None] | None = None

    def resolve(self, waiters: list[asyncio.Future[None]]) -> None:
        """Resolve them after a sync that began after their commit; all that wait at once share one."""
        if self._path is None:
            _resolve(waiters, None)
            return
        self._waiting += waiters
        if not self._running:
            self._begin()

    def _begin(self) -> None:
        assert self._path is not None  # noqa: S101  (without one nobody waits)
        self._running = True
        waiters, self._waiting = self._waiting, []
        self._store.reader.submit(SyncJob(self, self._path, waiters))

    def ended(self, waiters: list[asyncio.Future[None]], error: BaseException | None) -> None:
        """A sync is over."""
        _resolve(waiters, error)
        if error is None:
            self._next()
        else:
            self._mending = self._store.loop.create_task(self._mend(error))

    async def _mend(self, error: BaseException) -> None:
        """Nobody is told that something is certain before the file was rewritten."""
        if not await self._store.consumers.distrust(error):
            waiters, self._waiting = self._waiting, []
            _resolve(waiters, error)
        self._next()

    def _next(self) -> None:
        self._running = False
        if self._waiting:
            self._begin()


class SyncJob(Job):
    """One sync, off the loop and off the writers."""

    weight = 0
    isolated = False

    def __init__(self, syncer: Syncer, path: Path, waiters: list[asyncio.Future[None]]) -> None:
        self._syncer = syncer
        self._path = path
        self._waiters = waiters

    def run(self, connection: apsw.Connection) -> None:
        """Sync it."""
        sync_log(self._path, CONSUMERS_FILE)

    def done(self) -> None:
        """Tell who waits."""
        self._syncer.ended(self._waiters, None)

    def failed(self, error: BaseException) -> None:
        """Tell who waits that it is not certain."""
        self._syncer.ended(self._waiters, translated(error))


def _resolve(waiters: list[asyncio.Future[None]], error: BaseException | None) -> None:
    for waiter in waiters:
        if waiter.done():
            continue
        if error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(error)
