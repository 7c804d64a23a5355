"""by_topic: another chain of middleware per topic, each composed once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

from headrace.core.broker import Receipt
from headrace.core.delivery import Delivery
from headrace.core.errors import PublishError
from headrace.core.message import Message
from headrace.flow.compose import BatchMiddleware, Middleware, SendMany, check_count, compose, compose_many

__all__ = ["ByTopic", "by_topic"]

_Chain = Sequence[Middleware[Any, Any]]


def by_topic(chains: Mapping[str, _Chain], default: _Chain = ()) -> ByTopic:
    """Middleware that goes through the chain of the item's topic, or through `default`. For sending and receiving."""
    every = [tuple(default), *(tuple(chain) for chain in chains.values())]
    whole = all(isinstance(cast("object", layer), BatchMiddleware) for chain in every for layer in chain)
    return _WholeByTopic(chains, default) if whole else ByTopic(chains, default)


class ByTopic:
    """See `by_topic`."""

    def __init__(self, chains: Mapping[str, _Chain], default: _Chain = ()) -> None:
        self._chains = {topic: tuple(chain) for topic, chain in chains.items()}
        self._default = tuple(default)
        self._next: object = None
        self._composed: dict[str | None, Callable[[Any], Awaitable[Any]]] = {}

    async def __call__(self, item: Any, call_next: Callable[[Any], Awaitable[Any]]) -> Any:
        """Go on through the chain of the item's topic."""
        topic = item.message.topic if isinstance(item, Delivery) else cast("Message", item).topic
        name = topic if topic in self._chains else None
        if call_next is not self._next:  # the same one every time, but for a send with options
            self._next = call_next
            self._composed = {}
        step = self._composed.get(name)
        if step is None:
            step = self._composed[name] = compose(call_next, *self._chain(name))
        return await step(item)

    def _chain(self, name: str | None) -> tuple[Middleware[Any, Any], ...]:
        return self._default if name is None else self._chains[name]


class _WholeByTopic(ByTopic):
    """All its chains take whole batches, so it does too."""

    async def many(self, messages: Sequence[Message], call_next: SendMany) -> list[Receipt | PublishError]:
        """Each topic's messages as one batch; results in the order of `messages`."""
        parts: dict[str | None, list[int]] = {}
        for index, message in enumerate(messages):
            parts.setdefault(message.topic if message.topic in self._chains else None, []).append(index)
        results: list[Any] = [None] * len(messages)
        for name, indexes in parts.items():
            layers = cast("tuple[BatchMiddleware, ...]", self._chain(name))
            answers = await compose_many(call_next, *layers)([messages[index] for index in indexes])
            for index, answer in zip(indexes, check_count(answers, len(indexes)), strict=True):
                results[index] = answer
        return results
