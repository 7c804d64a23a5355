"""A stored message as commands show it, and how they read many."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from headrace.cli.output import cell, safe
from headrace.core.message import Message, check_topic
from headrace.streams.api import Stream, StreamManager
from headrace.streams.msg import RawStreamMsg
from headrace.streams.wire import decode

__all__ = ["Stored", "body_text", "read_all", "read_topic", "stored", "stream_of_topic", "streams_of_topic"]

PAGE = 1_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER_WIDTH = 8


@dataclass(frozen=True)
class Stored:
    """A message and the place where it stands."""

    stream: str
    sequence: int
    message: Message

    def facts(self) -> dict[str, Any]:
        """All of it, for JSON: a body or key that is no UTF-8 stands in base64 under another name."""
        message = self.message
        return {
            "stream": self.stream,
            "sequence": self.sequence,
            "topic": message.topic,
            "id": message.id,
            "time": message.time,
            **({} if message.key is None else _text_or_base64("key", message.key)),
            "headers": [[name, _text(value)] for name, value in message.headers.items()],
            **_text_or_base64("body", message.body),
        }

    def line(self) -> str:
        """All that matters on one line."""
        message = self.message
        key = "" if message.key is None else f"  key={safe(_text(message.key))}"
        head = f"{self.sequence:>{_NUMBER_WIDTH}}  {cell(message.time)}  {safe(message.topic)}{key}"
        return f"{head}  {safe(_text(message.body))}"


def body_text(facts: dict[str, Any]) -> str:
    """A body on lines of its own; one that is no text stands in base64, and says so."""
    if "body" in facts:
        return "\n".join(safe(line) for line in facts["body"].split("\n"))
    return f"(no text, in base64; get --raw gives the bytes)\n{facts['body_base64']}"


def stored(raw: RawStreamMsg, stream: str) -> Stored:
    """What stands in a stream, as the message that was sent."""
    time_ns = (raw.time - _EPOCH) // timedelta(microseconds=1) * 1_000
    block = raw.headers.to_block()
    message = decode(raw.subject, raw.data, block, stream=stream, sequence=raw.sequence, stored_ns=time_ns)
    return Stored(stream, raw.sequence, message)


async def stream_of_topic(streams: StreamManager, topic: str) -> Stream:
    """The stream that stores `topic` (wildcards allowed); ``StreamNotFoundError``."""
    check_topic(topic, wildcards=True)
    return await streams.stream(await streams.stream_name_by_subject(topic))


async def streams_of_topic(streams: StreamManager, topic: str) -> list[Stream]:
    """All streams that store some of `topic` (wildcards allowed); ``StreamNotFoundError`` where there is none."""
    check_topic(topic, wildcards=True)
    names = [name async for name in streams.stream_names(subject=topic)]
    return [await streams.stream(name) for name in names] or [await stream_of_topic(streams, topic)]


async def read_all(stream: Stream, *, subject: str = ">", start: int = 1) -> AsyncIterator[Stored]:
    """Everything on `subject` from sequence `start` to the end as it is on the way, oldest first."""
    while page := await stream.read(subject=subject, start=start, limit=PAGE):
        for raw in page:
            yield stored(raw, stream.name)
        start = page[-1].sequence + 1


async def read_topic(streams: StreamManager, topic: str) -> AsyncIterator[Stored]:
    """Everything that is on `topic` (wildcards allowed) now, in whatever streams; nothing where none stores it."""
    for name in [name async for name in streams.stream_names(subject=topic)]:
        stream = await streams.stream(name)
        last = (await stream.info()).state.last_sequence
        async for each in read_all(stream, subject=topic):
            if each.sequence > last:
                break
            yield each


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "backslashreplace")


def _text_or_base64(name: str, value: bytes) -> dict[str, str]:
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(value).decode()}
