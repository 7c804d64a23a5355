"""Letters in a queue: it shows what it hands out, so all of it is held for a moment, and handed back."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from headrace.core.broker import Broker, SubscribeOptions
from headrace.core.delivery import Position
from headrace.core.errors import UnsupportedError
from headrace.deadletters.holding import GROUP, HeldLetter, held
from headrace.deadletters.letters import Letter

__all__ = ["InQueue"]

_PAGE = 250
_QUIET = 2.0
"""Seconds without a letter after which all that others do not hold has been seen."""
_MOST_HELD = 10_000
"""Letters in memory at once."""


class InQueue:
    """One pass over it: what is not removed comes back when the pass is over."""

    def __init__(self, broker: Broker, topic: str, options: SubscribeOptions) -> None:
        self._broker = broker
        self._topic = topic
        self._most = options.max_in_flight or _MOST_HELD
        self._options = replace(options, group=options.group or GROUP, max_in_flight=self._most)

    async def look(self, after: Position | None, *, limit: int | None = None) -> AsyncGenerator[Letter, None]:
        """See `Source.look`. ``UnsupportedError``: `after`, and more letters than can be held."""
        if after is not None:
            raise UnsupportedError("a queue has no positions to read after")
        left = limit
        async with aclosing(self.take()) as letters:
            async for taken in letters:
                yield taken.letter
                left = None if left is None else left - 1
                if left == 0:
                    return

    async def take(self) -> AsyncGenerator[HeldLetter, None]:
        """See `Source.take`. ``UnsupportedError``: more letters than can be held."""
        seen: set[str] = set()
        count = 0
        async with self._broker.subscribe(self._topic, self._options) as subscription, held(subscription) as started:
            while page := await subscription.pull(min(_PAGE, self._most - count), _QUIET):
                before = len(seen)
                for delivery in page:
                    if delivery.message.id not in seen:
                        seen.add(delivery.message.id)
                        yield HeldLetter(delivery, started)
                if len(seen) == before:
                    return  # they come round again
                count += sum(delivery.outcome is None for delivery in page)
                if count >= self._most and await subscription.backlog() != 0:
                    raise UnsupportedError(
                        f"a queue shows no more than it can hold at once, {self._most:,} letters, and there may be more"
                    )
                if count >= self._most:
                    return
