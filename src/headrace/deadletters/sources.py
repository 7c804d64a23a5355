"""Where dead letters lie: in a stream (looked at and deleted in place), in a log, or in a queue."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Protocol

from headrace.core.broker import Broker, Groups, Start, StartKind, SubscribeOptions, Subscription
from headrace.core.delivery import RELEASE, Delivery, Position
from headrace.core.errors import UnsupportedError
from headrace.deadletters.letters import Letter, letter_from
from headrace.streams.api import Stream, StreamManager
from headrace.streams.errors import MessageDeleteError, StreamNotFoundError
from headrace.streams.msg import RawStreamMsg
from headrace.streams.wire import decode

__all__ = ["Source", "Taken", "source_of"]

_PAGE = 250
_QUIET = 2.0  # seconds without a message after which a log or queue counts as seen to its end
_GROUP = "headrace-redrive"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Taken(Protocol):
    """One letter under redrive."""

    letter: Letter

    async def remove(self) -> None:
        """It was published again: it goes."""
        ...

    def keep(self) -> None:
        """It stays."""
        ...


class Source(Protocol):
    """Dead letters of one topic."""

    def look(self, after: Position | None, *, limit: int | None = None) -> AsyncIterator[Letter]:
        """All of them, or at most `limit`, in order. Settles nothing and leaves nothing behind."""
        ...

    def take(self) -> AsyncIterator[Taken]:
        """Each one that is there now, once."""
        ...


def source_of(broker: Broker, topic: str) -> Source:
    """How the letters of this broker are read."""
    streams: Any = getattr(broker, "streams", None)
    if isinstance(streams, StreamManager):
        return _InStream(streams, topic)
    return _ByPull(broker, topic)


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

    async def remove(self) -> None:
        with suppress(MessageDeleteError):  # somebody else removed it, or its time was over
            await self._stream.delete_msg(self._sequence)

    def keep(self) -> None:
        pass


def _letter(stream: str, raw: RawStreamMsg) -> Letter:
    age = raw.time - _EPOCH
    stored_ns = ((age.days * 86_400 + age.seconds) * 1_000_000 + age.microseconds) * 1_000
    message = decode(
        raw.subject, raw.data, raw.headers.to_block(), stream=stream, sequence=raw.sequence, stored_ns=stored_ns
    )
    return letter_from(message, Position(stream, raw.sequence))


class _ByPull:
    """A log is read by a private subscription; of a queue one pass is pulled and all of it released."""

    def __init__(self, broker: Broker, topic: str) -> None:
        self._broker = broker
        self._topic = topic

    async def look(self, after: Position | None, *, limit: int | None = None) -> AsyncGenerator[Letter, None]:
        capabilities = self._broker.capabilities
        private = capabilities.broadcast and StartKind.ALL in capabilities.replay
        if not private and capabilities.groups is not Groups.ONE:
            raise UnsupportedError("this engine cannot show a topic without moving a group")
        if after is not None and not private:
            raise UnsupportedError("a queue has no positions to read after")
        options = SubscribeOptions(start=Start.all()) if private else SubscribeOptions(group=_GROUP)
        left = limit
        async with self._each(options) as deliveries:
            async for delivery in deliveries:
                position = delivery.position
                if after is not None and position is not None and _is_seen(position, after):
                    continue
                if left is not None:
                    left -= 1
                    if left < 0:
                        return
                yield letter_from(delivery.message, position)

    async def take(self) -> AsyncGenerator[_ByPullTaken, None]:
        # A queue hands back what is kept; a log cannot remove, there the group moves on past what it saw.
        keeps = self._broker.capabilities.groups is Groups.ONE
        async with self._each(SubscribeOptions(group=_GROUP)) as deliveries:
            async for delivery in deliveries:
                yield _ByPullTaken(delivery, keeps=keeps)

    @asynccontextmanager
    async def _each(self, options: SubscribeOptions) -> AsyncGenerator[AsyncIterator[Delivery], None]:
        held: list[Delivery] = []
        async with self._broker.subscribe(self._topic, options) as subscription:
            try:
                yield _pull_once(subscription, held)
            finally:
                await subscription.stop()  # else what is released comes straight back
                for delivery in held:
                    if delivery.outcome is None:
                        delivery.settle(RELEASE)
                await subscription.flush()


async def _pull_once(subscription: Subscription, held: list[Delivery]) -> AsyncGenerator[Delivery, None]:
    """Every message once: until there is none for a while, or one comes round again."""
    seen: set[str] = set()
    while deliveries := await subscription.pull(_PAGE, _QUIET):
        held.extend(deliveries)
        for delivery in deliveries:
            if delivery.message.id in seen:
                return
            seen.add(delivery.message.id)
            if delivery.start():
                yield delivery
        subscription.keep()


def _is_seen(position: Position, after: Position) -> bool:
    return position.source == after.source and position <= after


class _ByPullTaken:
    def __init__(self, delivery: Delivery, *, keeps: bool) -> None:
        self.letter = letter_from(delivery.message, delivery.position)
        self._delivery = delivery
        self._keeps = keeps

    async def remove(self) -> None:
        self._delivery.ack()

    def keep(self) -> None:
        if not self._keeps:
            self._delivery.ack()
