"""Where dead letters lie: in a stream (looked at and deleted in place), in a log, or in a queue."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Protocol

from headrace.core.broker import Broker, Groups, StartKind, SubscribeOptions
from headrace.core.delivery import Position
from headrace.core.errors import ConfigError, UnsupportedError
from headrace.deadletters.in_log import InLog
from headrace.deadletters.in_queue import InQueue
from headrace.deadletters.letters import Letter, letter_from
from headrace.streams.api import Stream, StreamManager
from headrace.streams.errors import MessageDeleteError, StreamNotFoundError
from headrace.streams.msg import RawStreamMsg
from headrace.streams.wire import decode

__all__ = ["Source", "Taken", "source_of"]

_PAGE = 250
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Taken(Protocol):
    """One letter under redrive. It stays as long as nobody removes it."""

    letter: Letter

    def start(self) -> bool:
        """Asked right before it is published. False: it went to somebody else meanwhile."""
        ...

    async def remove(self) -> None:
        """It was published again: it goes."""
        ...


class Source(Protocol):
    """Dead letters of one topic."""

    def look(self, after: Position | None, *, limit: int | None = None) -> AsyncIterator[Letter]:
        """All of them, or at most `limit`, in order. Leaves everything as it is."""
        ...

    def take(self) -> AsyncIterator[Taken]:
        """Each one that is there now, once."""
        ...


def source_of(broker: Broker, topic: str, options: SubscribeOptions) -> Source:
    """How the letters of this broker are read. ``ConfigError``, ``UnsupportedError``."""
    if options.start is not None:
        raise ConfigError(f"letters are read from the oldest on: start must be None, got {options.start}")
    streams: Any = getattr(broker, "streams", None)
    if isinstance(streams, StreamManager):
        if options != SubscribeOptions():
            raise UnsupportedError("letters in a stream are read in place: there is nothing to subscribe with")
        return _InStream(streams, topic)
    capabilities = broker.capabilities
    if capabilities.groups is Groups.ONE:
        return InQueue(broker, topic, options)
    if capabilities.groups is not Groups.MANY or not capabilities.broadcast or StartKind.ALL not in capabilities.replay:
        raise UnsupportedError("this engine cannot show a topic without moving a group")
    return InLog(broker, topic, options)


class _InStream:
    def __init__(self, streams: StreamManager, topic: str) -> None:
        self._streams = streams
        self._topic = topic

    async def look(self, after: Position | None, *, limit: int | None = None) -> AsyncGenerator[Letter, None]:
        stream = await self._stream()
        start, left = (after.value + 1 if after is not None else 1), limit
        while stream is not None and (left is None or left > 0):
            page = await stream.read(
                subject=self._topic, start=start, limit=_PAGE if left is None else min(left, _PAGE)
            )
            if not page:
                return
            for raw in page:
                yield _letter(stream.name, raw)
            start = page[-1].sequence + 1
            left = None if left is None else left - len(page)

    async def take(self) -> AsyncGenerator[_InStreamTaken, None]:
        stream = await self._stream()
        if stream is None:
            return
        last = (await stream.info()).state.last_sequence  # what dies again meanwhile must not come round a second time
        start = 1
        while page := await stream.read(subject=self._topic, start=start, limit=_PAGE):
            for raw in page:
                if raw.sequence > last:
                    return
                yield _InStreamTaken(stream, raw)
            start = page[-1].sequence + 1

    async def _stream(self) -> Stream | None:
        try:
            return await self._streams.stream(await self._streams.stream_name_by_subject(self._topic))
        except StreamNotFoundError:
            return None  # nothing has died yet


class _InStreamTaken:
    def __init__(self, stream: Stream, raw: RawStreamMsg) -> None:
        self.letter = _letter(stream.name, raw)
        self._stream = stream
        self._sequence = raw.sequence

    def start(self) -> bool:
        return True  # nobody holds it: two redrives at once publish it twice, under one id

    async def remove(self) -> None:
        with suppress(MessageDeleteError):  # somebody else removed it, or its time was over
            await self._stream.delete_msg(self._sequence)


def _letter(stream: str, raw: RawStreamMsg) -> Letter:
    age = raw.time - _EPOCH
    stored_ns = ((age.days * 86_400 + age.seconds) * 1_000_000 + age.microseconds) * 1_000
    message = decode(
        raw.subject, raw.data, raw.headers.to_block(), stream=stream, sequence=raw.sequence, stored_ns=stored_ns
    )
    return letter_from(message, Position(stream, raw.sequence))
