"""`headrace tail`: the newest messages of a topic, and those that come."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli import records
from headrace.cli.get import check_place
from headrace.cli.messages import Stored, read_all, streams_of_topic
from headrace.cli.opening import open_broker, run, streams_of
from headrace.cli.options import DEFAULT_URL, Json, Partition, Url
from headrace.cli.output import print_line
from headrace.core.errors import ConfigError
from headrace.streams.api import Stream, StreamManager

if TYPE_CHECKING:
    from headrace.kafka.broker import KafkaBroker

__all__ = ["tail"]

_MOST = 1_000_000_000
_LOOK_AGAIN = 0.2  # seconds; it only reads, so nobody wakes it


def tail(
    topic: Annotated[str, typer.Argument(help="Topic; * and > are wildcards.")],
    *,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, max=_MOST, help="How many of the newest.")] = 10,
    start: Annotated[int | None, typer.Option("--from", min=0, help="All from this sequence on.")] = None,
    partition: Partition = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Print the newest messages of a topic. It only reads: nothing is acknowledged, nobody misses a message."""
    check_place(url, start, partition)
    run(_tail(url, topic, lines, start, partition, follow=follow, json=json))


async def _tail(
    url: str, topic: str, lines: int, start: int | None, partition: int | None, *, follow: bool, json: bool
) -> None:
    async with open_broker(url, look_only=True) as broker:
        if (kafka := records.kafka_of(broker)) is not None:
            await _tail_kafka(kafka, topic, lines, start, partition, follow=follow, json=json)
        else:
            await _tail_streams(streams_of(broker), topic, lines, start, follow=follow, json=json)


async def _tail_kafka(
    kafka: KafkaBroker, topic: str, lines: int, start: int | None, partition: int | None, *, follow: bool, json: bool
) -> None:
    """The newest of all partitions by time, then what comes in each."""
    spans = await records.spans_of(kafka, topic, partition)
    if start is None:
        for each in await records.newest(kafka, topic, spans, lines):
            _print(each, json=json)
        following = {number: end for number, (_, end) in spans.items()}
    else:
        following = {records.only(topic, spans): start}
    if start is None and not follow:
        return

    async def go_on(number: int, offset: int) -> None:
        async with aclosing(records.read_partition(kafka, topic, number, offset, follow=follow)) as found:
            async for each in found:
                _print(each, json=json)

    await asyncio.gather(*(go_on(number, offset) for number, offset in following.items()))


async def _tail_streams(
    streams: StreamManager, topic: str, lines: int, start: int | None, *, follow: bool, json: bool
) -> None:
    sources = await streams_of_topic(streams, topic)
    if start is not None and len(sources) > 1:
        raise ConfigError(f"--from counts in one stream, and {topic!a} is in {len(sources)}")
    following: dict[str, int] = {}
    newest: list[list[Stored]] = []
    for stream in sources:
        last = (await stream.info()).state.last_sequence
        following[stream.name] = last + 1
        if start is None:
            newest.append(await _newest(stream, topic, lines, last))
    # merged, not sorted: the messages of one stream stay in its order, whatever the senders' clocks say
    for each in deque(heapq.merge(*newest, key=lambda each: each.message.time_ns), maxlen=lines):
        _print(each, json=json)
    if start is not None:
        following[sources[0].name] = await _print_from(sources[0], topic, start, json=json)
    while follow:
        for stream in sources:
            following[stream.name] = await _print_from(stream, topic, following[stream.name], json=json)
        await asyncio.sleep(_LOOK_AGAIN)


async def _print_from(stream: Stream, topic: str, start: int, *, json: bool) -> int:
    """Print all from `start` on; the sequence to go on from."""
    async for each in read_all(stream, subject=topic, start=start):
        _print(each, json=json)
        start = each.sequence + 1
    return start


async def _newest(stream: Stream, topic: str, count: int, last: int) -> list[Stored]:
    """The newest `count` on `topic`, oldest first, looking back four times as far each time."""
    first = (await stream.info()).state.first_sequence
    span = max(count, 1)
    while count:
        start = max(first, last - span + 1)
        found: deque[Stored] = deque(maxlen=count)
        async for each in read_all(stream, subject=topic, start=max(start, 1)):
            if each.sequence > last:
                break
            found.append(each)
        if len(found) == count or start <= first:
            return list(found)
        span *= 4
    return []


def _print(each: Stored, *, json: bool) -> None:
    if json:
        print_line(each.facts())
    else:
        print(each.line(), flush=True)
