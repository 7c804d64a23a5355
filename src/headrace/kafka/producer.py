"""Producer: sends to Kafka with a result for each message, in order of the keys. A `core.Publisher` of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress
from types import TracebackType
from typing import Self, cast

from headrace.core.broker import Capabilities, PublishOptions, Receipt
from headrace.core.clock import Clock
from headrace.core.duration import Duration, seconds_of, seconds_or_none
from headrace.core.errors import (
    BrokerTimeoutError,
    ClosedError,
    ConfigError,
    PublishError,
    UnsupportedError,
    UsageError,
)
from headrace.core.message import Message
from headrace.flow.compose import Middleware
from headrace.flow.judge import OnFailure
from headrace.flow.keyed import Ordering
from headrace.flow.retry import RetryPolicy
from headrace.kafka.broker import KafkaBroker
from headrace.kafka.errors import ProduceBatchError
from headrace.kafka.sending.checks import unusable
from headrace.kafka.sending.failures import Failures
from headrace.kafka.sending.pipeline import Pipeline
from headrace.kafka.sending.result import ProduceResult, in_time
from headrace.kafka.sending.sender import Sender
from headrace.kafka.topics import check_name

__all__ = ["Producer"]


class Producer:
    """Sends through a driver client of its own to the brokers of `broker`, which it opens if that is not open.

    ``default_topic``: for messages without one. ``ordering``: `Ordering.KEY` (what happens before the driver has a
    message keeps its order per topic and key), ``NONE``, ``TOTAL`` (each after the receipt of the one before).
    ``max_outstanding``: messages accepted and without a result; more wait. ``middleware``: around each send, the first
    is the outermost; ``retry``: runs it again if it fails before the driver has the message. ``on_failure``: told of
    each failed run and message. Repeating what the driver has is the driver's: `KafkaOptions.delivery_timeout`.
    """

    def __init__(
        self,
        broker: KafkaBroker,
        *,
        default_topic: str | None = None,
        ordering: Ordering = Ordering.KEY,
        max_outstanding: int = 5000,
        middleware: Sequence[Middleware[Message, Receipt]] = (),
        retry: RetryPolicy | None = None,
        on_failure: OnFailure | None = None,
    ) -> None:
        if not isinstance(broker, KafkaBroker):
            raise ConfigError(f"broker must be a KafkaBroker, got {type(broker).__name__}")
        if not isinstance(ordering, Ordering):
            raise ConfigError(f"ordering must be Ordering.KEY, NONE or TOTAL, got {ordering!r}")
        if isinstance(max_outstanding, bool) or not isinstance(max_outstanding, int) or max_outstanding < 1:
            raise ConfigError(f"max_outstanding must be an integer >= 1, got {max_outstanding!r}")
        if retry is not None and not isinstance(retry, RetryPolicy):
            raise ConfigError(f"retry must be a RetryPolicy, got {retry!r}")
        self._broker = broker
        self._default = None if default_topic is None else check_name(default_topic)
        self._ordering = ordering
        self._places = max_outstanding
        self._middleware = tuple(middleware)
        self._retry = retry
        client_id = broker.options.client_id
        self._failures = None if on_failure is None else Failures(lambda: broker.clock, client_id, on_failure)
        self._owns = False
        self._closed = False
        self._sender: Sender | None = None
        self._pipeline: Pipeline | None = None
        self._closing: asyncio.Task[None] | None = None
        self._hurry: asyncio.Future[None] | None = None

    # -- its life -----------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the broker if it is not open; it is closed with this producer then. ``ClosedError`` after `aclose`."""
        if self._closed:
            raise ClosedError("the producer was closed")
        opened = await self._broker.open()
        self._owns = self._owns or opened
        if opened and self._closing is not None:  # which did not know of the broker
            await self._broker.aclose()
        self._sending()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def flush(self, timeout: Duration | None = None) -> None:
        """Until everything that was accepted before has its result. ``BrokerTimeoutError`` after `timeout`."""
        seconds = seconds_or_none(timeout, "timeout")
        sender = self._sending()
        try:
            async with asyncio.timeout(seconds):
                if self._pipeline is not None:
                    await self._pipeline.flush()
                await sender.flush()
                if self._failures is not None:
                    await self._failures.told()
        except TimeoutError as error:
            raise BrokerTimeoutError(f"not all messages have a result after {seconds:g} s") from error

    async def aclose(self, *, flush: bool = True, timeout: Duration = 30.0) -> None:
        """Refuse new calls, wait for what was accepted, close.

        After `timeout`, and without `flush` at once, what has no result gets ``PublishInterruptedError`` and what is
        not sent is thrown away; then ``BrokerTimeoutError`` if it was to be flushed. Twice is fine.
        """
        seconds = seconds_of(timeout, "timeout")
        first = self._closing is None
        if self._closing is None:
            self._closed = True
            loop = asyncio.get_running_loop()
            self._hurry = loop.create_future()
            if self._pipeline is not None:
                self._pipeline.close(ClosedError("the producer was closed"))
            self._closing = loop.create_task(self._close(seconds if flush else None))
            self._closing.add_done_callback(_retrieved)
        elif not flush and self._hurry is not None and not self._hurry.done():
            self._hurry.set_result(None)
            if self._sender is not None:
                await self._sender.aclose(flush=False)
        with nullcontext() if first else suppress(BrokerTimeoutError):
            await asyncio.shield(self._closing)

    # -- sending ------------------------------------------------------------------------------------------------

    async def produce(self, message: Message, *, timeout: Duration | None = None) -> ProduceResult:
        """Send it; returns once all replicas in sync have it.

        ``UsageError``, ``ConfigError`` before anything is queued; ``PublishError`` with its ``fault``;
        ``PublishTimeoutError`` after `timeout`: unknown, not unsent. Cancelled: what was accepted goes its way.
        """
        seconds = seconds_or_none(timeout, "timeout")
        sender, message = self._sending(), self._own(message)
        if self._pipeline is None:
            try:
                return await sender.send_one(message, seconds)
            except PublishError as error:
                await self._ended(message, error)
                raise
        if seconds is None:
            return cast("ProduceResult", await (await self._pipeline.submit(message)))
        return cast("ProduceResult", await in_time(seconds, message, self._pipeline.submit))

    async def produce_async(self, message: Message) -> asyncio.Future[ProduceResult]:
        """Accept it, as soon as there is room; the future of its result always resolves.

        Cancelled before it returns: it was not accepted. Cancelling the future takes nothing back.
        """
        sender, message = self._sending(), self._own(message)
        if self._pipeline is not None:
            return cast("asyncio.Future[ProduceResult]", await self._pipeline.submit(message))
        try:
            future = await sender.submit(message)
        except PublishError as error:
            await self._ended(message, error)
            raise
        if self._failures is not None:
            future.add_done_callback(lambda done: self._tell(message, done))
        return future

    async def produce_many(self, messages: Iterable[Message]) -> list[ProduceResult | PublishError]:
        """Send them, pipelined: one result per message, in order; a bad one fails alone.

        Raises only if nothing was started (``ClosedError``). Cancelled: what was accepted goes its way.
        """
        sender = self._sending()
        own = list(messages)
        if self._default is not None:
            own = [self._own(message) if isinstance(message, Message) else message for message in own]
        if self._pipeline is not None:
            return cast("list[ProduceResult | PublishError]", await self._pipeline.send_many(own))
        results = await sender.send_many(own)
        if self._failures is not None:
            for message, result in zip(own, results, strict=True):
                if isinstance(result, PublishError):
                    await self._ended(message, result)
        return results

    async def produce_batch(self, messages: Iterable[Message]) -> list[ProduceResult]:
        """Send them one after another, and stop at the first failure: nothing after it is handed over.

        ``ProduceBatchError`` with the index and the results before it. ``UsageError``, ``ConfigError`` for what is no
        message, before anything is queued.
        """
        sender = self._sending()
        own = [self._own(message) for message in messages]
        for message in own:
            try:
                sender.check(message)
            except PublishError:
                continue  # fails at its index
        results: list[ProduceResult] = []
        for index, message in enumerate(own):
            try:
                results.append(await self.produce(message))
            except (PublishError, UsageError) as error:
                if isinstance(error, ClosedError) and not results:
                    raise
                raise ProduceBatchError(index, results, unusable(message, error)) from error
        return results

    # -- as a publisher -----------------------------------------------------------------------------------------

    @property
    def capabilities(self) -> Capabilities:
        """The broker's."""
        return self._broker.capabilities

    @property
    def clock(self) -> Clock:
        """The broker's source of time."""
        return self._broker.clock

    async def publish(self, message: Message, options: PublishOptions | None = None) -> ProduceResult:
        """`produce`, under its name as a publisher. ``UnsupportedError``: ``expect``, ``delay``, ``ttl``."""
        if options is None:
            return await self.produce(message)
        for name in ("expect", "delay", "ttl"):
            if getattr(options, name) is not None:
                raise UnsupportedError(f"Kafka has no {name} for a publish, got {getattr(options, name)!r}")
        return await self.produce(message, timeout=options.timeout)

    async def publish_batch(self, messages: Sequence[Message]) -> list[Receipt | PublishError]:
        """`produce_many`, under its name as a publisher."""
        return list(await self.produce_many(messages))

    # -- inside -------------------------------------------------------------------------------------------------

    def _sending(self) -> Sender:
        if self._closed:
            raise ClosedError("the producer was closed")
        if self._sender is None:
            self._sender = self._broker.sender(self._places)
            if self._middleware or self._ordering is Ordering.TOTAL:
                self._pipeline = Pipeline(
                    self._sender,
                    self._middleware,
                    ordering=self._ordering,
                    retry=self._retry,
                    failures=self._failures,
                    places=self._places,
                )
        elif not self._broker.is_open:
            raise ClosedError("the broker was closed")
        return self._sender

    def _own(self, message: Message) -> Message:
        """With a topic: its own, else the default one."""
        if not isinstance(message, Message):
            raise UsageError(f"a Message is needed, got {type(message).__name__}")
        if message.topic:
            return message
        if self._default is None:
            raise UsageError("the message has no topic, and the producer no default_topic")
        return message.replace(topic=self._default)

    async def _ended(self, message: Message, error: PublishError) -> None:
        if self._failures is not None and isinstance(message, Message):
            await self._failures.ended(message, 1, error)

    def _tell(self, message: Message, future: asyncio.Future[ProduceResult]) -> None:
        error = None if future.cancelled() else future.exception()
        if self._failures is not None and isinstance(error, PublishError):
            self._failures.later(message, 1, error)

    async def _close(self, seconds: float | None) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + (seconds or 0.0)
        late = False
        try:
            if seconds is not None and self._pipeline is not None:
                try:
                    async with asyncio.timeout(seconds):
                        await self._pipeline.flush(self._hurry)
                except TimeoutError:
                    late = True
        finally:
            try:
                if self._pipeline is not None:
                    await self._pipeline.aclose()
                if self._sender is not None:
                    left = max(0.0, until - loop.time())
                    await self._sender.aclose(flush=seconds is not None and not late, timeout=left)
                if self._failures is not None and self._hurry is not None:
                    await self._failures.aclose(max(0.0, until - loop.time()), self._hurry)
            finally:
                if self._owns:
                    await self._broker.aclose()
        if late:
            raise BrokerTimeoutError(f"not all messages had a result after {seconds:g} s")


def _retrieved(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()
