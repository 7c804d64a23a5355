"""Rows of consumers.db: what a consumer is and where it stands. Plain functions on a connection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import apsw
import msgspec

from headrace.core.duration import Duration, seconds_of
from headrace.embedded.store.sql import every, one
from headrace.embedded.streams.read import ns_of
from headrace.streams.config import AckPolicy, ConsumerConfig, ReplayPolicy
from headrace.streams.subjects import matches

__all__ = [
    "EXHAUSTED",
    "LEASED",
    "WAITING",
    "ConsumerRow",
    "Filter",
    "Leased",
    "RequestLimits",
    "Settings",
    "consumer_by_id",
    "consumer_by_name",
    "consumers_of",
    "drop",
    "forget_filters",
    "leases_of",
    "nanoseconds",
    "save",
    "settings_of",
    "text_of",
]

EXHAUSTED = 1 << 62
"""``pending.due`` of a message that was delivered as often as allowed: never due again."""
LEASED = "(deadline > ?2 OR ?3 > 1)"
WAITING = f"due < {EXHAUSTED} AND (due > ?2 OR deliveries < ?3 OR queue IS NOT NULL)"
"""Which rows hold the floor, and count as pending, now (?2), with so many deliveries at most (?3).

The others are exhausted: their last wait is over, whether or not a pull has found that. What was handed back waits for
a pull to find it.
"""
_COLUMNS = (
    "id, stream, name, config, created, delivered_c, delivered_s, floor_c, floor_s, active, inactive, since, scanned, "
    "snapshot"
)


def nanoseconds(value: Duration | None) -> int | None:
    """A length of time in nanoseconds."""
    if isinstance(value, timedelta):
        return value // timedelta(microseconds=1) * 1000
    return None if value is None else int(seconds_of(value, "duration") * 1e9)


class Filter:
    """Which subjects a consumer wants."""

    __slots__ = ("patterns",)

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self.patterns = () if ">" in patterns else patterns

    def __bool__(self) -> bool:
        return bool(self.patterns)

    def matches(self, subject: str) -> bool:
        """Whether it lets a message on this subject through."""
        return not self.patterns or any(matches(pattern, subject) for pattern in self.patterns)

    def ids(self, connection: apsw.Connection) -> set[int]:
        """Ids of all subjects that match. Those found are kept; only subjects made since are looked at."""
        known = _found.get(connection)
        if known is None:
            known = _found.setdefault(connection, {})
        upto, ids = known.get(self.patterns) or (0, set[int]())
        last = one(connection, "SELECT coalesce(max(id), 0) FROM subject")[0]
        if last != upto:
            rows = every(connection, "SELECT id, name FROM subject WHERE id > ?", (upto,))
            ids.update(id_ for id_, name in rows if self.matches(name))
            known[self.patterns] = (last, ids)
        return ids


def forget_filters(connection: apsw.Connection) -> None:
    """After a rollback: subjects made in it do not exist."""
    _found.pop(connection, None)


_found: WeakKeyDictionary[apsw.Connection, dict[tuple[str, ...], tuple[int, set[int]]]] = WeakKeyDictionary()


class RequestLimits(NamedTuple):
    """The most that one pull of a consumer may ask for; ``expires`` in seconds."""

    batch: int | None
    expires: float | None
    max_bytes: int | None


class Settings:
    """A consumer's config in the form that claims read."""

    __slots__ = (
        "ack_all", "ack_none", "config", "filter", "headers_only", "inactive_ns", "max_ack_pending", "max_deliver",
        "original", "paused_until", "request_limits", "text", "waits",
    )  # fmt: skip

    def __init__(self, text: str) -> None:
        config = msgspec.json.decode(text, type=ConsumerConfig)
        self.text = text
        self.config = config
        self.ack_none = config.ack_policy is AckPolicy.NONE
        self.ack_all = config.ack_policy is AckPolicy.ALL
        self.filter = Filter(config.filters)
        self.headers_only = config.headers_only
        self.max_deliver = config.max_deliver or EXHAUSTED
        self.max_ack_pending = None if self.ack_none else config.max_ack_pending
        self.waits = tuple(nanoseconds(wait) or 0 for wait in config.waits)
        self.inactive_ns = nanoseconds(config.inactive_threshold)
        self.paused_until = 0 if config.pause_until is None else ns_of(config.pause_until, "pause_until")
        """Wall clock; 0 = it never was paused."""
        self.original = config.replay_policy is ReplayPolicy.ORIGINAL
        longest = nanoseconds(config.max_request_expires)
        limits = RequestLimits(
            config.max_request_batch, None if longest is None else longest / 1e9, config.max_request_max_bytes
        )
        self.request_limits = None if limits == (None, None, None) else limits

    def wait_ns(self, deliveries: int) -> int:
        """The ack wait after this delivery (from 1)."""
        return self.waits[min(deliveries, len(self.waits)) - 1]


