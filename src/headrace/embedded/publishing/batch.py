"""Batch: the publishes of one transaction, checked and stored one by one, written in as few statements as possible."""

from __future__ import annotations

from itertools import repeat
from typing import Any
from zlib import crc32

import apsw

from headrace.core.errors import Fault, PublishError, StoreError
from headrace.embedded.publishing.checks import checked, nothing_answers
from headrace.embedded.publishing.run import Entry, Result, Route, Routes, Run
from headrace.embedded.store.sql import LATEST_NS
from headrace.embedded.streams.catalog import index_from, intern
from headrace.embedded.streams.checksum import checksum
from headrace.embedded.streams.limits import enforce, expire, has_limits
from headrace.embedded.streams.removal import remove_older, remove_range
from headrace.streams.config import Rollup, StreamPublishOptions
from headrace.streams.info import PubAck

__all__ = ["Batch"]


class Batch:
    """Stores entries in order within the transaction that is open on `connection`."""

    def __init__(self, connection: apsw.Connection, routes: Routes, now: int, failed_keys: set[bytes]) -> None:
        self.connection = connection
        self.routes = routes
        self.now = now
        self.failed_keys = failed_keys
        self.earliest: int | None = None
        """When the first of these messages expires."""
        self.forget: int | None = None
        """When the first of their ids may be forgotten."""
        self.stored = self.bytes = 0
        if now > LATEST_NS:
            raise StoreError("the clock stands behind the year 2262; no later time can be stored")
        routes.begin(connection)

    def store(self, entries: list[Entry], results: list[Result]) -> None:
        """One result per entry, appended to `results`."""
        known, serial = self.routes.by_subject, self.routes.serial
        append, failed, plain_ack = results.append, self.failed_keys, PubAck
        for entry in entries:
            subject, block, msg_id = entry.subject, entry.block, entry.msg_id
            route = known.get(subject)
            if route is None or route.serial != serial:
                route = self._enter(subject, route)
                if route is None:
                    append(self._fail(entry.order_key, nothing_answers(subject, msg_id)))
                    continue
            run = route.run
            if entry.options is not None or run.slow or failed:
                append(self._slowly(run, route, entry))
                continue
            if msg_id is not None:
                if msg_id > run.top_id:
                    run.top_id = msg_id
                elif (first := self._first_of(run, msg_id)) is not None:
                    append(PubAck(run.name, first, True))
                    continue
                run.fresh[msg_id] = run.seq + 1
            run.seq = seq = run.seq + 1
            run.last_id = msg_id or ""
            # checksum(), written out: a call per message would cost a tenth of the whole
            crc = (seq * 0x9E3779B1 ^ route.salt ^ seq >> 32) & 0xFFFFFFFF
            data = entry.data
            size = route.fixed + len(data)
            if block is not None:
                crc = crc32(block, crc)
                size += len(block) + run.per_block
            run.rows.append((seq, run.ts, route.subject_id, run.expires, block, data, crc32(data, crc)))
            run.bytes += size
            route.count += 1
            route.last = seq
            append(plain_ack(run.name, seq))

    def _enter(self, subject: str, route: Route | None) -> Route | None:
        """The route of a subject at its first message in this transaction."""
        if route is None:
            route = self.routes.find(subject)
            if route is None:
                return None
        run = route.run
        if run.serial != self.routes.serial:
            run.serial = self.routes.serial
            run.touched.clear()  # of a transaction that stored nothing: refused, or a duplicate
            run.load(self.connection, self.now)
        if not route.subject_id:
            route.subject_id = intern(self.connection, subject)
        route.serial = self.routes.serial
        route.salt = (run.ts ^ run.ts >> 32) * 0x85EBCA6B ^ route.crc
        route.count, route.first = 0, run.seq + 1
        run.touched.append(route)
        return route

    def _fail(self, key: bytes | None, error: PublishError) -> PublishError:
        if key is not None:
            self.failed_keys.add(key)
        return error

    def _slowly(self, run: Run, route: Route, entry: Entry) -> Result:
        """One message of which something more is asked than to be stored."""
        if entry.order_key is not None and entry.order_key in self.failed_keys:
            return PublishError(
                "an earlier message of the same key failed", message_id=entry.msg_id, fault=Fault.UNAVAILABLE
            )
        if isinstance(entry.options, PublishError):
            return self._fail(entry.order_key, entry.options)
        if entry.options is not None or run.slow:
            self.flush_run(run)
            run.load(self.connection, self.now)
        answer = checked(self.connection, run, entry, self._first_of)
        if isinstance(answer, PublishError):
            return self._fail(entry.order_key, answer)
        if isinstance(answer, PubAck):
            return answer
        ack = self._append(run, route, entry, wanted=answer)
        if entry.options is not None and entry.options.rollup is not None:
            self._roll_up(run, route, ack.sequence, entry.options.rollup)
        return ack

    def _roll_up(self, run: Run, route: Route, sequence: int, rollup: Rollup) -> None:
        """What the message at `sequence` replaces goes in the same commit."""
        self.flush_run(run)
        if rollup is Rollup.ALL:
            remove_range(self.connection, run.record, 0, sequence - 1)
        else:
            remove_older(self.connection, run.record, route.subject_id, sequence)
        run.load(self.connection, self.now)

    def _append(self, run: Run, route: Route, entry: Entry, *, wanted: bool) -> PubAck:
        if route.serial != self.routes.serial:
            self._enter(entry.subject, route)
        run.seq = seq = run.seq + 1
        run.last_id = entry.msg_id or ""
        if entry.msg_id is not None:
            run.fresh[entry.msg_id] = seq
            run.top_id = max(run.top_id, entry.msg_id)
        if not wanted:
            run.unstored = True
            return PubAck(run.name, seq)
        row_crc = checksum(seq, run.ts, entry.subject, entry.block, entry.data)
        expires = _expires(run, entry.options)
        run.rows.append((seq, run.ts, route.subject_id, expires, entry.block, entry.data, row_crc))
        run.bytes += route.fixed + len(entry.data) + (len(entry.block) + run.per_block if entry.block else 0)
        route.first = seq if not route.count else route.first
        route.count += 1
        route.last = seq
        return PubAck(run.name, seq)

    def _first_of(self, run: Run, msg_id: str) -> int | None:
        """The sequence of the message that has this id and is younger than the window."""
        first = run.fresh.get(msg_id)
        if first is not None:
            return first
        sql = f"SELECT seq, ts FROM dedup_{run.record.id} WHERE msg_id = ?"
        row = self.connection.execute(sql, (msg_id,)).fetchone()
        return int(row[0]) if row is not None and self.now - row[1] < run.window else None

    def flush(self) -> None:
        """Write everything."""
        for run in self.routes.runs.values():
            if run.serial == self.routes.serial:
                self.flush_run(run)

    def flush_run(self, run: Run) -> None:
        """Write what one stream has got: rows, ids, counters; then what its limits push out."""
        connection, record = self.connection, run.record
        if not run.rows and not run.unstored:
            return
        grown = [route for route in run.touched if route.count]
        if run.rows:
            if run.max_age is not None or record.config.allow_message_ttl:
                times = [row[3] for row in run.rows if row[3] is not None]
                self.earliest = min(times if self.earliest is None else [*times, self.earliest], default=None)
            connection.executemany(f"INSERT INTO msg_{record.id} VALUES(?,?,?,?,?,?,?)", run.rows)
            self._subjects(run, grown)
        if run.fresh:
            sql = f"INSERT OR REPLACE INTO dedup_{record.id} VALUES(?,?,?)"
            connection.executemany(sql, zip(run.fresh, run.fresh.values(), repeat(run.ts)))
            self.forget = run.ts + run.window if self.forget is None else min(self.forget, run.ts + run.window)
        run.msgs += len(run.rows)
        self.stored += len(run.rows)
        self.bytes += run.bytes - run.held
        run.held = run.bytes
        connection.execute(
            "UPDATE stream SET first_seq = CASE WHEN msgs = 0 THEN ? ELSE first_seq END, last_seq = ?, last_ts = ?, "
            "msgs = ?, bytes = ?, last_id = ? WHERE id = ?",
            (run.rows[0][0] if run.rows else run.seq + 1, run.seq, run.ts, run.msgs, run.bytes, run.last_id, record.id),
        )
        run.rows.clear()
        run.fresh.clear()
        for route in run.touched:
            route.serial = 0
        run.touched.clear()
        run.unstored = False
        self._limit(run, grown)

    def _limit(self, run: Run, grown: list[Route]) -> None:
        record = run.record
        expire(self.connection, record, self.now)
        if has_limits(record.config):
            enforce(self.connection, record, [route.subject_id for route in grown])

    def _subjects(self, run: Run, grown: list[Route]) -> None:
        """What each subject has got; from the second subject on also an index by subject."""
        connection, record = self.connection, run.record
        connection.executemany(
            "INSERT INTO subject_state VALUES(?,?,?,?,?) ON CONFLICT DO UPDATE SET "
            "msgs = msgs + excluded.msgs, last_seq = excluded.last_seq",
            [(record.id, route.subject_id, route.count, route.first, route.last) for route in grown],
        )
        if not run.many:
            (other,) = connection.execute(
                "SELECT count(*) FROM (SELECT 1 FROM subject_state WHERE stream = ? LIMIT 2)", (record.id,)
            ).fetchone() or (0,)
            if other < 2:
                return
            run.many = True
            index_from(connection, record.id, run.rows[0][0])
        connection.executemany(
            f"INSERT INTO subject_msg_{record.id} VALUES(?,?)", sorted((row[2], row[0]) for row in run.rows)
        )


def _expires(run: Run, options: StreamPublishOptions | PublishError | None) -> int | None:
    """When a message goes: after its own time or the stream's, whichever ends first; ``timedelta.max`` is never."""
    ttl: Any = options.ttl if isinstance(options, StreamPublishOptions) else None
    if ttl is None:
        return run.expires
    if ttl.days >= 999_999_999:
        return None
    length = int(ttl.total_seconds()) * 1_000_000_000
    expires = min(run.ts + length, LATEST_NS)
    return expires if run.expires is None else min(expires, run.expires)
