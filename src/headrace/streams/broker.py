"""StreamBroker: the one `core.Broker` over streams, for both engines (jetstream.md 3.8). A topic is a subject."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from types import TracebackType
from typing import Self

from headrace.core.broker import (
    Capabilities,
    Expect,
    PublishOptions,
    Receipt,
    SubscribeOptions,
    Subscription,
    TopicOptions,
)
from headrace.core.clock import Clock
from headrace.core.delivery import Position
from headrace.core.duration import seconds_of
from headrace.core.errors import BrokerError, ClosedError, ConfigError, Fault, PublishError, UnsupportedError
from headrace.core.message import MAX_HEADER_BYTES, Message, check_message, check_topic
from headrace.streams.api import StreamManager
from headrace.streams.errors import MessageTooLargeError, NoStreamResponseError, PublishRefusedError, StreamError
from headrace.streams.facts import StreamReceipt
from headrace.streams.info import PubAck
from headrace.streams.joining import check_subscribe, join
from headrace.streams.options import StreamMessage, StreamPublishOptions
from headrace.streams.subscription import StreamSubscription
from headrace.streams.topics import Topics
from headrace.streams.wire import encode, msg_id_of

__all__ = ["StreamBroker"]

_NO_TOPIC_OPTIONS = TopicOptions()
_NO_SUBSCRIBE_OPTIONS = SubscribeOptions()
_FIRST_TRY = StreamPublishOptions(retry_attempts=0)  # a server without the stream would be asked for half a second


class StreamBroker:
    """The broker over an opened stream engine. It borrows: closing it ends its subscriptions, not the engine.

    ``create``: publishing or subscribing to a topic that no stream covers declares it. A stream is named by the
    topic's first token and covers it and all below it.
    """

    def __init__(self, streams: StreamManager, *, create: bool = True) -> None:
        self.streams = streams
        """The opened engine, as given."""
        self._create = create
        self._system = streams.system
        self._topics = Topics(streams)
        self._subscriptions: set[StreamSubscription] = set()
        self._closed = False
        self._limit: int | None = None
        self._capabilities: Capabilities | None = None

    @property
    def capabilities(self) -> Capabilities:
        """The engine's; ``max_body`` leaves room for headers in the engine's largest message."""
        room = self.streams.max_payload - MAX_HEADER_BYTES
        if self._capabilities is None or self._limit != room:
            self._limit = room
            self._capabilities = replace(self.streams.capabilities, max_body=room if room > 0 else None)
        return self._capabilities

    @property
    def clock(self) -> Clock:
        """The engine's source of time."""
        return self.streams.clock

    async def declare(self, topic: str, options: TopicOptions = _NO_TOPIC_OPTIONS) -> None:
        """A stream covers `topic` afterwards; one that covers it already stays as it is.

        ``ConfigError``: an option differs from the stream's. ``StreamNameInUseError``, ``SubjectOverlapError``: a
        stream of other subjects is in the way; nothing is altered. ``StreamNotFoundError``: its first token is a
        wildcard, and nothing covers it. ``UnsupportedError``: ``partitions``.
        """
        self._check_open()
        check_topic(topic, wildcards=True)
        await self._topics.declare(topic, options)

    async def publish(self, message: Message, options: PublishOptions | None = None) -> Receipt:
        """Store a message; its position is (stream, sequence). Raises ``PublishError`` with a fault."""
        self._check_open()
        check_message(message)
        limit = self.capabilities.max_body
        if limit is not None and len(message.body) > limit:
            raise _too_large(message, limit)
        item = encode(message)
        stream_options = None if options is None else self._stream_options(message, options)
        try:
            ack = await self._publish(message, item, stream_options)
        except PublishError as error:
            error.message_id = message.id
            raise
        return self._receipt(message.topic, ack)

    async def publish_batch(self, messages: Sequence[Message]) -> list[Receipt | PublishError]:
        """Store messages; one result per item, in order. Where ``batch_key_order``, nothing overtakes a failed item
        of its key: it is ``UNAVAILABLE``.
        """
        self._check_open()
        results: list[Receipt | PublishError | None] = [None] * len(messages)
        items = self._encode_all(messages, results)
        if self._create:
            await self._declare_all(messages, items, results)
        vanished = await self._send(messages, items, results)
        if vanished and self._create:
            again = self._to_send_again(messages, items, results, vanished)
            await self._declare_all(messages, again, results)
            await self._send(messages, again, results)
        return [result for result in results if result is not None]

    def subscribe(
        self, topics: str | Sequence[str], options: SubscribeOptions = _NO_SUBSCRIBE_OPTIONS
    ) -> AbstractAsyncContextManager[Subscription]:
        """Open a subscription to one topic (wildcards allowed). What is unsupported raises before any I/O.

        ``ConfigError``: the group exists with another filter or ack policy. ``StreamNotFoundError``,
        ``ConsumerNotFoundError``: missing, and not to be made.
        """
        self._check_open()
        names = [topics] if isinstance(topics, str) else list(topics)
        if len(names) > 1:
            raise UnsupportedError(f"a stream subscription has one topic, got {names}: open one for each")
        if not names:
            raise ConfigError(f"topics must not be empty, got {topics!r}")
        check_topic(names[0], wildcards=True)
        check_subscribe(options, self.streams.capabilities)
        return self._subscribe(names[0], options)

    async def aclose(self) -> None:
        """End its subscriptions, all of them, whatever one raises. Twice is fine; the engine stays open."""
        self._closed = True
        async with AsyncExitStack() as stack:
            for subscription in self._subscriptions:
                stack.push_async_callback(subscription.aclose)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @asynccontextmanager
    async def _subscribe(self, topic: str, options: SubscribeOptions) -> AsyncGenerator[Subscription, None]:
        self._check_open()
        create = self._create if options.create is None else options.create
        stream = await (self._topics.declare(topic, _NO_TOPIC_OPTIONS) if create else self._topics.find(topic))
        joined = await join(self.streams, stream, topic, options)
        in_flight = 256 if options.max_in_flight is None else options.max_in_flight
        subscription = StreamSubscription(
            joined.consumer,
            group=options.group,
            lease=joined.lease,
            max_in_flight=in_flight,
            prefetch=in_flight if options.prefetch is None else min(options.prefetch, in_flight),
            remake=joined.remake,
            system=self._system,
        )
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
            try:
                await subscription.aclose()
            finally:
                if joined.remake is not None:
                    await joined.discard(subscription.consumer)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the broker was closed")

    def _stream_options(self, message: Message, options: PublishOptions) -> StreamPublishOptions:
        own = self.streams.capabilities
        for name, given, able in (
            ("delay", options.delay, False),
            ("expect", options.expect, own.expect),
            ("ttl", options.ttl, own.ttl),
        ):
            if given is not None and not able:
                raise UnsupportedError(f"this engine has no {name} for a publish, got {given!r}")
        expect, stream = (None, None) if options.expect is None else _stream_expect(message.topic, options.expect)
        return StreamPublishOptions(expect=expect, expect_stream=stream, ttl=options.ttl, timeout=options.timeout)

    async def _publish(self, message: Message, item: StreamMessage, options: StreamPublishOptions | None) -> PubAck:
        if not self._create:
            return await self.streams.publish_msg(item, options=options)
        first = options
        if message.topic not in self._topics.known:
            first = _FIRST_TRY if options is None else replace(options, retry_attempts=0)
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            return await self.streams.publish_msg(item, options=first)
        except NoStreamResponseError as error:
            await self._declare_for(message, error)
        if options is not None and options.timeout is not None:
            left = seconds_of(options.timeout, "timeout") - (loop.time() - started)
            options = replace(options, timeout=max(left, 0.001))
        return await self.streams.publish_msg(item, options=options)

    async def _declare_for(self, message: Message, cause: Exception | None) -> None:
        self._topics.forget(message.topic)
        try:
            await self._topics.declare(message.topic, _NO_TOPIC_OPTIONS)
        except PublishError:
            raise
        except BrokerError as error:
            raise _undeclared(message, error) from cause

    def _receipt(self, topic: str, ack: PubAck) -> Receipt:
        self._topics.remember(topic, ack.stream)
        return StreamReceipt(Position(ack.stream, ack.sequence), ack.duplicate, self._system)

    def _encode_all(
        self, messages: Sequence[Message], results: list[Receipt | PublishError | None]
    ) -> dict[int, StreamMessage]:
        """Place -> what to send. What is wrong with one message alone is its result."""
        items: dict[int, StreamMessage] = {}
        blocked: set[tuple[str, bytes | None]] = set()
        capabilities = self.capabilities
        limit = capabilities.max_body
        for place, message in enumerate(messages):
            try:
                check_message(message)
                if limit is not None and len(message.body) > limit:
                    raise _too_large(message, limit)
                items[place] = encode(message)
            except PublishError as error:
                results[place] = error
                if message.key is not None and capabilities.batch_key_order:
                    blocked.add((message.topic, message.key))
                continue
            if blocked and (message.topic, message.key) in blocked:
                results[place] = _behind(message)
                del items[place]
        return items

    async def _declare_all(
        self,
        messages: Sequence[Message],
        items: dict[int, StreamMessage],
        results: list[Receipt | PublishError | None],
    ) -> None:
        """Declare the topics that are not known; the items of one that cannot be declared fail and are taken out."""
        failed: dict[str, BrokerError] = {}
        if self._topics.known.keys() >= {item.subject for item in items.values()}:
            return
        for place in list(items):
            message = messages[place]
            topic = message.topic
            if topic not in self._topics.known and topic not in failed:
                try:
                    await self._topics.declare(topic, _NO_TOPIC_OPTIONS)
                except BrokerError as error:
                    failed[topic] = error
            if topic in failed:
                results[place] = _undeclared(message, failed[topic])
                del items[place]

    async def _send(
        self,
        messages: Sequence[Message],
        items: dict[int, StreamMessage],
        results: list[Receipt | PublishError | None],
    ) -> set[str]:
        """Publish them; the topics that no stream took any more."""
        vanished: set[str] = set()
        if not items:
            return vanished
        for place, result in zip(items, await self.streams.publish_many(list(items.values())), strict=True):
            if isinstance(result, PubAck):
                results[place] = StreamReceipt(Position(result.stream, result.sequence), result.duplicate, self._system)
                continue
            message = messages[place]
            result.message_id = message.id
            results[place] = result
            if isinstance(result, NoStreamResponseError):
                vanished.add(message.topic)
        return vanished

    def _to_send_again(
        self,
        messages: Sequence[Message],
        items: dict[int, StreamMessage],
        results: list[Receipt | PublishError | None],
        vanished: set[str],
    ) -> dict[int, StreamMessage]:
        """Items of streams that went since they were last seen, those held back behind them included."""
        for topic in vanished:
            self._topics.forget(topic)
        again: dict[int, StreamMessage] = {}
        for place, item in items.items():
            result = results[place]
            if (
                messages[place].topic in vanished
                and isinstance(result, PublishError)
                and result.fault is Fault.UNAVAILABLE
            ):
                again[place] = item
        return again


