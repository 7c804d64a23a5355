"""Dead letters in a stream: read them, and send them back to where they came from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from typing import Any

from headrace.cli.exits import NotFoundError
from headrace.cli.messages import Stored, read_topic, stream_of_topic
from headrace.cli.opening import streams_of
from headrace.core.broker import Broker
from headrace.core.errors import ConfigError
from headrace.core.message import check_topic
from headrace.flow import letter as record
from headrace.streams.api import Stream, StreamManager
from headrace.streams.errors import MessageDeleteError

__all__ = ["Letter", "Redriven", "find", "letter_topic", "letters_of", "redrive"]

_PREFIX = "dead."


@dataclass(frozen=True)
class Letter:
    """A dead letter and the place where it stands."""

    stored: Stored

    @property
    def id(self) -> str:
        """The id of the message that died first."""
        return self._header(record.ID) or self.stored.message.id

    @property
    def reason(self) -> str:
        """Error and text, as the handler raised it."""
        return ": ".join(part for part in (self._header(record.ERROR), self._header(record.REASON)) if part)

    def facts(self) -> dict[str, Any]:
        """Its record, and the message as stored."""
        return {
            "id": self.id,
            "source": self._header(record.SOURCE),
            "position": self._header(record.POSITION),
            "group": self._header(record.GROUP),
            "attempts": _number(self._header(record.ATTEMPTS)),
            "error": self._header(record.ERROR),
            "reason": self._header(record.REASON),
            "first": self._header(record.FIRST),
            "last": self._header(record.LAST),
            "passes": _number(self._header(record.PASS)),
            "message": self.stored.facts(),
        }

    def _header(self, name: str) -> str | None:
        return self.stored.message.headers.get(name)


@dataclass
class Redriven:
    """How far a redrive has come."""

    moved: int = 0
    skipped: int = 0
    """No dead letters of headrace: left where they are."""
    last: str | None = None


def letter_topic(topic: str | None, *, exact: bool) -> str:
    """Where the letters of `topic` are: ``dead.<topic>`` unless it is one already or `exact`; ``dead.>`` for none."""
    if topic is None:
        return _PREFIX + ">"
    check_topic(topic, wildcards=True)
    return topic if exact or topic.startswith(_PREFIX) else _PREFIX + topic


async def letters_of(streams: StreamManager, topic: str) -> AsyncIterator[Letter]:
    """All letters on `topic` that are there now, oldest first; none where no stream stores it."""
    async for each in read_topic(streams, topic):
        yield Letter(each)


async def find(streams: StreamManager, topic: str, ids: Collection[str]) -> list[Letter]:
    """The letters with these ids, of the message that died or the letter's own; ``NotFoundError`` if one is missing."""
    missing = set(ids)
    found: list[Letter] = []
    async for letter in letters_of(streams, topic):
        names = {letter.id, letter.stored.message.id} & set(ids)
        if names:
            found.append(letter)
            missing -= names
    if missing:
        raise NotFoundError(f"no dead letter {min(missing)!a} on {topic}")
    return found


async def redrive(
    broker: Broker, letters: AsyncIterator[Letter], *, to: str | None, rate: float | None, done: Redriven
) -> AsyncIterator[Letter]:
    """Publish each message again, then remove its letter; gives each letter that went. The first error ends it.

    A letter is removed only after the receipt, and goes out under the same id each time: an interrupted redrive can
    be repeated. `rate` = letters a second.
    """
    if rate is not None and rate <= 0:
        raise ConfigError(f"--rate must be over 0, got {rate!r}")
    streams = streams_of(broker)
    opened: dict[str, Stream] = {}
    async for letter in letters:
        stored = letter.stored
        if stored.message.headers.get(record.SOURCE) is None or stored.message.headers.get(record.ID) is None:
            done.skipped += 1
            continue
        message = record.restore(stored.message)
        if to is not None:
            message = message.replace(topic=to)
        if message.topic == stored.message.topic:
            raise ConfigError(f"a letter cannot go back to its own topic, got {message.topic!a}")
        await broker.publish(message)
        if stored.stream not in opened:
            opened[stored.stream] = await stream_of_topic(streams, stored.message.topic)
        try:
            await opened[stored.stream].delete_msg(stored.sequence)
        except MessageDeleteError:
            # somebody else redrives too: it is gone, and its message went out once, under one id
            done.skipped += 1
            continue
        done.moved += 1
        yield letter
        if rate is not None:
            await asyncio.sleep(1 / rate)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None
