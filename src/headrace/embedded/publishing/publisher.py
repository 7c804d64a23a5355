"""Publisher: the loop's side of publishing. What one turn of the loop publishes becomes one job of the writer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta

from headrace.core.errors import BrokerTimeoutError, ClosedError
from headrace.core.headers import HeadersLike
from headrace.embedded.publishing.atomic import AtomicJob, Bundle
from headrace.embedded.publishing.entries import entry_of, size_of
from headrace.embedded.publishing.jobs import ManyJob, Pending, PublishJob, Waiter, full_disk, late
from headrace.embedded.publishing.run import Entry, Result, Routes
from headrace.embedded.store.store import Store
from headrace.streams.config import StreamMessage, StreamPublishOptions
from headrace.streams.errors import NoStreamResponseError, TooManyPendingError
from headrace.streams.info import PubAck
from headrace.streams.names import WireBlock

__all__ = ["Publisher"]

CHUNK_MESSAGES = 10_000
CHUNK_BYTES = 8 * 1024 * 1024
_DEFAULT = StreamPublishOptions()


class Publisher:
    """Takes messages, hands them to the writer of streams.db, and answers."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.routes = Routes()
        self.pending_bytes = 0
        self.outstanding = 0
        """Answers of `publish_async` that are not there yet."""
        self.messages = self.bytes = 0
        """Stored through this handle, as the streams count them."""
        self.on_expiry: Callable[[int], None] = _nothing
        """Told when the first message of a commit expires; the room sets it."""
        self.on_ids: Callable[[int], None] = _nothing
        """Told when the ids of a commit may be forgotten; the room sets it."""
        self.on_disk_full: Callable[[], None] = _nothing
        """Told when a commit found the disk full; the room sets it."""
        self.disk_full = False
        options = store.options
        self._most_bytes = options.max_pending_bytes
        self._most_outstanding = options.max_pending
        self._timeout = options.seconds("timeout")
        self._stall = self._timeout if options.stall_wait is None else options.seconds("stall_wait")
        self._open: PublishJob | None = None
        self._room: deque[asyncio.Future[None]] = deque()
        self._slots: deque[asyncio.Future[None]] = deque()
        self._promised = 0
        """Slots of those who were woken and have not run yet."""
        self._none_outstanding: asyncio.Event = asyncio.Event()
        self._none_outstanding.set()

    async def publish(
        self,
        subject: str,
        data: bytes,
        headers: HeadersLike | WireBlock | None,
        msg_id: str | None,
        *,
        options: StreamPublishOptions | None,
    ) -> PubAck:
        """Store one message; returns after its commit."""
        self.store.check_writable()
        entry = entry_of(self.store.options, subject, data, headers, msg_id, None, options)
        attempts = 0
        while True:
            if self.disk_full:
                raise full_disk(msg_id)
            if self.pending_bytes > self._most_bytes:
                await self._wait_for_room()
            future: asyncio.Future[PubAck] = self.store.loop.create_future()
            self._add(entry, future)
            try:
                if options is None or options.timeout is None:
                    return await future
                return await self._within(future, options)
            except NoStreamResponseError:
                given = options or _DEFAULT
                if attempts >= given.retry_attempts:
                    raise
                attempts += 1
                await asyncio.sleep(_seconds(given.retry_wait))

    async def _within(self, future: asyncio.Future[PubAck], options: StreamPublishOptions) -> PubAck:
        handle = self.store.loop.call_later(_seconds(options.timeout), _give_up, future)
        try:
            return await future
        finally:
            handle.cancel()

    async def publish_many(self, messages: Sequence[StreamMessage]) -> list[Result]:
        """One result per message, in order; nothing of an order key is stored behind a failed message of it."""
        self.store.check_writable()
        if self.disk_full:
            return [full_disk(message.msg_id) for message in messages]
        failed_keys: set[bytes] = set()
        jobs: list[ManyJob] = []
        place = 0
        messages = list(messages)
        while place < len(messages):
            if self.pending_bytes > self._most_bytes:
                await self._wait_for_room()
            entries: list[Entry] = []
            size = 0
            options = self.store.options
            for message in messages[place : place + CHUNK_MESSAGES]:
                entry = entry_of(
                    options, message.subject, message.data, message.headers, message.msg_id, message.order_key, None,
                    raising=False,
                )  # fmt: skip
                size += len(entry.data) + (len(entry.block) if entry.block else 0)
                entries.append(entry)
                if size > CHUNK_BYTES:
                    break
            place += len(entries)
            job = ManyJob(self, entries, size, failed_keys)
            self._submit(job)
            jobs.append(job)
        results: list[Result] = []
        for job in jobs:
            results += await job.future
        return results

    async def publish_atomic(self, messages: Sequence[StreamMessage]) -> PubAck:
        """All of them in one transaction, or none; the answer is that of the last."""
        self.store.check_writable()
        bundle, attempts = Bundle(self.store.options, messages), 0
        while True:
            if self.disk_full:
                raise full_disk(None)
            if self.pending_bytes > self._most_bytes:
                await self._wait_for_room()
            job = AtomicJob(self, bundle)
            self._submit(job)
            try:
                return await job.future
            except NoStreamResponseError:
                if attempts >= _DEFAULT.retry_attempts:
                    raise
                attempts += 1
                await asyncio.sleep(_seconds(_DEFAULT.retry_wait))

    async def publish_async(self, message: StreamMessage, options: StreamPublishOptions | None) -> Pending:
        """Store one message without waiting for its commit; waits only for room in the window."""
        self.store.check_writable()
        given = message.headers
        entry = entry_of(self.store.options, message.subject, message.data, given, message.msg_id, None, options)
        if self.disk_full:
            raise full_disk(message.msg_id)
        if self.outstanding + self._promised >= self._most_outstanding or self._slots:
            await self._wait_for_slot(options)
        self.outstanding += 1
        self._none_outstanding.clear()
        pending = Pending(self, message, entry, options)
        self._add(entry, pending)
        pending.begin()
        return pending

    def again(self, pending: Pending) -> None:
        """Try once more what no stream covered."""
        if pending.done():
            return
        try:
            self._add(pending.entry, pending)
        except ClosedError as error:
            pending.finish(error)

    async def complete(self, timeout: float | None) -> None:
        """Until no answer is outstanding."""
        self.store.check_writable()
        if timeout is None:
            await self._none_outstanding.wait()
            return
        try:
            async with asyncio.timeout(timeout):
                await self._none_outstanding.wait()
        except TimeoutError as error:
            raise BrokerTimeoutError(f"{self.outstanding} publishes unanswered after {timeout:g} s") from error

    def answered(self) -> None:
        """One answer less is outstanding: the next in line gets the slot."""
        self.outstanding -= 1
        if not self.outstanding:
            self._none_outstanding.set()
        self._promise()

    def taken_back(self, job: PublishJob) -> None:
        """A job was answered."""
        self.pending_bytes -= job.size
        if job.earliest is not None:
            self.on_expiry(job.earliest)
        if job.forget is not None:
            self.on_ids(job.forget)
        self.messages += job.stored
        self.bytes += job.bytes
        while self._room and self.pending_bytes <= self._most_bytes and _wake_first(self._room):
            pass

    def close(self) -> None:
        """Hand over what this turn has collected; who waits for room is sent away."""
        self._hand_over()
        for waiter in (*self._room, *self._slots):
            if not waiter.done():
                waiter.set_exception(ClosedError("the store was closed"))

    def _add(self, entry: Entry, waiter: Waiter) -> None:
        job = self._open
        if job is None or len(job.entries) >= CHUNK_MESSAGES or job.size > CHUNK_BYTES:
            self._hand_over()
            if self.store.closed:
                raise ClosedError("the store was closed")
            job = self._open = PublishJob(self)
            self.store.loop.call_soon(self._hand_over)
        size = len(entry.data) if entry.block is None else size_of(entry)
        job.entries.append(entry)
        job.waiters.append(waiter)
        job.size += size
        self.pending_bytes += size

    def _hand_over(self) -> None:
        job, self._open = self._open, None
        if job is not None:
            job.start(self._timeout)
            self.store.streams.submit(job)

    def _submit(self, job: ManyJob | AtomicJob) -> None:
        self._hand_over()  # what was published before stays before
        self.pending_bytes += job.size
        job.start(self._timeout)
        self.store.streams.submit(job)

    async def _wait_for_room(self) -> None:
        waiter: asyncio.Future[None] = self.store.loop.create_future()
        self._room.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._room:
                self._room.remove(waiter)

    async def _wait_for_slot(self, options: StreamPublishOptions | None) -> None:
        given = None if options is None else options.stall_wait
        wait = self._stall if given is None else _seconds(given)
        full = f"{self.outstanding} publishes are outstanding, at most {self._most_outstanding}"
        if wait <= 0:
            raise TooManyPendingError(full)
        waiter: asyncio.Future[None] = self.store.loop.create_future()
        self._slots.append(waiter)
        try:
            async with asyncio.timeout(wait):
                await waiter
        except BaseException as error:
            if waiter in self._slots:
                self._slots.remove(waiter)
            elif not waiter.cancelled():  # woken, and cancelled in the same turn: the slot is the next one's
                self._promised -= 1
                self._promise()
            if isinstance(error, TimeoutError):
                raise TooManyPendingError(f"{full}, no room in {wait:g} s") from error
            raise
        self._promised -= 1

    def _promise(self) -> None:
        """A slot is free: the first in line gets it."""
        if self.outstanding + self._promised < self._most_outstanding:
            self._promised += _wake_first(self._slots)


def _seconds(length: timedelta | float | None) -> float:
    return length.total_seconds() if isinstance(length, timedelta) else float(length or 0.0)


def _give_up(future: asyncio.Future[PubAck]) -> None:

    if not future.done():
        future.set_exception(late())


def _wake_first(waiters: deque[asyncio.Future[None]]) -> bool:
    while waiters:
        waiter = waiters.popleft()
        if not waiter.done():
            waiter.set_result(None)
            return True
    return False


def _nothing(*_: object) -> None:
    return
