"""Ordered reading: everything once, in order, over engine consumers that are made anew when they break (3.7).

The rules are those of ADR-17 (ordered consumer). Written once: an engine gives two plain calls, and its sessions say
that a consumer must be made anew by raising `ConsumerDeletedError` (a gap in the consumer sequences included),
`NoHeartbeatError`, `LeadershipChangedError` or `ServerShutdownError`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

from headrace.core.delivery import Outcome, Release
from headrace.core.errors import BrokerError, HeadraceError, UnsupportedError, UsageError
from headrace.core.message import new_id
from headrace.streams.consumer import Consumer
from headrace.streams.consumer_config import AckPolicy, ConsumerConfig, DeliverPolicy, OrderedConsumerConfig
from headrace.streams.errors import (
    ConsumerDeletedError,
    ConsumerNotFoundError,
    LeadershipChangedError,
    NoHeartbeatError,
    OrderedConsumerBusyError,
    OrderedConsumerNotCreatedError,
    OrderedConsumerResetError,
    ServerShutdownError,
    StreamNotFoundError,
)
from headrace.streams.info import ConsumerInfo
from headrace.streams.msg import Msg, MsgMetadata
from headrace.streams.session import PullSession, SessionOptions

__all__ = ["OrderedConsumer"]

CreateConsumer = Callable[[ConsumerConfig], Awaitable[Consumer]]
DeleteConsumer = Callable[[str], Awaitable[None]]

_RESETS = (
    ConsumerDeletedError,
    ConsumerNotFoundError,
    NoHeartbeatError,
    LeadershipChangedError,
    ServerShutdownError,
)
_DEFAULT_THRESHOLD = timedelta(minutes=5)
_FIRST_RETRY = 1.0
_LAST_RETRY = 10.0
_DELETE_TIMEOUT = 10.0


class OrderedConsumer(Consumer):
    """Reads a stream in order, each message once, settling nothing. One session at a time.

    ``create`` makes an engine consumer of this stream, ``delete`` deletes one by name (best effort). After a session
    the next continues behind the last message handed over.
    """

    def __init__(
        self, stream: str, config: OrderedConsumerConfig, create: CreateConsumer, delete: DeleteConsumer
    ) -> None:
        self.config = config
        self.cursor = 0
        """Stream sequence of the last message handed over."""
        self.order = 0
        """Consumer sequence of the last message of the engine's consumer; the next is one higher."""
        self.inner: Consumer | None = None
        """The engine's consumer that is read now; ``None`` = to be made."""
        self._stream = stream
        self._create = create
        self._delete = delete
        self._prefix = config.name_prefix or new_id()
        self._serial = 0
        self._born_at: int | None = None
        self._snapshot_left = config.deliver_policy is DeliverPolicy.LAST_PER_SUBJECT
        self._busy = False
        self._info: ConsumerInfo | None = None
        self._deletions: set[asyncio.Task[None]] = set()

    @property
    def name(self) -> str:
        """Name of the engine's consumer; changes with every reset."""
        return f"{self._prefix}_{max(self._serial, 1)}"

    @property
    def stream(self) -> str:
        """The name of its stream."""
        return self._stream

    @property
    def cached_info(self) -> ConsumerInfo:
        """Of the engine's consumer, as last seen. ``OrderedConsumerNotCreatedError`` before the first use."""
        if self._info is None:
            raise OrderedConsumerNotCreatedError
        return self._info if self.inner is None else self.inner.cached_info

    async def info(self) -> ConsumerInfo:
        """Of the engine's consumer, as it is now. ``OrderedConsumerNotCreatedError`` before the first use."""
        if self._info is None:
            raise OrderedConsumerNotCreatedError
        if self.inner is not None:
            self._info = await self.inner.info()
        return self._info

    def session(self, options: SessionOptions) -> PullSession:
        """The one reader; ``OrderedConsumerBusyError`` while there is another."""
        if self._busy:
            raise OrderedConsumerBusyError
        self._busy = True
        return _OrderedSession(self, options)

    async def pause(self, until: datetime) -> None:
        """Not for ordered consumers: ``UnsupportedError``."""
        raise UnsupportedError("an ordered consumer cannot be paused: stop reading it")

    async def resume(self) -> None:
        """Not for ordered consumers: ``UnsupportedError``."""
        raise UnsupportedError("an ordered consumer cannot be paused: stop reading it")

    async def make(self) -> Consumer:
        """The engine's consumer, made behind the cursor if there is none. Raises what the engine raises."""
        if self.inner is None:
            self._serial += 1
            made = await self._create(self._engine_config())
            self.inner = made
            self.order = 0
            self._info = made.cached_info
            if self._born_at is None:
                self._born_at = made.cached_info.delivered.stream
            if self._snapshot_left and made.cached_info.num_pending == 0:
                self._snapshot_left = False
        return self.inner

    def drop(self) -> None:
        """Forget the engine's consumer; it is deleted in the background."""
        inner, self.inner = self.inner, None
        if inner is not None:
            self._info = inner.cached_info
            task = asyncio.get_running_loop().create_task(self._delete_quietly(inner.name))
            self._deletions.add(task)
            task.add_done_callback(self._deletions.discard)

    def release(self, *, clean: bool) -> None:
        """The session is over. Unless `clean`, messages beyond the cursor may have left the engine: made anew."""
        self._busy = False
        if not clean:
            self.drop()

    def accept(self, session: PullSession, msg: Msg) -> bool:
        """Whether it was not seen before; the cursor moves behind it."""
        sequence = session.facts_of(msg)[0]
        if self._snapshot_left and session.metadata_of(msg).num_pending == 0:
            self._snapshot_left = False
        if sequence <= self.cursor:
            return False
        self.cursor = sequence
        return True

    def give_back(self, sequence: int) -> None:
        """It was pulled, and nobody saw it: the next session begins with it."""
        self.cursor = min(self.cursor, sequence - 1)
        if not self._busy:
            self.drop()

    def _engine_config(self) -> ConsumerConfig:
        config = self.config
        filters = tuple(config.filter_subjects)
        if not filters and config.deliver_policy is DeliverPolicy.LAST_PER_SUBJECT:
            filters = (">",)
        start = ConsumerConfig(
            name=f"{self._prefix}_{self._serial}",
            ack_policy=AckPolicy.NONE,
            max_ack_pending=None,
            filter_subject=filters[0] if len(filters) == 1 else None,
            filter_subjects=filters if len(filters) > 1 else (),
            replay_policy=config.replay_policy,
            headers_only=config.headers_only,
            inactive_threshold=config.inactive_threshold or _DEFAULT_THRESHOLD,
            memory_storage=True,
            replicas=1,
            metadata=config.metadata,
        )
        return self._from_here(start)

    def _from_here(self, config: ConsumerConfig) -> ConsumerConfig:
        """Where the next engine consumer begins (3.7.4)."""
        own = self.config
        if self.cursor and not self._snapshot_left:
            return replace(config, deliver_policy=DeliverPolicy.BY_START_SEQUENCE, start_sequence=self.cursor + 1)
        if own.deliver_policy is DeliverPolicy.NEW and self._born_at is not None:
            # Nothing was handed over yet, but what was published since the first creation is new.
            return replace(config, deliver_policy=DeliverPolicy.BY_START_SEQUENCE, start_sequence=self._born_at + 1)
        return replace(
            config,
            deliver_policy=own.deliver_policy,
            start_sequence=own.start_sequence,
            start_time=own.start_time,
        )

    def _max_deliver(self) -> int | None:
        return None

    async def _delete_quietly(self, name: str) -> None:
        try:
            async with asyncio.timeout(_DELETE_TIMEOUT):
                await self._delete(name)
        except (HeadraceError, TimeoutError):
            pass  # it goes by itself after its inactive threshold


