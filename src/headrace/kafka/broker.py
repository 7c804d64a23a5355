"""KafkaBroker: Apache Kafka behind the seam. A topic is a topic, a group is a consumer group."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import timedelta
from types import TracebackType
from typing import Self

from headrace.core.broker import (
    Capabilities,
    Groups,
    KeyOrder,
    PublishOptions,
    Receipt,
    StartKind,
    SubscribeOptions,
    Subscription,
    TopicOptions,
)
from headrace.core.clock import Clock, current_clock
from headrace.core.delivery import Position
from headrace.core.errors import ClosedError, ConfigError, PublishError, UnsupportedError, UsageError
from headrace.core.message import Message
from headrace.kafka import driver
from headrace.kafka.consuming.opening import Opening
from headrace.kafka.consuming.stats import PartitionStats, stats_of
from headrace.kafka.consuming.subscription import KafkaSubscription
from headrace.kafka.log import DriverLog
from headrace.kafka.options import KafkaOptions, addresses
from headrace.kafka.reading import KafkaPartitionOptions, KafkaSubscribeOptions, read_options
from headrace.kafka.sending.sender import Sender
from headrace.kafka.topics import Topics, check_name

__all__ = ["KafkaBroker"]

_DEFAULT = KafkaOptions()
_NO_TOPIC_OPTIONS = TopicOptions()
_NO_SUBSCRIBE_OPTIONS = SubscribeOptions()
_STARTS = frozenset({StartKind.ALL, StartKind.NEW, StartKind.SINCE})
_PLACES = 5_000


class KafkaBroker:
    """A broker over the Kafka cluster that answers at `brokers` (``host:port``, several with commas or as a sequence).

    Making it does no I/O; ``async with``, or `open`, sees that brokers answer: ``ImportError`` without the driver,
    ``AuthenticationError``, else `KafkaError` within 10 s. ``create``: a missing topic is made where it is first met.
    """

    def __init__(
        self,
        brokers: str | Sequence[str],
        *,
        options: KafkaOptions = _DEFAULT,
        create: bool = True,
        clock: Clock | None = None,
    ) -> None:
        if not isinstance(options, KafkaOptions):
            raise ConfigError(f"options must be KafkaOptions, got {type(options).__name__}")
        self.options = options
        self.create = create
        self._servers = addresses(brokers)
        self._clock = clock
        self._opening: Opening | None = None
        self._openers = 0
        """Calls of `open` that wait for the answer."""
        self._answered = False
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        """Where it was opened."""
        self._sender: Sender | None = None
        self._subscriptions: set[KafkaSubscription] = set()
        self._closed = False
        self._capabilities = _capabilities(options)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self.is_open else "not open"
        return f"<KafkaBroker {','.join(self._servers)}, {state}>"

    # -- its life ----------------------------------------------------------------------------------------------------

    async def open(self) -> bool:
        """See that brokers answer. Whether this call opened it: of several at once one, which should close it.

        Open: nothing happens. ``ClosedError`` after `aclose`.
        """
        self._check()
        if self._answered:
            return False
        if self._opening is None:
            self._opening = self._begin()
        topics = self._opening.topics
        try:
            await self._wait_open(topics)
            self._check()
        except BaseException:
            if not self._openers and not self._answered:  # nobody else waits for it
                self._opening = None
                await topics.aclose()
            raise
        first, self._answered = not self._answered, True
        return first

    async def aclose(self) -> None:
        """End its subscriptions and what is being sent, all of it, whatever one of them raises.

        Twice is fine; in a forked child it does nothing.
        """
        if self._forked:
            return
        self._check_loop()
        self._closed = True
        async with AsyncExitStack() as stack:  # what it got last ends first
            if self._opening is not None:
                stack.push_async_callback(self._opening.topics.aclose)
            if self._sender is not None:
                stack.push_async_callback(self._sender.aclose)
            for subscription in self._subscriptions:
                stack.push_async_callback(subscription.aclose)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def is_open(self) -> bool:
        """Whether it can be used now."""
        return self._answered and not self._closed

    # -- what it is --------------------------------------------------------------------------------------------------

    @property
    def capabilities(self) -> Capabilities:
        """What it promises; known before it is opened."""
        return self._capabilities

    @property
    def clock(self) -> Clock:
        """The clock given, else the running loop's."""
        return current_clock(self._clock)

    @property
    def topics(self) -> Topics:
        """Which topics there are. ``ClosedError`` unless it is open."""
        return self._open().topics

    def sender(self, places: int) -> Sender:
        """A sender of its own, for so many messages at once; whoever asks for it closes it."""
        opened = self._open()
        return Sender(self._servers, self.options, opened.topics, places=places, create=self.create, log=opened.log)

    def partitions(self) -> Sequence[PartitionStats]:
        """Every partition of its open subscriptions, as it stands now. No I/O."""
        self._check_process()
        now = self.clock.now_ns()
        return [stats_of(each.group, stay, now) for each in self._subscriptions for stay in each.stays]

    # -- the seam ----------------------------------------------------------------------------------------------------

    async def declare(self, topic: str, options: TopicOptions = _NO_TOPIC_OPTIONS) -> None:
        """The topic exists afterwards, with leaders. One that exists is never altered.

        ``ConfigError``: its name is none, collides with another's (``a.b``, ``a_b``), or it differs from `options`.
        ``UnsupportedError``: ``dedup_window``.
        """
        await self._open().topics.declare(topic, options)

    async def publish(self, message: Message, options: PublishOptions | None = None) -> Receipt:
        """Send a message; returns once all replicas have it. ``PublishError`` with a fault."""
        sender = self._sending()
        if options is None:
            return await sender.send_one(message)
        for name in ("expect", "delay", "ttl"):
            if getattr(options, name) is not None:
                raise UnsupportedError(f"Kafka has no {name} for a publish, got {getattr(options, name)!r}")
        return await sender.send_one(message, timeout=options.timeout)

    async def publish_batch(self, messages: Sequence[Message]) -> list[Receipt | PublishError]:
        """Send messages, pipelined: one result per item, in order; an item fails alone."""
        return list(await self._sending().send_many(messages))

    def subscribe(
        self, topics: str | Sequence[str], options: SubscribeOptions = _NO_SUBSCRIBE_OPTIONS
    ) -> AbstractAsyncContextManager[Subscription]:
        """Join a group; or read all partitions alone (``group=None``), or one (`KafkaPartitionOptions`).

        ``ConfigError``, ``UnsupportedError`` before any I/O. ``UnknownTopicError``, ``UnknownGroupError``: missing, and
        not to be made.
        """
        opened = self._open()
        names = [topics] if isinstance(topics, str) else list(topics)
        if not names:
            raise ConfigError(f"topics must not be empty, got {topics!r}")
        for name in names:
            if isinstance(name, str) and ("*" in name or ">" in name):
                raise UnsupportedError(f"Kafka subscribes to topics by name, got {name!r}")
            check_name(name)
        if options.lease is not None:
            raise UnsupportedError(f"Kafka has no leases, got lease={options.lease!r}")
        wanted = read_options(options)
        check_start(names, wanted)
        if isinstance(wanted, KafkaPartitionOptions):
            return self._known(opened.partition(names[0], wanted))
        return self._known(opened.group(list(dict.fromkeys(names)), wanted))

    # -- inside ------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _known(
        self, opening: AbstractAsyncContextManager[KafkaSubscription]
    ) -> AsyncGenerator[KafkaSubscription, None]:
        async with opening as subscription:
            self._check()  # it may have been closed meanwhile
            self._subscriptions.add(subscription)
            try:
                yield subscription
            finally:
                self._subscriptions.discard(subscription)

    def _begin(self) -> Opening:
        driver.require()
        driver.check_names(self.options.driver_options)
        clock = current_clock(self._clock)
        log = DriverLog(clock)
        self._pid = os.getpid()
        self._loop = asyncio.get_running_loop()
        return Opening(self._servers, self.options, Topics(self._servers, self.options, log), log, clock, self.create)

    async def _wait_open(self, topics: Topics) -> None:
        self._openers += 1
        try:
            await topics.open()
        finally:
            self._openers -= 1

    @property
    def _forked(self) -> bool:
        """Whether another process opened it."""
        return self._opening is not None and os.getpid() != self._pid

    def _check_process(self) -> None:
        if self._forked:
            raise UsageError("the broker was opened before a fork: open one of its own in the child")

    def _check(self) -> None:
        self._check_process()
        if self._closed:
            raise ClosedError("the broker was closed")
        self._check_loop()

    def _check_loop(self) -> None:
        if self._opening is not None and asyncio.get_running_loop() is not self._loop:
            raise UsageError("the broker was opened on another event loop: open one of its own there")

    def _open(self) -> Opening:
        self._check()
        if self._opening is None or not self._answered:
            raise ClosedError("the broker is not open: use async with, or open()")
        return self._opening

    def _sending(self) -> Sender:
        if self._sender is None:
            self._sender = self.sender(_PLACES)
        elif self._closed:
            raise ClosedError("the broker was closed")
        return self._sender


def check_start(names: Sequence[str], options: KafkaSubscribeOptions | KafkaPartitionOptions) -> None:
    """Where it may begin: a position says nothing about other partitions, and a topic has several ends."""
    start = options.start
    if isinstance(options, KafkaPartitionOptions) and len(names) != 1:
        raise ConfigError(f"one partition is of one topic, got {list(names)}")
    if start is None or start.kind in _STARTS:
        return
    if start.kind is StartKind.AT and isinstance(options, KafkaPartitionOptions):
        source = f"{names[0]}/{options.partition}"
        if isinstance(start.position, Position) and start.position.source != source:
            raise ConfigError(f"start must be a position of {source}, got {start.position}")
        return
    raise UnsupportedError(f"Kafka cannot start at {start.kind.value} here")


def _capabilities(options: KafkaOptions) -> Capabilities:
    return Capabilities(
        key_order=KeyOrder.GROUP, ordered=True, durable=True, groups=Groups.MANY, broadcast=True, delayed_nak=True,
        replay=_STARTS, many_topics=True, max_body=options.max_message_bytes,
        time_resolution=timedelta(milliseconds=1),
    )  # fmt: skip
