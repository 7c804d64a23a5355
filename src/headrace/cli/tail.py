"""`headrace tail`: the newest messages of a topic, and those that come."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Annotated

import typer

from headrace.cli.messages import Stored, read_all, stream_of_topic
from headrace.cli.opening import open_streams, run
from headrace.cli.options import DEFAULT_URL, Json, Url
from headrace.cli.output import print_line
from headrace.streams.api import Stream

__all__ = ["tail"]

_LOOK_AGAIN = 0.2  # seconds; it only reads, so nobody wakes it


def tail(
    topic: Annotated[str, typer.Argument(help="Topic; * and > are wildcards.")],
    *,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the newest.")] = 10,
    start: Annotated[int | None, typer.Option("--from", min=1, help="All from this sequence on.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Print the newest messages of a topic. It only reads: nothing is acknowledged, nobody misses a message."""
    run(_tail(url, topic, lines, start, follow=follow, json=json))


async def _tail(url: str, topic: str, lines: int, start: int | None, *, follow: bool, json: bool) -> None:
    async with open_streams(url, look_only=True) as streams:
        stream = await stream_of_topic(streams, topic)
        last = (await stream.info()).state.last_sequence
        following = last + 1
        if start is not None:
            following = await _print_from(stream, topic, start, json=json)
        else:
            for each in await _newest(stream, topic, lines, last):
                _print(each, json=json)
        while follow:
            following = await _print_from(stream, topic, following, json=json)
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
