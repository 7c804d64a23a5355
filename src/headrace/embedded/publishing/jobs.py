"""The jobs of publishing: what the writer runs in its transaction, and who is answered after the commit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator
from typing import Any, Protocol

import apsw

from headrace.core.clock import Clock
from headrace.core.errors import Fault, PublishError, PublishTimeoutError
from headrace.embedded.errors import DiskFullError, publish_error
from headrace.embedded.publishing.batch import Batch
from headrace.embedded.publishing.run import Entry, Result, Routes
from headrace.embedded.store.job import Job
from headrace.streams.config import StreamMessage, StreamPublishOptions
from headrace.streams.errors import NoStreamResponseError
from headrace.streams.info import PubAck

__all__ = ["Desk", "ManyJob", "Pending", "PublishJob", "Waiter", "full_disk", "late"]

logger = logging.getLogger(__name__)
WEIGHT = 839
"""So that a transaction of 8 MiB holds at most 10,000 messages."""


class Waiter(Protocol):
    """Who waits for one answer: a future, or a `Pending`."""

    def cancelled(self) -> bool:
        """Whether nobody wants it any more: then it is not stored."""
        ...

    def done(self) -> bool:
        """Whether it was answered."""
        ...

    def set_result(self, result: PubAck, /) -> None:
        """Answer it."""
        ...

    def set_exception(self, exception: BaseException, /) -> None:
        """Answer it."""
        ...


class Desk(Protocol):
    """What jobs ask of the publisher."""

    routes: Routes
    on_disk_full: Callable[[], None]

    @property
    def store(self) -> Any:
        """The store."""
        ...

    def taken_back(self, job: PublishJob) -> None:
        """A job was answered."""
        ...

    def answered(self) -> None:
        """One async publish was answered."""
        ...

    def again(self, pending: Pending) -> None:
        """Try once more."""
        ...


def late(holder: int | None = None) -> PublishTimeoutError:
    """The error of a publish that got no answer in time."""
    who = "" if holder is None else f"; process {holder} has the write lock"
    return PublishTimeoutError(f"no commit in time{who}; the message may be stored")


def full_disk(msg_id: str | None) -> PublishError:
    """The error of a publish that is refused because the disk is full."""
    cause = DiskFullError("the disk is full; purge something or make room")
    made = PublishError(f"not published: {cause}", message_id=msg_id, fault=Fault.UNAVAILABLE)
    made.__cause__ = cause
    return made


class PublishJob(Job):
    """The single publishes of one turn of the loop."""

    isolated = False

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.clock: Clock = desk.store.clock
        self.weight = self.size = 0
        self.entries: list[Entry] = []
        self.waiters: list[Waiter] = []
        self.results: list[Result] = []
        self.failed_keys: set[bytes] = set()
        self.timer: asyncio.TimerHandle | None = None
        self.overdue = False
        self.earliest: int | None = None
        self.forget: int | None = None
        """When the first of its messages goes."""
        self.stored = self.bytes = 0
        """Messages and bytes, as the stream counts them."""

    def start(self, timeout: float) -> None:
        """Called as it is handed over."""
        self.weight = max(self.size, WEIGHT * len(self.entries))
        self.timer = self.desk.store.loop.call_later(timeout, self._late)

    def run(self, connection: apsw.Connection) -> None:
        """Store what somebody still waits for."""
        if self.overdue:
            return
        if any(waiter.cancelled() for waiter in self.waiters):
            kept = [pair for pair in zip(self.entries, self.waiters, strict=True) if not pair[1].cancelled()]
            self.entries, self.waiters = [pair[0] for pair in kept], [pair[1] for pair in kept]
        self._store(connection)

    def _store(self, connection: apsw.Connection) -> None:
        batch = Batch(connection, self.desk.routes, self.clock.now_ns(), self.failed_keys)
        batch.store(self.entries, self.results)
        self._judge(batch)
        batch.flush()
        self.earliest, self.forget = batch.earliest, batch.forget
        self.stored, self.bytes = batch.stored, batch.bytes
        self._cover()

    def _judge(self, batch: Batch) -> None:
        """Whether all of it may be stored. Single messages fail alone."""

    def _cover(self) -> None:
        """Where commits are not synced, what was given out stands below a mark that is."""
        marks, routes = self.desk.store.marks, self.desk.routes
        if marks is not None:
            for run in routes.runs.values():
                if run.serial == routes.serial:
                    marks.cover(run.record.id, run.seq)

    def done(self) -> None:
        """Answer everybody."""
        self._end()
        for waiter, result in zip(self.waiters, self.results, strict=not self.overdue):
            if waiter.done():
                continue
            if isinstance(result, PubAck):
                waiter.set_result(result)
            else:
                waiter.set_exception(result)

    def failed(self, error: BaseException) -> None:
        """Tell everybody; each gets an exception of their own."""
        if isinstance(error, DiskFullError):
            self.desk.on_disk_full()
        self._forget()
        for entry, waiter in zip(self.entries, self.waiters, strict=True):
            if not waiter.done():
                waiter.set_exception(publish_error(error, entry.msg_id))

    def _forget(self) -> None:
        self.earliest, self.forget, self.stored, self.bytes = None, None, 0, 0
        self._end()

    def _end(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self.desk.taken_back(self)

    def _late(self) -> None:
        self.overdue = True
        gate = self.desk.store.gates.get("streams")
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_exception(late(gate and gate.holder()))


class ManyJob(PublishJob):
    """A part of one `publish_many`: one answer for all of it."""

    def __init__(self, desk: Desk, entries: list[Entry], size: int, failed_keys: set[bytes]) -> None:
        super().__init__(desk)
        self.entries = entries
        self.size = size
        self.failed_keys = failed_keys
        self.future: asyncio.Future[list[Result]] = desk.store.loop.create_future()

    def run(self, connection: apsw.Connection) -> None:
        """Store them unless nobody waits any more."""
        if self.overdue or self.future.cancelled():
            self.undone()
        else:
            self._store(connection)

    def undone(self) -> None:
        """Nothing of their keys is stored behind them: the next part may run before the loop hears of this one."""
        self.failed_keys.update(entry.order_key for entry in self.entries if entry.order_key is not None)

    def done(self) -> None:
        """Answer."""
        self._end()
        if not self.future.done():
            self.future.set_result(self.results)

    def failed(self, error: BaseException) -> None:
        """Each item failed."""
        if isinstance(error, DiskFullError):
            self.desk.on_disk_full()
        self._forget()
        self._fail_all(lambda entry: publish_error(error, entry.msg_id))

    def _fail_all(self, make: Callable[[Entry], BaseException]) -> None:
        self.undone()
        if self.future.done():
            return
        errors = [make(entry) for entry in self.entries]
        self.future.set_result([each if isinstance(each, PublishError) else _wrapped(each) for each in errors])

    def _late(self) -> None:
        self.overdue = True
        gate = self.desk.store.gates.get("streams")
        self._fail_all(lambda _: late(gate and gate.holder()))


def _wrapped(error: BaseException) -> PublishError:
    made = PublishError(f"not published: {error}", fault=Fault.UNAVAILABLE)
    made.__cause__ = error
    return made


class Pending:
    """The coming answer to one `publish_async`."""

    def __init__(self, desk: Desk, message: StreamMessage, entry: Entry, options: StreamPublishOptions | None) -> None:
        self._desk = desk
        self._message = message
        self.entry = entry
        self._options = options or StreamPublishOptions()
        self._attempts = 0
        self._result: PubAck | None = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[Any], None]] = []
        self._waiters: list[asyncio.Future[None]] = []
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """It was handed over: its time runs, where it has one of its own."""
        timeout: Any = self._options.timeout
        if timeout is not None:
            self._timer = self._desk.store.loop.call_later(timeout.total_seconds(), self._late)

    def _late(self) -> None:
        if not self.done():
            self.finish(late())

    @property
    def message(self) -> StreamMessage:
        """What was published."""
        return self._message

    def done(self) -> bool:
        """Whether the answer is there."""
        return self._result is not None or self._error is not None

    def cancelled(self) -> bool:
        """Never: who stops waiting does not take the message back."""
        return False

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call it with this future once the answer is there."""
        if self.done():
            self._desk.store.loop.call_soon(callback, self)
        else:
            self._callbacks.append(callback)

    def __await__(self) -> Generator[Any, None, PubAck]:
        if not self.done():
            waiter: asyncio.Future[None] = self._desk.store.loop.create_future()
            self._waiters.append(waiter)
            yield from waiter
        if self._error is not None:
            raise self._error
        assert self._result is not None  # noqa: S101  (done and no error)
        return self._result

    def set_result(self, result: PubAck, /) -> None:
        """It is stored."""
        self._result = result
        self._tell()

    def set_exception(self, exception: BaseException, /) -> None:
        """It failed; where no stream covers it, it is tried again: another process may be making one."""
        options = self._options
        if isinstance(exception, NoStreamResponseError) and self._attempts < options.retry_attempts:
            self._attempts += 1
            wait: Any = options.retry_wait
            self._desk.store.loop.call_later(wait.total_seconds(), self._desk.again, self)
            return
        self.finish(exception)

    def finish(self, error: BaseException) -> None:
        """It failed for good."""
        self._error = error
        self._tell()
        callback = self._desk.store.options.on_publish_error
        if callback is None:
            logger.error("publish to %s failed: %s", self._message.subject, error)
        elif isinstance(error, PublishError):
            try:
                callback(self._message, error)
            except Exception:
                logger.exception("on_publish_error failed for %s", self._message.subject)

    def _tell(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._desk.answered()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        for callback in self._callbacks:
            self._desk.store.loop.call_soon(callback, self)
