"""Topic: where messages go. Turns values into messages, runs the send middleware, hands over to the publisher."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from headrace.core.broker import Capabilities, Publisher, PublishOptions, Receipt
from headrace.core.clock import Clock, current_clock
from headrace.core.codec import Codec
from headrace.core.duration import seconds_of
from headrace.core.errors import ConfigError, PublishError, UnsupportedError, UsageError
from headrace.core.headers import NO_HEADERS, Headers, HeadersLike
from headrace.core.message import Message, check_message, check_topic, new_id
from headrace.flow.compose import (
    BatchMiddleware,
    Middleware,
    SendMany,
    behind,
    check_count,
    compose,
    compose_many,
    rejected,
)
from headrace.flow.handlers import codec_for
from headrace.flow.writer import MessageWriter

__all__ = ["SendFunction", "Topic"]

SendFunction = Callable[[Message], Awaitable[Receipt]]
"""An ``async`` function that may stand for a publisher."""

_SIDE_BY_SIDE = 64
_NOTHING = Capabilities()


class Topic:
    """Sends to `name` through `publisher`: a broker, another `Publisher`, or an ``async (Message) -> Receipt``.

    ``middleware`` goes around each send, the first is the outermost. ``codec`` turns values into bodies; without it
    ``bytes`` go as they are, ``str`` as UTF-8, anything else as JSON. A topic is itself a `Publisher`.
    """

    def __init__(
        self,
        publisher: Publisher | SendFunction,
        name: str,
        *,
        middleware: Sequence[Middleware[Message, Receipt]] = (),
        codec: Codec[Any] | None = None,
    ) -> None:
        self.name = check_topic(name)
        self._publisher = publisher if isinstance(publisher, Publisher) else None
        if self._publisher is None and not callable(publisher):
            raise ConfigError(f"publisher must be a broker or an async function, got {publisher!r}")
        self._middleware = tuple(middleware)
        self._codec = codec
        self._codecs: dict[type, Codec[Any]] = {}
        self._clock = self._publisher.clock if self._publisher is not None else None
        publish = self._publisher.publish if self._publisher is not None else cast("SendFunction", publisher)
        self._send = compose(publish, *self._middleware)
        self._many = self._compose_many()

    @property
    def capabilities(self) -> Capabilities:
        """The publisher's; ``batch_key_order`` only if every middleware takes whole batches."""
        capabilities = self._publisher.capabilities if self._publisher is not None else _NOTHING
        if capabilities.batch_key_order and self._many is None:
            return dataclasses.replace(capabilities, batch_key_order=False)
        return capabilities

    @property
    def clock(self) -> Clock:
        """The publisher's source of time."""
        return self._clock if self._clock is not None else current_clock()

    # -- sending ------------------------------------------------------------------------------------------------

    async def send(
        self,
        value: Any,
        *,
        key: bytes | str | None = None,
        headers: HeadersLike = (),
        id: str | None = None,
        options: PublishOptions | None = None,
    ) -> Receipt:
        """Publish a value, bytes, text or a `Message`; returns once the broker has custody.

        ``CodecError`` if the value cannot be encoded, ``UnsupportedError`` for an option that the engine lacks,
        ``PublishError`` with its ``fault`` if it was not stored.
        """
        return await self.publish(self.message(value, key=key, headers=headers, id=id), options)

    async def send_many(self, values: Iterable[Any]) -> list[Receipt | PublishError]:
        """Publish many at once: one result per value, in order; an item fails alone."""
        return await self.publish_batch([self.message(value) for value in values])

    async def publish(self, message: Message, options: PublishOptions | None = None) -> Receipt:
        """Publish a message whose topic is this one, or not set yet."""
        message = self._own(message)
        check_message(message)
        if options is None:
            return await self._send(message)
        self._check_options(options)
        publisher = self._publisher
        if publisher is None:
            raise UnsupportedError("a function takes no publish options: give the topic a broker")

        async def publish(changed: Message) -> Receipt:
            return await publisher.publish(changed, options)

        return await compose(publish, *self._middleware)(message)

    async def publish_batch(self, messages: Sequence[Message]) -> list[Receipt | PublishError]:
        """Publish many: one result per message, in order. One of another topic is ``REJECTED`` alone.

        Where ``batch_key_order``, nothing overtakes a failed item of its key: it is ``UNAVAILABLE``.
        """
        results: list[Receipt | PublishError | None] = []
        good: list[Message] = []
        blocked: set[bytes] = set()
        for message in messages:
            try:
                own = self._own(message)
                check_message(own)
            except (UsageError, PublishError) as error:
                results.append(rejected(message, error))
                if message.key is not None and self.capabilities.batch_key_order:
                    blocked.add(message.key)
                continue
            late = own.key in blocked
            results.append(behind(own) if late else None)
            if not late:
                good.append(own)
        if not good:
            answers: list[Receipt | PublishError] = []
        elif self._many is not None:
            answers = check_count(await self._many(good), len(good))
        else:
            answers = await self._side_by_side(good)
        rest = iter(answers)
        return [next(rest) if result is None else result for result in results]

    def message(
        self,
        value: Any,
        *,
        key: bytes | str | None = None,
        headers: HeadersLike = (),
        id: str | None = None,
        time_ns: int | None = None,
    ) -> Message:
        """The message that `send` would publish. Of a `Message` given, what is named here is replaced."""
        raw = key.encode() if isinstance(key, str) else key
        given = headers if isinstance(headers, Headers) else Headers(headers) if headers else NO_HEADERS
        if isinstance(value, Message):
            return _replaced(self._own(value), raw, given, id, time_ns)
        body, content_type = self._encoded(value)
        if content_type is not None and "content-type" not in given:
            given = given.add("Content-Type", content_type)
        return Message(
            topic=self.name,
            body=body,
            key=raw,
            headers=given,
            id=new_id() if id is None else id,
            time_ns=self.clock.now_ns() if time_ns is None else time_ns,
        )

    def writer(
        self,
        *,
        key: bytes | str | None = None,
        headers: HeadersLike = (),
        id: str | None = None,
        options: PublishOptions | None = None,
    ) -> MessageWriter:
        """A writer for one message: published when its block ends, discarded when the block raises."""
        raw = key.encode() if isinstance(key, str) else key
        given = headers if isinstance(headers, Headers) else Headers(headers)

        def build(body: bytes, with_headers: Headers) -> Message:
            return self.message(
                Message(topic=self.name, body=body, time_ns=self.clock.now_ns()), key=raw, headers=with_headers, id=id
            )

        async def publish(message: Message) -> Receipt:
            return await self.publish(message, options)

        return MessageWriter(build, publish, given)

    # -- inside -------------------------------------------------------------------------------------------------

    def _own(self, message: Message) -> Message:
        if message.topic == self.name:
            return message
        if message.topic:
            raise UsageError(f"a message for {message.topic!r} was sent through topic {self.name!r}")
        return message.replace(topic=self.name)

    def _encoded(self, value: object) -> tuple[bytes, str | None]:
        if self._codec is not None:
            return self._codec.encode(value), self._codec.content_type
        if isinstance(value, bytes):
            return value, None
        kind = type(value)
        codec = self._codecs.get(kind)
        if codec is None:
            codec = self._codecs[kind] = codec_for(Any if isinstance(value, bool | int | float) else kind)
        return codec.encode(value), codec.content_type

    def _check_options(self, options: PublishOptions) -> None:
        capabilities = self.capabilities
        if options.expect is not None and not capabilities.expect:
            raise UnsupportedError("this engine has no expect")
        if options.ttl is not None and not capabilities.ttl:
            raise UnsupportedError("this engine has no ttl")
        if options.delay is not None and seconds_of(options.delay, "delay") > 0:
            if capabilities.max_delay is None:
                raise UnsupportedError("this engine cannot delay a message")
            if seconds_of(options.delay, "delay") > capabilities.max_delay.total_seconds():
                raise UnsupportedError(f"this engine delays by at most {capabilities.max_delay}, got {options.delay!r}")

    def _compose_many(self) -> SendMany | None:
        layers: list[BatchMiddleware] = []
        for layer in self._middleware:
            whole: object = layer
            if isinstance(whole, BatchMiddleware):
                layers.append(whole)
        if self._publisher is None or len(layers) < len(self._middleware):
            return None
        key_order = self._publisher.capabilities.batch_key_order
        return compose_many(self._publisher.publish_batch, *layers, key_order=key_order)

    async def _side_by_side(self, messages: Sequence[Message]) -> list[Receipt | PublishError]:
        """A middleware without `many`: one by one, at most 64 at once, those of one key in order."""
        results: list[Receipt | PublishError | None] = [None] * len(messages)
        queues: dict[object, list[int]] = {}
        for index, message in enumerate(messages):
            queues.setdefault(index if message.key is None else message.key, []).append(index)
        waiting = iter(queues.values())

        async def work() -> None:
            for queue in waiting:  # shared: each queue goes to the next one that is free
                for index in queue:
                    results[index] = await self._result(messages[index])

        async with asyncio.TaskGroup() as group:
            for _ in range(min(_SIDE_BY_SIDE, len(queues))):
                group.create_task(work())
        return cast("list[Receipt | PublishError]", results)

    async def _result(self, message: Message) -> Receipt | PublishError:
        try:
            return await self._send(message)
        except Exception as error:  # noqa: BLE001  (one bad item must not take its neighbours along)
            return rejected(message, error)


def _replaced(
    message: Message,
    key: bytes | None,
    headers: Headers,
    id: str | None,
    time_ns: int | None,
) -> Message:
    fields: Mapping[str, object | None] = {"key": key, "headers": headers or None, "id": id, "time_ns": time_ns}
    changed = {name: value for name, value in fields.items() if value is not None}
    return message.replace(**changed) if changed else message
