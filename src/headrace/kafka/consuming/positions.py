"""Positions: where partitions begin and end, asked of the brokers without joining anything.

What a group has committed is asked by a consumer of that group: the driver's admin client has a call for it, but that
ends the process when the coordinator moves or has just begun (librdkafka 2.16.0, rd_kafka_handle_OffsetFetch).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

from headrace.core.broker import Start, StartKind
from headrace.kafka import driver
from headrace.kafka.consuming.places import Key, ends, place
from headrace.kafka.errors import KafkaError
from headrace.kafka.topics import Topics

__all__ = ["Positions"]

T = TypeVar("T")

_REQUEST = 10.0
_PATIENCE = 30.0
_AGAIN = 0.1


class Positions:
    """One for a broker. What may pass is asked again for half a minute."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics

    async def keys(self, names: Iterable[str]) -> list[Key]:
        """All partitions of these topics. ``UnknownTopicError``."""
        return [(name, number) for name in names for number in range(await self._topics.partitions(name))]

    async def starts(self, keys: Iterable[Key], start: Start) -> dict[Key, int]:
        """The offset of `start` in each partition: beginning, end, or the first record stored at or after a time."""
        keys = list(keys)
        if start.kind is StartKind.NEW:
            return await self.ends(keys, committed=False)
        if start.kind is not StartKind.SINCE or start.time is None:
            return await self._listed(dict.fromkeys(keys, _specs().earliest()), committed=False)
        stamp = max(0, int(start.time.timestamp() * 1000))
        found = await self._listed(dict.fromkeys(keys, _specs().for_timestamp(stamp)), committed=False)
        missing = [key for key, offset in found.items() if offset < 0]
        return found | (await self.ends(missing, committed=False) if missing else {})

    async def ends(self, keys: Iterable[Key], *, committed: bool) -> dict[Key, int]:
        """The offset behind the last record of each; `committed`: of the last one that no open transaction hides."""
        return await self._listed(dict.fromkeys(keys, _specs().latest()), committed=committed)

    async def left(self, places: Mapping[Key, int], *, committed: bool, from_end: bool) -> int:
        """How many offsets stand between these places (below 0: the beginning) and the ends. Never too low.

        A place behind its end is out of range: the log was cut, or is another one. Reading goes on there as
        `on_out_of_range` says: at its end (`from_end`), else everything counts, also what will only be an error.
        """
        ends = await self.ends(places, committed=committed)
        beyond = [key for key, offset in places.items() if offset > ends[key] and not from_end]
        if beyond and committed:  # an open transaction may hide what stands there
            last = await self.ends(beyond, committed=False)
            beyond = [key for key in beyond if places[key] > last[key]]
        unplaced = [key for key, offset in places.items() if offset < 0]
        first = await self.starts([*unplaced, *beyond], Start.all())
        return sum(max(0, ends[key] - first.get(key, offset)) for key, offset in places.items())

    async def _listed(self, wanted: Mapping[Key, Any], *, committed: bool) -> dict[Key, int]:
        level = driver.IsolationLevel.READ_COMMITTED if committed else driver.IsolationLevel.READ_UNCOMMITTED

        async def ask() -> dict[Key, int]:
            asked = {place(*key): spec for key, spec in wanted.items()}
            answers = self._topics.admin.list_offsets(asked, isolation_level=level, request_timeout=_REQUEST)
            return {
                (each.topic, each.partition): (await self._topics.answer(answer)).offset
                for each, answer in answers.items()
            }

        return await _patiently(ask) if wanted else {}


def _specs() -> Any:
    return driver.OffsetSpec  # the driver's own annotations are not whole


async def _patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """A leader or coordinator that moves is no answer."""
    loop = asyncio.get_running_loop()
    until = loop.time() + _PATIENCE
    while True:
        try:
            return await ask()
        except KafkaError as error:
            if ends(error) or not error.retriable or loop.time() > until:
                raise
        await asyncio.sleep(_AGAIN)
