"""What the demo proves, from what is stored and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import msgspec

from headrace.cli import records
from headrace.cli.history import Commit
from headrace.cli.messages import Stored, read_topic
from headrace.cli.opening import streams_of
from headrace.core.broker import Broker

__all__ = ["COMMITS", "DEAD", "HANDLED", "Handled", "Ledger", "commit_of", "read_ledger"]

COMMITS = "commits"
"""One event per commit, keyed by its author."""
HANDLED = "handled"
"""One record per commit handled, published by the handler before it returns."""
DEAD = f"dead.{COMMITS}"

_commits = msgspec.json.Decoder(Commit)


class Handled(msgspec.Struct, frozen=True, gc=False):
    """The record: this commit, at this place of the stream, was handled in this run of its handler."""

    commit: str
    sequence: int
    attempt: int


_records = msgspec.json.Decoder(Handled)


@dataclass
class Ledger:
    """What is stored: ids of commits, and what the records say of the order."""

    published: set[str] = field(default_factory=set[str])
    handled: set[str] = field(default_factory=set[str])
    dead: set[str] = field(default_factory=set[str])
    authors: int = 0
    out_of_order: int = 0
    repeated: int = 0
    """Handled again after a crash: at-least-once."""

    @property
    def waiting(self) -> set[str]:
        """Published, and neither handled nor dead."""
        return self.published - self.handled - self.dead

    @property
    def invented(self) -> set[str]:
        """Handled or dead, and never published."""
        return (self.handled | self.dead) - self.published

    @property
    def holds(self) -> bool:
        """Nothing lost, nothing invented, nothing out of order."""
        return not (self.waiting or self.invented or self.out_of_order)


def commit_of(body: bytes) -> Commit:
    """The commit of an event."""
    return _commits.decode(body)


async def read_ledger(broker: Broker) -> Ledger:
    """Read everything that is stored. A commit that died, was sent back and handled counts as handled."""
    ledger = Ledger()
    async for event in _stored(broker, COMMITS):
        ledger.published.add(commit_of(event.message.body).id)
    await _read_records(broker, ledger)
    async for letter in _stored(broker, DEAD):
        ledger.dead.add(commit_of(letter.message.body).id)
    ledger.dead -= ledger.handled
    return ledger


async def _read_records(broker: Broker, ledger: Ledger) -> None:
    """The records stand in the order in which their handlers returned: for one author, that of the commits.

    On Kafka a sequence is an offset: it counts in the author's partition only.
    """
    last: dict[bytes | None, int] = {}
    seen: set[tuple[bytes | None, int]] = set()
    async for stored in _stored(broker, HANDLED):
        handled = _records.decode(stored.message.body)
        ledger.handled.add(handled.commit)
        key = stored.message.key
        if (key, handled.sequence) in seen:
            ledger.repeated += 1
        elif handled.sequence < last.get(key, 0):
            ledger.out_of_order += 1
        seen.add((key, handled.sequence))
        last[key] = max(handled.sequence, last.get(key, 0))
    ledger.authors = len(last)


def _stored(broker: Broker, topic: str) -> AsyncIterator[Stored]:
    kafka = records.kafka_of(broker)
    return read_topic(streams_of(broker), topic) if kafka is None else records.read(kafka, topic)
