"""compose: middleware around one step, put together once. The first one given is the outermost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar, cast, runtime_checkable

from headrace.core.broker import Receipt
from headrace.core.delivery import Delivery
from headrace.core.errors import Fault, PublishError, UsageError
from headrace.core.message import Message

__all__ = [
    "BatchMiddleware",
    "Middleware",
    "ReceiveRewrite",
    "SendMany",
    "SendRewrite",
    "behind",
    "check_count",
    "compose",
    "compose_many",
    "rejected",
    "send_changed",
]

T = TypeVar("T")
R = TypeVar("R")

Middleware = Callable[[T, Callable[[T], Awaitable[R]]], Awaitable[R]]
"""``async (item, call_next) -> result``: passes on by ``await call_next(item)``, never changes its item."""

SendResult = Receipt | PublishError
SendMany = Callable[[Sequence[Message]], Awaitable[list[SendResult]]]
"""Many messages in, one result per message out, in the same order."""


@runtime_checkable
class BatchMiddleware(Protocol):
    """A send middleware that takes a whole batch at once, so that a batch needs no task per message."""

    async def many(self, messages: Sequence[Message], call_next: SendMany) -> list[Receipt | PublishError]:
        """One result per message, in order."""
        ...


def compose(step: Callable[[T], Awaitable[R]], *middleware: Middleware[T, R]) -> Callable[[T], Awaitable[R]]:
    """``compose(step, a, b)`` is ``a(b(step))``. Call it once; what it gives makes no closure per item."""
    for layer in reversed(middleware):
        step = _around(step, layer)
    return step


def compose_many(step: SendMany, *middleware: BatchMiddleware, key_order: bool = False) -> SendMany:
    """The same for batches, over each middleware's `many`.

    With `key_order` nothing is passed on behind an item of its key that a middleware failed: it is ``UNAVAILABLE``.
    """
    for layer in reversed(middleware):
        step = _around(step, _in_key_order(layer) if key_order else layer.many)
    return step


def _in_key_order(layer: BatchMiddleware) -> Callable[[Sequence[Message], SendMany], Awaitable[list[SendResult]]]:
    async def many(messages: Sequence[Message], call_next: SendMany) -> list[SendResult]:
        async def send(passed: Sequence[Message]) -> list[SendResult]:
            if len(passed) == len(messages):
                return await call_next(passed)
            held = _behind_failed(messages, passed)
            going = [message for message in passed if message.id not in held]
            answers = iter(check_count(await call_next(going), len(going)) if going else ())
            return [behind(message) if message.id in held else next(answers) for message in passed]

        return await layer.many(messages, send)

    return many


def _behind_failed(messages: Sequence[Message], passed: Sequence[Message]) -> set[str]:
    """Ids of those that stand behind one of their topic and key that was not passed on."""
    ids, topics = {message.id for message in passed}, {message.topic for message in passed}
    held: set[str] = set()
    blocked: set[tuple[str, bytes]] = set()
    for message in messages:
        if message.key is None or message.topic not in topics:  # another topic: passed on in a batch of its own
            continue
        if (message.topic, message.key) in blocked:
            held.add(message.id)
        elif message.id not in ids:
            blocked.add((message.topic, message.key))
    return held


def behind(message: Message) -> PublishError:
    """The result of an item that is not sent because an earlier one of its key failed."""
    return PublishError("an earlier message of its key failed", message_id=message.id, fault=Fault.UNAVAILABLE)


def _around(step: Callable[[T], Awaitable[R]], layer: Middleware[T, R]) -> Callable[[T], Awaitable[R]]:
    # A plain function: it gives the layer's own coroutine, so a layer costs one coroutine and not two.
    def call(item: T) -> Awaitable[R]:
        return layer(item, step)

    return call


class SendRewrite:
    """Base of a send middleware that only changes the message: write `change`, a pure function."""

    def change(self, message: Message) -> Message:
        """The message to pass on."""
        raise NotImplementedError

    async def __call__(self, message: Message, call_next: Callable[[Message], Awaitable[Receipt]]) -> Receipt:
        """Pass the changed message on."""
        return await call_next(self.change(message))

    async def many(self, messages: Sequence[Message], call_next: SendMany) -> list[Receipt | PublishError]:
        """Pass the changed messages on; one that cannot be changed is ``REJECTED`` alone, with the cause."""
        return await send_changed(messages, self.change, call_next)


class ReceiveRewrite:
    """Base of a receive middleware that only changes the message: write `change`, a pure function."""

    def change(self, message: Message) -> Message:
        """The message that the next one sees."""
        raise NotImplementedError

    async def __call__(self, delivery: Delivery, call_next: Callable[[Delivery], Awaitable[None]]) -> None:
        """Pass a view with the changed message on; the delivery itself stays as it came, for a retry."""
        message = delivery.message
        changed = self.change(message)
        await call_next(delivery if changed is message else delivery.with_message(changed))


async def send_changed(
    messages: Sequence[Message], change: Callable[[Message], Message], send: SendMany
) -> list[Receipt | PublishError]:
    """Change each message and send those for which that went well; one result per message, in order."""
    results: list[Receipt | PublishError | None] = []
    changed: list[Message] = []
    for message in messages:
        try:
            changed.append(change(message))
            results.append(None)
        except Exception as error:  # noqa: BLE001  (one bad item must not take its neighbours along)
            results.append(rejected(message, error))
    answers = iter(check_count(await send(changed), len(changed)) if changed else ())
    return [next(answers) if result is None else result for result in results]


def rejected(message: Message, cause: Exception) -> PublishError:
    """The result of an item that never got as far as the broker."""
    if isinstance(cause, PublishError):
        return cause
    error = PublishError(f"{type(cause).__name__}: {cause}", message_id=message.id, fault=Fault.REJECTED)
    error.__cause__ = cause
    return error


def check_count(results: list[Receipt | PublishError], wanted: int) -> list[Receipt | PublishError]:
    """A middleware that loses or invents results would shift the others: ``UsageError``."""
    if len(cast("Sequence[object]", results)) != wanted:
        raise UsageError(f"a send middleware gave {len(results)} results for {wanted} messages")
    return results
