"""What a transaction of publishes works on: entries, the stream as it grows (Run), and where subjects go (Routes)."""

from __future__ import annotations

from typing import Any
from zlib import crc32

import apsw
import msgspec

from headrace.core.errors import PublishError
from headrace.embedded.store.sql import LATEST_NS
from headrace.embedded.streams.catalog import StreamRecord, overheads, streams_all, window_ns
from headrace.streams.config import DiscardPolicy, RetentionPolicy, StreamConfig, StreamPublishOptions
from headrace.streams.info import PubAck
from headrace.streams.subjects import matches

__all__ = ["Entry", "Result", "Route", "Routes", "Run"]

Result = PubAck | PublishError


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One message to store, checked and in its stored form."""

    subject: str
    data: bytes
    block: bytes | None
    msg_id: str | None
    order_key: bytes | None
    options: StreamPublishOptions | PublishError | None
    """What the transaction has to check; or why it failed before."""


def is_slow(config: StreamConfig) -> bool:
    """Whether every publish to such a stream has to be checked, not only those with options."""
    return (
        config.sealed
        or config.max_message_size is not None
        or config.discard is DiscardPolicy.NEW
        or config.retention is RetentionPolicy.INTEREST
    )


class Run:
    """One stream within one transaction: its counters in memory, its new rows not yet written."""

    __slots__ = (
        "bytes",
        "expires",
        "fixed",
        "fresh",
        "held",
        "last_id",
        "many",
        "max_age",
        "msgs",
        "name",
        "per_block",
        "record",
        "rows",
        "seq",
        "serial",
        "slow",
        "top_id",
        "touched",
        "ts",
        "unstored",
        "window",
    )  # fmt: skip

    def __init__(self, record: StreamRecord) -> None:
        self.record = record
        self.name = record.name
        self.fixed, self.per_block = overheads(record.config)
        self.slow = is_slow(record.config)
        age: Any = record.config.max_age
        self.max_age = None if age is None else int(age.total_seconds() * 1e9)
        self.window = window_ns(record.config)
        self.serial = 0
        self.seq = self.ts = self.msgs = self.bytes = self.held = 0
        """``held``: what of `bytes` is counted as written."""
        self.expires: int | None = None
        """When what is stored now goes by age."""
        self.many = False
        self.last_id = self.top_id = ""
        self.rows: list[tuple[Any, ...]] = []
        self.fresh: dict[str, int] = {}
        self.touched: list[Route] = []
        self.unstored = False
        """Whether a sequence was used for a message that nobody wants (interest)."""

    def load(self, connection: apsw.Connection, now: int) -> None:
        """What the stream is at this moment."""
        row = connection.execute(
            "SELECT last_seq, last_ts, msgs, bytes, indexed_from, last_id FROM stream WHERE id = ?", (self.record.id,)
        ).fetchone()
        assert row is not None  # noqa: S101  (the generation says that it exists)
        self.seq, last_ts, self.msgs, self.bytes, many, self.last_id = row
        self.many = bool(many)
        self.ts = max(now, last_ts)
        self.expires = None if self.max_age is None else min(self.ts + self.max_age, LATEST_NS)
        self.held = self.bytes
        (top,) = connection.execute(f"SELECT max(msg_id) FROM dedup_{self.record.id}").fetchone() or (None,)
        self.top_id = top or ""


class Route:
    """Where one subject goes, and what came for it in this transaction."""

    __slots__ = ("count", "crc", "first", "fixed", "last", "run", "salt", "serial", "subject", "subject_id")

    def __init__(self, subject: str, run: Run) -> None:
        self.subject = subject
        self.run = run
        encoded = subject.encode()
        self.crc = crc32(encoded)
        self.fixed = run.fixed + len(encoded)
        self.subject_id = self.salt = 0
        self.serial = self.count = self.first = self.last = 0


class Routes:
    """Subject -> stream, kept over transactions until a stream is made, changed or deleted by anybody."""

    def __init__(self) -> None:
        self.by_subject: dict[str, Route] = {}
        self.runs: dict[int, Run] = {}
        self.generation = -1
        self.serial = 0

    def clear(self) -> None:
        """Forget everything: after a rollback ids may not exist, and runs hold what was never written."""
        self.by_subject.clear()
        self.runs.clear()
        self.generation = -1

    def begin(self, connection: apsw.Connection) -> None:
        """A new transaction."""
        self.serial += 1
        (generation,) = connection.execute("SELECT value FROM meta WHERE key = 'generation'").fetchone() or (0,)
        if generation != self.generation:
            self.clear()
            self.generation = int(generation)
        if not self.runs:
            self.runs = {record.id: Run(record) for record in streams_all(connection)}
        if len(self.by_subject) > 100_000:
            self.by_subject.clear()

    def find(self, subject: str) -> Route | None:
        """The route of a subject seen for the first time; ``None``: no stream covers it."""
        for run in self.runs.values():
            if any(matches(each, subject) for each in run.record.config.subjects):
                route = self.by_subject[subject] = Route(subject, run)
                return route
        return None
