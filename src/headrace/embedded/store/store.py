"""Store: the open files of one engine, their threads, and who may use them."""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import apsw

from headrace.core.clock import Clock
from headrace.core.errors import ClosedError, HeadraceError, UnsupportedError, UsageError
from headrace.embedded.advisories import Advisory
from headrace.embedded.errors import raise_translated, translated
from headrace.embedded.options import EmbeddedOptions
from headrace.embedded.store.checkpoints import close, open_both
from headrace.embedded.store.connections import Connections, Opened, let_go, untouched
from headrace.embedded.store.durations import Durations
from headrace.embedded.store.files import Turnstile
from headrace.embedded.store.locks import close_lock
from headrace.embedded.store.marks import Marks, close_last
from headrace.embedded.store.sql import LATEST_NS
from headrace.embedded.store.thread import DatabaseThread

__all__ = ["Store"]

T = TypeVar("T")


class Store:
    """The threads over the files: `streams` and `consumers` write one file each and read both, `reader` reads both.

    In ``:memory:`` all three are one thread over one connection; read-only there is only `reader`. All statements use
    unqualified table names, so that the same SQL runs everywhere.
    """

    streams: DatabaseThread
    consumers: DatabaseThread
    reader: DatabaseThread

    def __init__(self, path: Path | None, options: EmbeddedOptions, clock: Clock) -> None:
        self.path = path
        self.options = options
        self.clock = clock
        self.loop = asyncio.get_running_loop()
        self.member = secrets.randbits(62) + 1
        """Owner of this handle's leases."""
        self.on_commit_streams: list[Callable[[], None]] = []
        self.notify: Callable[[], None] = _nothing
        """Tells other processes that something was committed; the wake-up room sets it."""
        self.advise: Callable[[Advisory], None] = _ignored
        self.syncs = Durations()
        """Of streams.db: of each commit, or where commits are not synced of the syncs in between."""
        self.secure_delete = options.secure_delete
        """Whether what is deleted is overwritten in the file: decided when the store was made."""
        self.alone = False
        """Whether nobody had it open when this handle came, at `began_ns`."""
        self.began_ns = 0
        self.recovered = False
        """Whether the store was not closed cleanly before."""
        self.calls = self.errors = 0
        """Questions and orders of this handle, publishes and pulls not counted; those that were refused."""
        self.closed = False
        self.gates: dict[str, Turnstile] = {}
        self.marks: Marks | None = None
        """Set where commits are not synced: publishing covers by them what it gives out."""
        self._pid = os.getpid()
        self._thread = threading.get_ident()
        self._workers: ThreadPoolExecutor | None = None
        self._ending: asyncio.Task[None] | None = None
        self._alive = -1
        self._glass: apsw.Connection | None = None
        self._untouched = False

    @classmethod
    async def open(cls, path: str | os.PathLike[str], options: EmbeddedOptions, clock: Clock) -> Store:
        """Open or make the store; blocking work is done off the loop."""
        connections = Connections(path, options)
        began = clock.now_ns()
        clock.begin()
        worker = ThreadPoolExecutor(1, thread_name_prefix="headrace-open")
        try:
            work = asyncio.get_running_loop().run_in_executor(worker, connections.open)
            try:
                opened = await asyncio.shield(work)
            except asyncio.CancelledError:
                with suppress(Exception):
                    (await work).close()
                raise
        except Exception as error:  # noqa: BLE001  (translated)
            raise_translated(error, os.fspath(path))
        finally:
            worker.shutdown(wait=False)  # it is done: whatever was cancelled was waited for
            clock.end()
        store = cls(opened.path, options, clock)
        store.began_ns = began
        store._start(connections, opened)
        return store

    def _start(self, connections: Connections, opened: Opened) -> None:
        self.gates = opened.gates
        self.secure_delete = connections.secure_delete
        self.alone, self.recovered = opened.alone, opened.recovered
        self.marks = opened.marks
        self._alive, self._glass = opened.alive, opened.glass
        if opened.streams is None:
            assert opened.reader is not None  # noqa: S101  (read-only engines have a reader)
            self.reader = DatabaseThread("headrace-reader", opened.reader, self.clock, write=False)
            return
        self.streams = DatabaseThread(
            "headrace-streams",
            opened.streams,
            self.clock,
            gate=self.gates.get("streams"),
            patience=self.options.seconds("timeout"),
            on_commit=self._committed,
            recover=connections.recover_streams if opened.path else None,
        )
        if opened.path is not None and opened.marks is None:
            self.streams.syncs = self.syncs
        if opened.consumers is None or opened.reader is None:
            self.consumers = self.reader = self.streams
            return
        self.consumers = DatabaseThread(
            "headrace-consumers",
            opened.consumers,
            self.clock,
            gate=self.gates.get("consumers"),
            patience=self.options.seconds("timeout"),
            recover=connections.recover_consumers,
        )
        self.reader = DatabaseThread("headrace-reader", opened.reader, self.clock, write=False)

    def now_ns(self) -> int:
        """The wall clock: timestamps, ages, windows. It stands still at the last time that can be stored."""
        return min(self.clock.now_ns(), LATEST_NS)

    def boot_ns(self) -> int:
        """The clock of deadlines, the same for all processes of the machine."""
        return int(self.clock.monotonic() * 1e9)

    def check_usable(self) -> None:
        """``UsageError`` in another thread, loop or forked child; ``ClosedError`` after `aclose`."""
        if self.closed:
            raise ClosedError("the store was closed")
        if threading.get_ident() != self._thread or os.getpid() != self._pid:
            where = "a forked child" if os.getpid() != self._pid else "another thread"
            raise UsageError(f"the store was opened elsewhere and cannot be used in {where}: open it there")
        if asyncio.get_running_loop() is not self.loop:
            raise UsageError("the store was opened on another event loop: open it there")

    def check_writable(self) -> None:
        """`check_usable`, and ``UnsupportedError`` if it was opened read-only."""
        self.check_usable()
        if self.options.read_only:
            raise UnsupportedError("read_only: nothing can be written through this handle")

    @property
    def foreign(self) -> bool:
        """Whether this is a forked child, where every handle is dead."""
        return os.getpid() != self._pid

    def glance(self, function: Callable[[apsw.Connection], T]) -> T:
        """A short read on the loop. A directory has a connection for that, which no thread ever holds."""
        try:
            return self.streams.glance(function) if self._glass is None else function(self._glass)
        except apsw.Error as error:
            raise_translated(error, str(self.path))

    async def ask(self, thread: DatabaseThread, function: Callable[[apsw.Connection], T]) -> T:
        """`DatabaseThread.call`, counted."""
        self.calls += 1
        try:
            return await thread.call(function)
        except HeadraceError:
            self.errors += 1
            raise

    async def offload(self, function: Callable[[], T]) -> T:
        """Run blocking work (checkpoints, backups) on a thread of the store's own."""
        if self._workers is None:
            self._workers = ThreadPoolExecutor(2, thread_name_prefix="headrace-work")
        self.clock.begin()
        try:
            return await self.loop.run_in_executor(self._workers, function)
        except Exception as error:  # noqa: BLE001  (translated)
            raise_translated(error, str(self.path))
        finally:
            self.loop.call_soon(self.clock.end)

    def _committed(self) -> None:
        for callback in self.on_commit_streams:
            callback()

    def hurry(self) -> None:
        """Closing begins: from here on it takes at most ``timeout``, whoever holds a write lock."""
        for name in ("consumers", "streams"):
            if hasattr(self, name):
                getattr(self, name).hurry()

    async def leave_untouched(self) -> None:
        """It could not be opened after all: closing moves no log into its file."""
        self._untouched = True
        for name in ("streams", "consumers", "reader"):
            if hasattr(self, name):
                with suppress(HeadraceError):
                    await getattr(self, name).call(untouched)

    async def aclose(self) -> None:
        """Commit what was accepted, end the threads, close the files. Twice is fine; in a forked child nothing."""
        if self.foreign:
            return
        self.closed = True
        if self._ending is None:
            self._ending = self.loop.create_task(self._end())
        await asyncio.shield(self._ending)

    async def _end(self) -> None:
        failure: BaseException | None = None
        last: list[apsw.Connection] = []
        path = self.path
        ours = not (self.options.read_only or self._untouched) and all(gate.in_place() for gate in self.gates.values())
        if path is not None and ours:
            with suppress(HeadraceError):
                last = await self.offload(lambda: open_both(path))
        threads = ("reader", "consumers", "streams")
        for thread in dict.fromkeys(getattr(self, name) for name in threads if hasattr(self, name)):
            try:
                await thread.aclose()
            except Exception as error:  # noqa: BLE001  (the others are closed first)
                failure = error
        if self._glass is not None:
            let_go(self._glass)
        with suppress(HeadraceError):
            await self.offload(lambda: self._close_last(last))
        if self._workers is not None:
            self._workers.shutdown(wait=True)
        if self._alive >= 0:
            close_lock(self._alive)
        if failure is not None:
            raise translated(failure, str(self.path))

    def _close_last(self, last: list[apsw.Connection]) -> None:
        if self.marks is None or self.path is None or not last:
            close(last)
            return
        self.marks.close()
        if self.streams.broken is None:
            close_last(last, self.path, self._alive, self.options.seconds("timeout"))
        else:  # what a failed sync was to write may not be on disk: the marks stay
            close(last)


def _nothing() -> None:
    return


def _ignored(_: Advisory) -> None:
    return
