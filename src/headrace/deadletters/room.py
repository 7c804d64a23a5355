"""DeadLetters: look at the messages that died on a topic, group them by error, and send them on their way again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, cast

from headrace.core.broker import Broker, SubscribeOptions
from headrace.core.delivery import Position
from headrace.core.errors import ConfigError, Fault, HeadraceError, PublishError, UsageError
from headrace.core.message import Message, check_topic
from headrace.deadletters.letters import ErrorGroup, Letter, RedriveReport
from headrace.deadletters.sources import Taken, source_of

__all__ = ["DeadLetters"]


_NO_OPTIONS = SubscribeOptions()


class DeadLetters:
    """The dead letters of one topic. Reading moves nothing and leaves nothing behind.

    ``subscribe``: how a log or a queue is read (of streams: ``UnsupportedError``); its ``group`` is the one that
    remembers what was redriven, ``headrace-redrive`` if ``None``; ``start`` must be ``None``. Where the engine can say
    what is left, the end is known; ``BrokerTimeoutError`` if letters are left and none comes for a minute.
    """

    def __init__(self, broker: Broker, topic: str, *, subscribe: SubscribeOptions = _NO_OPTIONS) -> None:
        self._broker = broker
        self._topic = check_topic(topic)
        self._source = source_of(broker, topic, subscribe)

    async def read(self, *, limit: int = 100, after: Position | None = None) -> list[Letter]:
        """At most `limit` letters (100), oldest first, behind the position `after`."""
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise ConfigError(f"limit must be an integer >= 1, got {limit!r}")
        async with aclosing(cast("Any", self._source.look(after, limit=limit))) as letters:
            return [letter async for letter in letters]

    async def get(self, id: str) -> Letter | None:
        """The letter with this id, its own or the original one; ``None`` = there is none."""
        async with aclosing(cast("Any", self._source.look(None))) as letters:
            async for letter in letters:
                if id in (letter.id, letter.message.id):
                    return cast("Letter", letter)
        return None

    async def by_error(self) -> list[ErrorGroup]:
        """All letters by error and reason, the largest group first."""
        groups: dict[tuple[str, str], ErrorGroup] = {}
        async with aclosing(cast("Any", self._source.look(None))) as letters:
            async for letter in letters:
                key = (letter.error, letter.reason)
                groups[key] = _joined(groups.get(key), letter)
        return sorted(groups.values(), key=lambda group: -group.count)

    async def redrive(
        self,
        *,
        where: Callable[[Letter], bool] | None = None,
        edit: Callable[[Message], Message] | None = None,
        to: str | None = None,
        rate: float | None = None,
        limit: int | None = None,
        dry_run: bool = False,
    ) -> RedriveReport:
        """Restore each letter (that `where` wants), edit it, publish it (to its source, or `to`), then remove it.

        Published before removed: a crash in between sends one again, under the same id. ``rate``: messages a second;
        ``limit``: at most so many are moved; ``dry_run``: publish and remove nothing. Every letter that is there at
        the beginning is seen once. A letter refused for good stays and counts as failed; any other error stops it and
        is raised, with what was done as a note.

        On a log removed means passed by a group. It never passes what stays, and remembers by itself what was moved
        behind that: ``UnsupportedError`` after 300 gaps, ``BrokerTimeoutError`` behind more letters than an engine lets
        be unfinished (Kafka: ``max_span``). What was moved until then stays moved.
        """
        if to is not None:
            check_topic(to)
        pace = _Pace(rate)
        moved = skipped = failed = 0
        try:
            async with aclosing(cast("Any", self._source.take())) as letters:
                async for taken in letters:
                    if where is not None and not where(taken.letter):
                        skipped += 1
                        continue
                    await pace.wait()
                    done = await self._move(taken, edit, to, dry_run=dry_run)
                    moved, failed = moved + (done is True), failed + (done is False)
                    if limit is not None and moved >= limit:
                        break
        except HeadraceError as error:
            error.add_note(f"redrive stopped: {moved} moved, {skipped} skipped, {failed} failed")
            raise
        return RedriveReport(moved, skipped, failed)

    async def _move(
        self, taken: Taken, edit: Callable[[Message], Message] | None, to: str | None, *, dry_run: bool
    ) -> bool | None:
        """Whether it was moved; ``None``: somebody else has it."""
        try:
            message = taken.letter.restore()
        except UsageError:  # a stranger's message: nobody knows where it belongs
            return False
        if edit is not None:
            message = edit(message)
        if to is not None:
            message = message.replace(topic=to)
        if dry_run:
            return True
        if not taken.start():
            return None
        try:
            await self._broker.publish(message)
        except PublishError as error:
            if error.fault is not Fault.REJECTED:
                raise
            return False
        await taken.remove()
        return True


class _Pace:
    """Not more than `rate` a second, evenly."""

    def __init__(self, rate: float | None) -> None:
        if rate is not None and not 0 < rate < float("inf"):
            raise ConfigError(f"rate must be messages a second > 0, got {rate!r}")
        self._step = None if rate is None else 1 / rate
        self._next: float | None = None

    async def wait(self) -> None:
        if self._step is None:
            return
        now = asyncio.get_running_loop().time()
        due = now if self._next is None else max(self._next, now)
        self._next = due + self._step
        if due > now:
            await asyncio.sleep(due - now)


def _joined(group: ErrorGroup | None, letter: Letter) -> ErrorGroup:
    if group is None:
        return ErrorGroup(letter.error, letter.reason, 1, letter.first, letter.last, letter)
    firsts = [time for time in (group.first, letter.first) if time is not None]
    lasts = [time for time in (group.last, letter.last) if time is not None]
    return ErrorGroup(
        group.error, group.reason, group.count + 1, min(firsts, default=None), max(lasts, default=None), letter
    )
