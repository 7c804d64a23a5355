"""Maintenance: what has to be done now and then, off the commit path: expiry, checkpoints, the reserve, syncs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw

from headrace.core.errors import HeadraceError
from headrace.embedded import advisories
from headrace.embedded.errors import SyncFailedError
from headrace.embedded.options import Durability
from headrace.embedded.store.checkpoints import checkpoint, sync_log, unused_bytes
from headrace.embedded.store.files import CONSUMERS_FILE, RESERVE, STREAMS_FILE, reserve
from headrace.embedded.store.store import Store
from headrace.embedded.streams.catalog import streams_all
from headrace.embedded.streams.limits import BATCH, expire
from headrace.streams.msg import time_of_ns

__all__ = ["Maintenance"]

LEAST_PAUSE = 0.05
IDLE = 0.25


class Maintenance:
    """Timers of one engine. Each is asked for by what makes it necessary; an idle engine has none but expiry."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.full = False
        """Whether the disk is full: publishes are refused until there is space again."""
        self.tell_full: Callable[[bool], object] = bool
        self._sweep: asyncio.TimerHandle | None = None
        self._sweep_at = 0
        self._checkpoint: asyncio.TimerHandle | None = None
        self._sync: asyncio.TimerHandle | None = None
        self._space: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self.relaxed = store.options.durability is Durability.RELAXED and store.path is not None

    def start(self) -> None:
        """From here on it looks after itself."""
        self.store.on_commit_streams.append(self.committed)
        self.plan_sweep()

    def committed(self) -> None:
        """After each commit, on the loop."""
        if self.store.path is None:
            return
        if self._checkpoint is None:
            self._checkpoint = self.store.loop.call_later(IDLE, self._run_checkpoint)
        if self.relaxed and self._sync is None:
            window = self.store.options.seconds("relaxed_window")
            self._sync = self.store.loop.call_later(window / 2, self._run_sync)

    def plan_sweep(self) -> None:
        """Something may expire earlier than was known."""
        self.spawn(self._sweep_once())

    def expires_at(self, expires: int) -> None:
        """A message was stored that goes then."""
        if self._sweep is None or expires < self._sweep_at:
            self._arm(expires)

    def _arm(self, expires: int) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
        self._sweep_at = expires
        wait = max((expires - self.store.now_ns()) / 1e9, 0.0) + LEAST_PAUSE
        self._sweep = self.store.loop.call_later(min(wait, 3600.0), self._swept)

    def _swept(self) -> None:
        self._sweep = None
        self.plan_sweep()

    async def _sweep_once(self) -> None:
        with suppress(HeadraceError):
            following = await self.store.streams.call(lambda connection: sweep(connection, self.store.now_ns()))
            if following is not None and not self.store.closed:
                self._arm(following)

    def _run_checkpoint(self) -> None:
        self._checkpoint = None
        self.spawn(self._checkpoint_both())

    async def _checkpoint_both(self) -> None:
        path = self.store.path
        if path is not None:
            if _free(path) < self.store.options.reserve_bytes:
                self.disk_full()
            try:
                await self.store.offload(lambda: checkpoint(path))
            except SyncFailedError as error:
                await self._distrust(error)
            except (HeadraceError, RuntimeError):
                pass  # blocked, or closing: the next one does it

    def _run_sync(self) -> None:
        self._sync = None
        self.spawn(self._sync_in_time())

    async def _sync_in_time(self) -> None:
        with suppress(HeadraceError):
            await self.sync()

    async def sync(self) -> None:
        """What was committed is on disk. A sync that fails is not believed when it is repeated."""
        path = self.store.path
        if path is not None:
            started = self.store.clock.monotonic()
            try:
                await self.store.offload(lambda: sync_logs(path))
            except HeadraceError as error:
                await self._distrust(error)
                raise
            if self.relaxed:
                self.store.syncs.add(self.store.clock.monotonic() - started)

    async def _distrust(self, error: HeadraceError) -> None:
        for thread in (self.store.streams, self.store.consumers):
            await thread.distrust(error)

    def disk_full(self) -> None:
        """The disk is full: give the reserve back, so that what deletes can work; look for space every second."""
        path = self.store.path
        if self.full or path is None:
            return
        self.full = True
        self.tell_full(True)
        free = _free(path)
        with suppress(OSError):
            (path / RESERVE).unlink(missing_ok=True)
        self.store.advise(advisories.DiskFull(bytes_free=free, time=time_of_ns(self.store.now_ns())))
        if self._space is None or self._space.when() < self.store.loop.time():
            self._space = self.store.loop.call_later(1.0, self._look_for_space)

    async def make_room(self) -> None:
        """On a full disk: give the reserve back, and empty the logs so that they are written over."""
        path = self.store.path
        if path is not None:
            self.disk_full()
            await self.store.offload(lambda: checkpoint(path))

    def _look_for_space(self) -> None:
        self.spawn(self._look())

    async def _look(self) -> None:
        """Publish again once twice the reserve is free, on the disk or inside the file; make the reserve again."""
        path = self.store.path
        assert path is not None  # noqa: S101  (only files can be full)
        size = self.store.options.reserve_bytes
        with suppress(HeadraceError):
            unused = await self.store.offload(lambda: unused_bytes(path))
            if self.full and _free(path) + unused >= 2 * size:
                self.full = False
                self.tell_full(False)
                self.store.advise(advisories.DiskRecovered(time=time_of_ns(self.store.now_ns())))
        if not self.full and _free(path) >= 2 * size:
            with suppress(OSError):
                reserve(path, size)
                return
        if not self.store.closed:
            self._space = self.store.loop.call_later(1.0, self._look_for_space)

    def spawn(self, work: Any) -> None:
        """Run it beside everything else; `aclose` waits for it."""
        if self.store.closed:
            work.close()
            return
        task: asyncio.Task[Any] = self.store.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Stop all timers; wait for what is running."""
        for handle in (self._sweep, self._checkpoint, self._sync, self._space):
            if handle is not None:
                handle.cancel()
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)


def sweep(connection: apsw.Connection, now: int) -> int | None:
    """Delete a batch of what has expired; when the next message expires."""
    following: int | None = None
    for record in streams_all(connection):
        expire(connection, record, now, BATCH)
        sql = f"SELECT min(expires) FROM msg_{record.id} WHERE expires IS NOT NULL"
        (first,) = connection.execute(sql).fetchone() or (None,)
        if first is not None and (following is None or first < following):
            following = int(first)
    return following


def sync_logs(path: Path) -> None:
    """Messages first: a position on disk is never ahead of them for want of a sync."""
    for name in (STREAMS_FILE, CONSUMERS_FILE):
        sync_log(path, name)


def _free(path: Path) -> int:
    try:
        found = os.statvfs(path)
    except OSError:
        return 0
    return found.f_bavail * found.f_frsize