class ConsumerRow(msgspec.Struct):
    """One consumer: its config and position."""

    id: int
    stream: int
    name: str
    config: str
    created: int
    delivered_c: int
    delivered_s: int
    floor_c: int
    floor_s: int
    active: int
    inactive: int | None
    since: int
    """Messages up to here were never this consumer's: it began, or its filters changed, behind them."""
    scanned: int
    """No message up to here matches and is undelivered; saves looking at them again."""
    snapshot: bytes | None = None
    """Last per subject: the chosen sequences, and behind them the last one of the stream as of then."""

    @property
    def passed(self) -> int:
        """Nothing up to here will be delivered for the first time any more."""
        return self.delivered_s if self.snapshot is None else max(self.delivered_s, self.scanned)

    @property
    def chosen(self) -> Sequence[int]:
        """The sequences of the snapshot that are not delivered yet, and its end; empty once it is behind us."""
        if self.snapshot is None:
            return ()
        chosen = memoryview(self.snapshot).cast("q")
        if self.scanned >= chosen[-1]:
            return ()
        return [*(each for each in chosen[:-1] if each > self.delivered_s), chosen[-1]]


class Leased(msgspec.Struct, gc=False):
    """A lease row: one claimed range of first deliveries."""

    lo: int
    hi: int
    first_c: int
    owner: int
    deadline: int
    open: int
    seqs: bytes | None
    acked: bytes | None

    @property
    def sequences(self) -> Sequence[int]:
        """The claimed sequences, in order."""
        return range(self.lo, self.hi + 1) if self.seqs is None else memoryview(self.seqs).cast("q")

    def unsettled(self) -> Iterator[tuple[int, int]]:
        """What is still leased by this row: place in the claim, sequence."""
        acked = self.acked
        if acked is None:
            yield from enumerate(self.sequences)
            return
        for place, sequence in enumerate(self.sequences):
            if not acked[place]:
                yield place, sequence


@lru_cache(maxsize=4096)
def settings_of(text: str) -> Settings:
    """The settings of a stored config."""
    return Settings(text)


def text_of(config: ConsumerConfig) -> str:
    """The stored text of a config."""
    return msgspec.json.encode(config).decode()


def consumer_by_id(connection: apsw.Connection, consumer_id: int) -> ConsumerRow | None:
    """The consumer with this id."""
    return _one(every(connection, f"SELECT {_COLUMNS} FROM consumer WHERE id = ?", (consumer_id,)))


def consumer_by_name(connection: apsw.Connection, stream_id: int, name: str) -> ConsumerRow | None:
    """The consumer of this name."""
    return _one(every(connection, f"SELECT {_COLUMNS} FROM consumer WHERE stream = ? AND name = ?", (stream_id, name)))


def consumers_of(connection: apsw.Connection, stream_id: int) -> list[ConsumerRow]:
    """All consumers of a stream, by name."""
    rows = every(connection, f"SELECT {_COLUMNS} FROM consumer WHERE stream = ? ORDER BY name", (stream_id,))
    return [ConsumerRow(*row) for row in rows]


def save(connection: apsw.Connection, row: ConsumerRow) -> None:
    """Write where it stands."""
    connection.execute(
        "UPDATE consumer SET delivered_c = ?, delivered_s = ?, floor_c = ?, floor_s = ?, active = ?, scanned = ? "
        "WHERE id = ?",
        (row.delivered_c, row.delivered_s, row.floor_c, row.floor_s, row.active, row.scanned, row.id),
    )


def drop(connection: apsw.Connection, consumer_id: int) -> None:
    """Delete it, and all that is kept of it."""
    for table, key in (("lease", "consumer"), ("pending", "consumer"), ("replay", "consumer"), ("consumer", "id")):
        connection.execute(f"DELETE FROM {table} WHERE {key} = ?", (consumer_id,))


def leases_of(connection: apsw.Connection, consumer_id: int) -> list[Leased]:
    """Its lease rows, by sequence."""
    rows = every(
        connection,
        "SELECT lo, hi, first_c, owner, deadline, open, seqs, acked FROM lease WHERE consumer = ? ORDER BY lo",
        (consumer_id,),
    )
    return [Leased(*row) for row in rows]


def _one(rows: Iterable[Any]) -> ConsumerRow | None:
    for row in rows:
        return ConsumerRow(*row)
    return None