class _OrderedSession:
    """A `PullSession` over one engine session after the other. What it hands over is settled by nobody."""

    def __init__(self, consumer: OrderedConsumer, options: SessionOptions) -> None:
        self.late_settles = 0
        self.expired_in_buffer = 0
        self.held = 0
        self._consumer = consumer
        self._options = options
        self._session: PullSession | None = None
        self._latest: PullSession | None = None
        self._pulling = False
        self._clean = True
        self._stopped = False
        self._closed = False
        self._failures = 0
        self._retry_at = 0.0
        self._handed = 0
        self._last: Msg | None = None

    async def pull(self, limit: int, wait: float, *, max_bytes: int | None = None) -> list[Msg]:
        """See `PullSession.pull`. A failed re-creation is `OrderedConsumerResetError`, terminal after the last."""
        if self._pulling:
            raise UsageError("one pull at a time")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        self._pulling = True
        self._clean = False
        try:
            while not (self._stopped and self._session is None):
                session = self._session or await self._open(deadline)
                if session is None:
                    return []
                try:
                    got = await session.pull(limit, max(0.0, deadline - loop.time()), max_bytes=max_bytes)
                except _RESETS:
                    await self._reset()
                    continue
                if not got:
                    self._clean = self._options.prefetch == 0
                    return []
                self._last = got[-1]
                fresh = [msg for msg in got if self._consumer.accept(session, msg)]
                if fresh:
                    self._handed += len(fresh)
                    self._clean = self._options.prefetch == 0 and self._handed == self._options.max_messages
                    return fresh
            return []
        finally:
            self._pulling = False

    def take(self) -> Msg | None:
        """See `PullSession.take`."""
        session = self._session
        while session is not None and (msg := session.take()) is not None:
            self._last = msg
            if self._consumer.accept(session, msg):
                self._handed += 1
                return msg
        return None

    async def stop(self) -> None:
        """See `PullSession.stop`."""
        self._stopped = True
        if self._session is not None:
            await self._session.stop()

    async def flush(self) -> None:
        """There is nothing to confirm."""

    async def aclose(self) -> None:
        """End; the consumer may be read again."""
        if self._closed:
            return
        self._closed = True
        self._stopped = True
        session, self._session = self._session, None
        try:
            if session is not None:
                await session.aclose()
        finally:
            if self._clean and self._latest is not None and self._last is not None:
                self._consumer.order = self._latest.metadata_of(self._last).sequence.consumer
            self._consumer.release(clean=self._clean and self._consumer.inner is not None)

    def alive(self, msg: Msg) -> bool:
        """Nothing is leased."""
        return True

    def facts_of(self, msg: Msg) -> tuple[int, int, int]:
        """See `PullSession.facts_of`."""
        return self._own().facts_of(msg)

    def keep(self) -> None:
        """Nothing is leased."""

    def settle(self, msg: Msg, outcome: Outcome) -> None:
        """Settling is only a mark; what a reader gives back unseen goes to the next one."""
        if isinstance(outcome, Release):
            self._consumer.give_back(self.facts_of(msg)[0])
            self._clean = False

    def extend(self, msg: Msg) -> None:
        """Nothing is leased."""

    def metadata_of(self, msg: Msg) -> MsgMetadata:
        """See `MsgOwner.metadata_of`."""
        return self._own().metadata_of(msg)

    def reply_of(self, msg: Msg) -> str:
        """See `MsgOwner.reply_of`."""
        return self._own().reply_of(msg)

    async def confirm(self, msg: Msg) -> None:
        """Settling is only a mark."""

    def _own(self) -> PullSession:
        """The engine session that handed the latest messages over; it may be closed by now."""
        if self._latest is None:
            raise UsageError("nothing was handed over here yet")
        return self._latest

    async def _open(self, deadline: float) -> PullSession | None:
        """The engine session, made if need be; ``None`` once the deadline has passed without a try."""
        loop = asyncio.get_running_loop()
        if self._retry_at > loop.time():
            if self._retry_at > deadline:
                await asyncio.sleep(max(0.0, deadline - loop.time()))
                return None
            await asyncio.sleep(self._retry_at - loop.time())
        try:
            consumer = await self._consumer.make()
        except StreamNotFoundError:
            raise  # terminal: the sequences of a new stream would mean nothing here
        except BrokerError as error:
            self._count_failure(error)
        else:
            self._failures = 0
            options = replace(self._options, follows=self._consumer.order)
            self._session = self._latest = consumer.session(options)
            self._last = None
        return self._session

    def _count_failure(self, error: BrokerError) -> None:
        self._failures += 1
        most = self._consumer.config.max_reset_attempts
        wait = min(_FIRST_RETRY * 2.0 ** min(self._failures - 1, 10), _LAST_RETRY)
        self._retry_at = asyncio.get_running_loop().time() + wait
        raise OrderedConsumerResetError(
            f"ordered consumer of {self._consumer.stream} not made anew, try {self._failures}: {error}",
            terminal=most is not None and self._failures >= most,
        ) from error

    async def _reset(self) -> None:
        session, self._session = self._session, None
        self._consumer.drop()
        if session is not None:
            with suppress(HeadraceError):  # it is broken: that is why it is left
                await session.aclose()