def _too_large(message: Message, limit: int) -> MessageTooLargeError:
    text = f"{len(message.body)} bytes of body, at most {limit}"
    return MessageTooLargeError(text, message_id=message.id, limit=limit)


def _behind(message: Message) -> PublishError:
    return PublishError("an earlier message of its key failed", message_id=message.id, fault=Fault.UNAVAILABLE)


def _undeclared(message: Message, error: BrokerError) -> PublishError:
    """Why no stream takes it: nothing about the message, it is certainly not stored."""
    facts = (error.code, error.err_code, error.description) if isinstance(error, StreamError) else (None, None, None)
    refused = PublishRefusedError(
        f"{message.topic} could not be declared: {error}",
        code=facts[0],
        err_code=facts[1],
        description=facts[2],
        message_id=message.id,
        fault=Fault.UNAVAILABLE,
    )
    refused.__cause__ = error
    return refused


def _stream_expect(topic: str, expect: Expect) -> tuple[Expect, str | None]:
    """The expectation in a stream's words; positions name the stream that must take the message."""
    stream: str | None = None
    numbers: list[int | None] = []
    for given in (expect.last, expect.last_for_topic):
        if isinstance(given, Position):
            if stream not in (None, given.source):
                raise ConfigError(f"expect has positions of two streams, got {stream!r} and {given.source!r}")
            stream = given.source
            numbers.append(given.value)
        else:
            numbers.append(given)
    last_id = None if expect.last_id is None else msg_id_of(expect.last_id, topic)
    return Expect(last=numbers[0], last_for_topic=numbers[1], last_id=last_id), stream
