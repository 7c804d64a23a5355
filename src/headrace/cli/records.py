"""Topics of Kafka as commands read them: partition by partition, in no group, and without a trace."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING

from headrace.cli.exits import NotFoundError
from headrace.cli.messages import Stored
from headrace.core.broker import Broker, Start, SubscribeOptions
from headrace.core.delivery import Position
from headrace.core.errors import ConfigError, UnsupportedError

if TYPE_CHECKING:
    from headrace.kafka.broker import KafkaBroker

__all__ = ["Spans", "delete_topic", "kafka_of", "newest", "one", "only", "read", "read_partition", "spans_of", "topics"]

Spans = Mapping[int, tuple[int, int]]
"""Of each partition the first offset, and the one behind the last."""

_PAGE = 1_000
_WAIT = 0.5
"""Seconds of a pull. After an empty one we ask whether the end is reached: what stands last may be no record."""


def kafka_of(broker: Broker) -> KafkaBroker | None:
    """The broker, if it is Kafka."""
    from headrace.kafka.broker import KafkaBroker

    return broker if isinstance(broker, KafkaBroker) else None


async def topics(kafka: KafkaBroker, prefix: str = "") -> list[str]:
    """The topics whose names begin so."""
    found: list[str] = [name for name in (await kafka.topics.metadata()).topics if name.startswith(prefix)]
    return sorted(found)


async def spans_of(kafka: KafkaBroker, topic: str, partition: int | None = None) -> Spans:
    """What stands in all partitions, or in one. ``UnknownTopicError``, ``NotFoundError``."""
    from headrace.kafka.consuming.positions import Positions

    if "*" in topic or ">" in topic:
        raise UnsupportedError(f"Kafka reads topics by name, without wildcards, got {topic!a}")
    positions = Positions(kafka.topics)
    keys = [key for key in await positions.keys([topic]) if partition is None or key[1] == partition]
    if not keys:
        raise NotFoundError(f"topic {topic} has no partition {partition}")
    first, end = await positions.starts(keys, Start.all()), await positions.ends(keys, committed=True)
    return {key[1]: (first[key], end[key]) for key in keys}


def only(topic: str, spans: Spans) -> int:
    """The one partition; ``ConfigError`` where there are several, because an offset counts in one."""
    if len(spans) > 1:
        raise ConfigError(f"offsets count in one partition, and {topic!a} has {len(spans)}: say --partition")
    return next(iter(spans))


async def read(kafka: KafkaBroker, topic: str) -> AsyncGenerator[Stored, None]:
    """Everything that is on `topic` now, of each partition in its order. A missing topic has nothing."""
    if topic not in await topics(kafka):
        return
    spans = await spans_of(kafka, topic)
    async with aclosing(_pulled(kafka, topic, SubscribeOptions(start=Start.all()), spans)) as found:
        async for each in found:
            yield each


async def read_partition(
    kafka: KafkaBroker, topic: str, partition: int, start: int, *, follow: bool = False
) -> AsyncGenerator[Stored, None]:
    """One partition from the offset `start` on, to its end as it is now; with `follow` without end."""
    from headrace.kafka.reading import KafkaPartitionOptions

    spans = await spans_of(kafka, topic, partition)
    first, end = spans[partition]
    begin = max(first, min(start, end))
    options = KafkaPartitionOptions(partition=partition, start=Start.at(Position(f"{topic}/{partition}", begin)))
    if begin == end and not follow:
        return
    async with aclosing(_pulled(kafka, topic, options, None if follow else spans)) as found:
        async for each in found:
            if each.sequence >= start:
                yield each


async def newest(kafka: KafkaBroker, topic: str, spans: Spans, count: int) -> list[Stored]:
    """The newest `count` by time, the oldest first; those of one partition stay in its order."""
    found = [await _newest(kafka, topic, number, span, count) for number, span in spans.items()]
    return list(deque(heapq.merge(*found, key=lambda each: each.message.time_ns), maxlen=count))


async def one(kafka: KafkaBroker, topic: str, partition: int | None, offset: int | None) -> Stored:
    """The record at `offset`, or the newest one. ``NotFoundError``."""
    spans = await spans_of(kafka, topic, partition)
    if offset is None:
        for each in await newest(kafka, topic, spans, 1):
            return each
        raise NotFoundError(f"there is no message on {topic}")
    number = only(topic, spans)
    async with aclosing(read_partition(kafka, topic, number, offset)) as found:
        async for each in found:
            if each.sequence == offset:
                return each
            break
    raise NotFoundError(f"there is no message at {topic}/{number}@{offset}")


async def delete_topic(kafka: KafkaBroker, topic: str) -> None:
    """Delete it with all that it holds; one that is not there is fine."""
    if topic in await topics(kafka):
        await kafka.topics.answer(kafka.topics.admin.delete_topics([topic])[topic])
        kafka.topics.forget(topic)


async def _newest(kafka: KafkaBroker, topic: str, partition: int, span: tuple[int, int], count: int) -> list[Stored]:
    """The newest of one partition, looking back four times as far each time: offsets may have gaps."""
    first, end = span
    back = max(count, 1)
    while count and first < end:
        start = max(first, end - back)
        found: deque[Stored] = deque(maxlen=count)
        async with aclosing(read_partition(kafka, topic, partition, start)) as records:
            async for each in records:
                if each.sequence < end:
                    found.append(each)
        if len(found) == count or start == first:
            return list(found)
        back *= 4
    return []


async def _pulled(
    kafka: KafkaBroker, topic: str, options: SubscribeOptions, spans: Spans | None
) -> AsyncGenerator[Stored, None]:
    """What a subscription hands out, until each partition is at the end of its span; without `spans` for ever."""
    left = {f"{topic}/{number}": end for number, (first, end) in (spans or {}).items() if first < end}
    async with kafka.subscribe(topic, options) as subscription:
        while left or spans is None:
            deliveries = await subscription.pull(_PAGE, _WAIT)
            if not deliveries and spans is not None and not await subscription.backlog():
                return
            for delivery in deliveries:
                delivery.ack()  # in no group: it makes room for the next, and nobody hears of it
                position = delivery.position
                assert position is not None  # noqa: S101  (every record of Kafka has one)
                if spans is None or position.value < left.get(position.source, 0):
                    yield Stored(position.source, position.value, delivery.message)
                if position.value + 1 >= left.get(position.source, 0):
                    left.pop(position.source, None)
