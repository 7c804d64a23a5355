"""DatabaseThread: one thread that owns one SQLite connection and commits in groups."""

from __future__ import annotations

import asyncio
import logging
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar, cast

import apsw

from headrace.core.clock import Clock
from headrace.core.errors import ClosedError, HeadraceError
from headrace.embedded.errors import StoreLockedError, SyncFailedError, translated
from headrace.embedded.store.durations import Durations
from headrace.embedded.store.job import Call, Job

__all__ = ["DatabaseThread", "WriteGate"]

T = TypeVar("T")
logger = logging.getLogger(__name__)
MAX_JOBS = 10_000
MAX_WEIGHT = 8 * 1024 * 1024
LOOK_AGAIN = 0.05
_FATAL = (apsw.IOError, apsw.CantOpenError)


class WriteGate(Protocol):
    """Lets the processes of one directory write in turn: SQLite's own busy handler is not fair."""

    def enter(self) -> None:
        """Wait for this process's turn."""
        ...

    def leave(self) -> None:
        """Let the next one in."""
        ...

    def holder(self) -> int | None:
        """The process that is in."""
        ...

    def close(self) -> None:
        """Nobody enters any more."""
        ...


class DatabaseThread:
    """One thread, one connection: everything waiting when it wakes becomes one transaction, and one loop callback.

    ``write=False``: jobs run in a read transaction each. ``on_commit`` is called on the loop after the jobs of a commit
    were answered. ``recover`` (on the thread) may replace the connection after a failed write or commit.

    A process that is stopped inside the ``gate`` keeps all others out. The wait for it is the kernel's and cannot be
    broken off, so the loop looks after it: jobs that wait ``patience`` seconds while nothing moves fail with
    ``StoreLockedError``, and closing leaves such a thread to itself: it ends when it gets through.
    """

    syncs: Durations | None = None
    """How long commits took, their sync included; set where they are synced."""
    _outside = False
    """Whether it waits for its turn to write."""
    _abandoned = False
    _moved = 0.0
    _watch: asyncio.TimerHandle | None = None
    _leaving: asyncio.TimerHandle | None = None

    def __init__(
        self,
        name: str,
        connection: apsw.Connection,
        clock: Clock,
        *,
        write: bool = True,
        gate: WriteGate | None = None,
        patience: float = 30.0,
        on_commit: Callable[[], None] | None = None,
        recover: Callable[[apsw.Connection, BaseException], apsw.Connection] | None = None,
    ) -> None:
        self.on_rollback: Callable[[], None] | None = None
        """Called on the thread after a rollback: what was learnt inside that transaction never was."""
        self.on_broken: Callable[[BaseException], None] | None = None
        """Called on the loop once when the file failed, `on_mended` once when it works again."""
        self.on_mended: Callable[[], None] | None = None
        self.last_commit = 0.0
        self.broken: BaseException | None = None
        self.connection = connection
        self.commits = 0
        """Those that wrote something."""
        self._loop = asyncio.get_running_loop()
        self._clock = clock
        self._begin = "BEGIN IMMEDIATE" if write else "BEGIN"
        self._gate = gate
        self._patience = patience
        self._at_work = threading.Lock()
        """Held while jobs are taken and run: the loop must neither take them back then, nor use the connection."""
        self._on_commit = on_commit
        self._recover = recover
        self._jobs: deque[Job] = deque()
        self._wake: SimpleQueue[None] = SimpleQueue()
        """What the thread sleeps on; a semaphore costs ten times as much."""
        self._idle = True
        self._busy = 0
        self._closing = False
        self._closed = self._loop.create_future()
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Hand a job over (on the loop). Whether it ends is told by its `done` or `failed`, always."""
        if self._closing:
            raise ClosedError("the store was closed")
        self._jobs.append(job)
        self._busy += 1
        if self._busy == 1:
            self._clock.begin()
            if self._gate is not None:
                self._look_after()
        if self._abandoned:
            self._loop.call_soon(self._refuse)
        elif self._idle:
            self._idle = False
            self._wake.put(None)

    async def call(self, function: Callable[[apsw.Connection], T]) -> T:
        """Run a function of the connection in a transaction; its result once that is committed."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self.submit(Call(function, future))
        return cast("T", await future)

    def glance(self, function: Callable[[apsw.Connection], T]) -> T:
        """A short read on the loop, between two groups of jobs."""
        with self._at_work:
            return function(self.connection)

    async def distrust(self, error: BaseException) -> bool:
        """A sync of its file failed elsewhere: what that was to write may never be on disk, and hides all behind it.

        So the file is reopened and rewritten before the next commit. Whether that is done already.
        """
        with suppress(HeadraceError):
            await self.call(partial(_fail, str(error)))
        return self.broken is None

    def hurry(self) -> None:
        """The store is being closed: all that still comes waits at most ``patience`` in all."""
        if self._gate is not None and self._leaving is None:
            self._leaving = self._loop.call_later(self._patience, self._abandon)

    async def aclose(self) -> None:
        """Commit what was accepted, close the connection, end the thread. Twice is fine."""
        if not self._closing:
            self._closing = True
            self._clock.begin()
            self._wake.put(None)
            if self._abandoned:
                self._end()
            self.hurry()
        await asyncio.shield(self._closed)

    def _look_after(self) -> None:
        """From now on it has to move within ``patience``."""
        self._moved = self._loop.time()
        if self._watch is None:
            self._watch = self._loop.call_later(self._patience, self._look)

    def _look(self) -> None:
        self._watch = None
        if self._busy and not self._closed.done():
            left = self._moved + self._patience - self._loop.time()
            if left <= 0:
                self._refuse()
            self._watch = self._loop.call_later(left if left > 0 else self._patience, self._look)

    def _refuse(self) -> None:
        """Take back what waits, unless it is being worked at."""
        if not self._abandoned and not (self._outside and self._at_work.acquire(blocking=False)):
            return
        jobs = list(self._jobs)
        self._jobs.clear()
        if not self._abandoned:
            self._at_work.release()
        if jobs:
            holder = None if self._gate is None else self._gate.holder()
            who = f"process {holder} has" if holder else "another process has"
            error = StoreLockedError(f"{who} had the write lock for {self._patience:g} s; is it stopped?")
            self._answer([(job, error) for job in jobs])

    def _abandon(self) -> None:
        """Closing takes too long: where it waits outside, it is left there."""
        if self._closed.done():
            return
        if not (self._outside and self._at_work.acquire(blocking=False)):
            self._leaving = self._loop.call_later(LOOK_AGAIN, self._abandon)
            return
        self._abandoned = True
        self._at_work.release()
        self._refuse()
        if self._closing:
            self._end()

    def _main(self) -> None:
        while not self._abandoned:
            self._wake.get()
            sleeps = False
            while self._jobs and not (sleeps or self._abandoned):
                group = self._commit_group()
                sleeps = not (self._jobs or self._closing)
                self._loop.call_soon_threadsafe(self._answer_last if sleeps else self._answer, group)
            if self._abandoned or (self._closing and not self._jobs):
                break
            if not sleeps:
                self._loop.call_soon_threadsafe(self._rest)
        # What closing may fail at (an attached read-only file cannot be locked to carry its log over) loses
        # nothing that was acknowledged: that was in its commit.
        with suppress(apsw.Error):
            self.connection.close()
        if self._gate is not None:
            self._gate.close()
        if not self._abandoned:
            self._loop.call_soon_threadsafe(self._ended)

    def _rest(self) -> None:
        """On the loop: sleep unless something came meanwhile (only the loop adds jobs, so nothing slips between)."""
        if self._jobs:
            self._wake.put(None)
        else:
            self._idle = True

    def _commit_group(self) -> list[tuple[Job, BaseException | None]]:
        """Run what waits in one transaction: the jobs, and what each failed with."""
        group: list[tuple[Job, BaseException | None]] = []
        try:
            if self.broken is not None:
                self._mend(self.broken)
            with self._turn():
                if self._abandoned or not self._jobs:
                    return group  # taken back meanwhile
                # Those that wait before it begins: who comes later may build on what was committed to the other file
                # since, and this transaction sees that file as it was.
                waiting = min(len(self._jobs), MAX_JOBS)
                self.connection.execute(self._begin)
                changes = self.connection.total_changes()
                self._run_jobs(group, waiting)
                self._commit(wrote=self.connection.total_changes() != changes)
        except BaseException as error:  # noqa: BLE001  (a job that is not answered would hang its caller for ever)
            traceback.clear_frames(error.__traceback__)
            self._take_all(group)
            group = [(job, translated(failure or error)) for job, failure in group]
            for job, _ in group:
                job.undone()
            self._roll_back(error)
        return group

    @contextmanager
    def _turn(self) -> Generator[None]:
        """This process's turn to write."""
        if self._gate is None:
            with self._at_work:
                yield
            return
        self._outside = True
        self._gate.enter()
        try:
            with self._at_work:
                self._outside = False
                yield
        finally:
            self._outside = False
            self._gate.leave()

    def _commit(self, *, wrote: bool) -> None:
        started = self._clock.monotonic()
        self.connection.execute("COMMIT")
        self.commits += wrote
        if wrote and self.syncs is not None:
            self.syncs.add(self._clock.monotonic() - started)

    def _run_jobs(self, group: list[tuple[Job, BaseException | None]], waiting: int) -> None:
        weight = 0
        while len(group) < waiting and (not group or weight + self._jobs[0].weight <= MAX_WEIGHT):
            job = self._jobs.popleft()
            weight += job.weight
            if not job.isolated:
                group.append((job, None))
                job.run(self.connection)
                continue
            self.connection.execute("SAVEPOINT job")
            try:
                job.run(self.connection)
            except Exception as error:
                # a statement in a frame of it would keep its read lock for as long as somebody keeps the error
                traceback.clear_frames(error.__traceback__)
                group.append((job, translated(error)))
                if isinstance(error, _FATAL):
                    raise  # the file failed, not the job
                self.connection.execute("ROLLBACK TO job")
                if self.on_rollback is not None:
                    self.on_rollback()
            else:
                group.append((job, None))
            self.connection.execute("RELEASE job")

    def _take_all(self, group: list[tuple[Job, BaseException | None]]) -> None:
        """Who was not reached fails too, but certainly left nothing behind: only when not even the first was."""
        if not group:
            while self._jobs:
                group.append((self._jobs.popleft(), None))

    def _roll_back(self, error: BaseException) -> None:
        with suppress(apsw.Error), self._at_work:  # a connection beyond help is replaced below
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
        if self.on_rollback is not None:
            self.on_rollback()
        if self.broken is None and isinstance(error, _FATAL):
            self.broken = error
            if self.on_broken is not None:
                self._loop.call_soon_threadsafe(self.on_broken, translated(error))
            with suppress(SyncFailedError):
                self._mend(error)

    def _mend(self, error: BaseException) -> None:
        """Nothing is committed on a file that failed until it was reopened and rewritten by a full checkpoint."""
        if self._recover is None:
            self.broken = None
            return
        try:
            self.connection = self._recover(self.connection, error)
        except Exception as failure:  # noqa: BLE001  (tried again before the next commit)
            raise SyncFailedError(f"the store failed, not reopened yet: {failure}", unknown=False) from error
        self.broken = None
        if self.on_mended is not None:
            self._loop.call_soon_threadsafe(self.on_mended)

    def _answer_last(self, group: list[tuple[Job, BaseException | None]]) -> None:
        """The thread has gone to sleep behind these: one wake-up of the loop for both."""
        self._answer(group)
        self._rest()

    def _answer(self, group: list[tuple[Job, BaseException | None]]) -> None:
        for job, error in group:
            try:
                if error is None:
                    job.done()
                else:
                    job.failed(error)
            except Exception:
                logger.exception("%s: answering a job failed", self._thread.name)
        if self._on_commit is not None and not all(job.quiet for job, _ in group):
            try:
                self._on_commit()
            except Exception:
                logger.exception("%s: what follows a commit failed", self._thread.name)
        self._moved = self._loop.time()
        self._busy -= len(group)
        if not self._busy:
            # What was just answered runs in this turn's callbacks; time may jump only after them.
            self._loop.call_soon(self._clock.end)

    def _ended(self) -> None:
        self._thread.join()
        self._end()

    def _end(self) -> None:
        for timer in (self._watch, self._leaving):
            if timer is not None:
                timer.cancel()
        self._clock.end()
        self._closed.set_result(None)


def _fail(reason: str, _: apsw.Connection) -> None:
    raise apsw.IOError(reason)
