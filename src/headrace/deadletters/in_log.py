"""Letters in a log: it gives up no single record, so a group remembers which of them were moved.

A letter that was moved is acknowledged, one that stays is not: the group's place never passes it, and what was moved
behind it is remembered by itself, as for any worker whose messages end in any order. So a crash at any point loses
nothing, and may send those again that were moved in the second before. To publish what stays once more at the end, so
that the group may pass all, would lose nothing either, but copies every letter that stays with each redrive, and those
that look at the topic see all copies.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from headrace.core.broker import Broker, Start, SubscribeOptions, Subscription
from headrace.core.delivery import Delivery, Position
from headrace.core.errors import BrokerTimeoutError, UnsupportedError
from headrace.deadletters.holding import GROUP, HeldLetter, held
from headrace.deadletters.letters import Letter, letter_from

__all__ = ["InLog"]

_PAGE = 500
_WAIT = 0.5
"""Seconds of a pull; after an empty one the engine is asked what is left."""
_QUIET = 2.0
"""The same, where the engine cannot say: nothing for so long counts as the end."""
_PATIENCE = 60.0
"""Seconds without a letter while some are left. A group may need 45 to give up a member that was killed."""
_REMEMBER = 1.0
"""Seconds after which the group is made to remember what was moved behind a letter that stays: by itself Kafka's
commits only what has no gap before it, until the end."""
_MOST_HELD = 1_000_000
"""Letters that stay are neither settled nor kept in memory here; this is no bound that anybody should meet."""
_MOST_RUNS = 300
"""Runs of moved letters behind one that stays: Kafka has room for so many in what a commit may say (2,000 bytes)."""


class InLog:
    """A private subscription shows all of it; one in a group hands out what was not moved yet."""

    def __init__(self, broker: Broker, topic: str, options: SubscribeOptions) -> None:
        self._broker = broker
        self._topic = topic
        self._options = options

    async def look(self, after: Position | None, *, limit: int | None = None) -> AsyncGenerator[Letter, None]:
        """See `Source.look`. What was moved is shown too: it is still there."""
        left = limit
        async with aclosing(self._all()) as deliveries:
            async for delivery in deliveries:
                position = delivery.position
                if after is not None and position is not None and _is_seen(position, after):
                    continue
                yield letter_from(delivery.message, position)
                left = None if left is None else left - 1
                if left == 0:
                    return

    async def take(self) -> AsyncGenerator[_InLogTaken, None]:
        """See `Source.take`. Those that the group has not moved yet."""
        newest = await self._newest()  # what dies again meanwhile must not come round a second time
        unseen = set(newest)
        if not unseen:
            return
        options = replace(
            self._options,
            group=self._options.group or GROUP,
            max_in_flight=self._options.max_in_flight or _MOST_HELD,
            create=self._options.create is not False,  # the topic is there; only the group may have to be made
        )
        loop = asyncio.get_running_loop()
        flushed = loop.time()
        sources = {source: _Runs() for source in newest}
        async with (
            self._broker.subscribe(self._topic, options) as subscription,
            held(subscription) as started,
            aclosing(_to_the_end(subscription)) as pages,
        ):
            async for page in pages:
                for delivery in page:
                    position = delivery.position
                    if position is None or position.value > newest.get(position.source, -1):
                        continue
                    taken = _InLogTaken(delivery, position, sources[position.source], started)
                    yield taken
                    if taken.over() and loop.time() - flushed > _REMEMBER:
                        await subscription.flush()
                        flushed = loop.time()
                    if position.value == newest[position.source]:
                        unseen.discard(position.source)
                        if not unseen:
                            return

    async def _all(self) -> AsyncGenerator[Delivery, None]:
        options = replace(self._options, group=None, start=Start.all())
        async with (
            self._broker.subscribe(self._topic, options) as subscription,
            aclosing(_to_the_end(subscription)) as pages,
        ):
            async for page in pages:
                for delivery in page:
                    delivery.ack()  # in no group: it makes room for the next, and nobody hears of it
                    yield delivery

    async def _newest(self) -> dict[str, int]:
        """Of each source the place of its newest letter."""
        newest: dict[str, int] = {}
        async with aclosing(self._all()) as deliveries:
            async for delivery in deliveries:
                if (position := delivery.position) is not None:
                    newest[position.source] = position.value
        return newest


class _InLogTaken(HeldLetter):
    def __init__(self, delivery: Delivery, position: Position, runs: _Runs, started: dict[Delivery, None]) -> None:
        super().__init__(delivery, started)
        self._runs = runs
        runs.next(position)

    def start(self) -> bool:
        self._runs.check(self.letter.position)
        return super().start()

    def over(self) -> bool:
        """Whether it was moved."""
        moved = self._delivery.outcome is not None
        self._runs.passed(moved=moved)
        return moved


@dataclass
class _Runs:
    """In one source: how often moved letters stand behind one that stays. A group remembers each such run by itself."""

    stays: bool = False
    open: bool = False
    """Whether what stands right before was moved, or is no letter."""
    count: int = 0
    last: int = -1

    def next(self, position: Position) -> None:
        if self.stays and position.value != self.last + 1:
            self.passed(moved=True)  # by an earlier redrive; or there never was a letter
        self.last = position.value

    def check(self, position: Position | None) -> None:
        if self.stays and not self.open and self.count >= _MOST_RUNS:
            raise UnsupportedError(
                f"a log cannot remember more than {_MOST_RUNS} gaps among the letters that stay, and {position} would "
                "make one more: move those before it, or all"
            )

    def passed(self, *, moved: bool) -> None:
        self.stays = self.stays or not moved
        self.count += self.stays and moved and not self.open
        self.open = moved


async def _to_the_end(subscription: Subscription) -> AsyncGenerator[Sequence[Delivery], None]:
    """Pages of what is there, until the engine says that nothing is left.

    ``BrokerTimeoutError``: something is left, and nothing came.
    """
    loop = asyncio.get_running_loop()
    left, heard = await subscription.backlog(), loop.time()
    while left is None or left > 0:
        page = await subscription.pull(_PAGE, _QUIET if left is None else _WAIT)
        if page:
            yield page
            heard = loop.time()
            left = None if left is None else left - len(page)
            if left is None or left > 0:  # it may be too high, and is asked for anew once nothing comes
                continue
        elif left is None:
            return
        now_left = await subscription.backlog()
        if left is not None and now_left is not None and now_left < left:
            heard = loop.time()  # somebody else goes on with them
        left = now_left
        if left and loop.time() - heard > _PATIENCE:
            raise BrokerTimeoutError(
                f"{left:,} more are there, and none came for {_PATIENCE:g} s: another redrive holds them, or too many "
                "of those before them stay (an engine bounds what is unfinished: give subscribe= options with more)"
            )


def _is_seen(position: Position, after: Position) -> bool:
    return position.source == after.source and position <= after
