"""Claims: a pull takes messages in one transaction. Due redeliveries first, then new ones under one lease row."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any
from zlib import crc32

import apsw

from headrace.embedded.consumers import replay
from headrace.embedded.consumers.counts import outstanding, sweep
from headrace.embedded.consumers.leases import Claim
from headrace.embedded.consumers.request import Request, refusal
from headrace.embedded.consumers.rows import (
    EXHAUSTED,
    ConsumerRow,
    RequestLimits,
    Settings,
    consumer_by_id,
    leases_of,
    save,
    settings_of,
)
from headrace.embedded.errors import CorruptedError
from headrace.embedded.store.sql import every, one
from headrace.embedded.streams.catalog import no_such_stream, subject_name
from headrace.streams.errors import ConsumerDeletedError, MaxBytesExceededError
from headrace.streams.msg import Msg

__all__ = ["Claimer", "harvest", "reply_token"]

INLINE_IDS = 500
SPARSE = 16
_DELIVERED = "UPDATE pending SET due = ?, deliveries = ?, queue = NULL, owner = ? WHERE consumer = ? AND seq = ?"
MOST_ROWS = 5_000
MOST_ROWS_BY_SIZE = 1_000


def reply_token(stream: str, consumer: str, deliveries: int, facts: tuple[int, int, int], pending: int) -> str:
    """A token of the shape of a server's acknowledgement subject; facts: stream and consumer sequence, time."""
    return f"$JS.ACK.{stream}.{consumer}.{deliveries}.{facts[0]}.{facts[1]}.{facts[2]}.{pending}"


class Claimer:
    """Serves the pulls of one consumer within one transaction, on the consumers thread."""

    def __init__(
        self,
        connection: apsw.Connection,
        consumer_id: int,
        stream: str,
        *,
        member: int,
        now: int,
        wall: int,
        check: bool,
    ) -> None:
        row = consumer_by_id(connection, consumer_id)
        found = row and one(
            connection, "SELECT first_seq, last_seq, msgs, indexed_from FROM stream WHERE id = ?", (row.stream,)
        )
        if row is None or not found:
            known = one(connection, "SELECT 1 FROM stream WHERE name = ?", (stream,))
            raise ConsumerDeletedError("the consumer was deleted") if known else no_such_stream(stream)
        self.row: ConsumerRow = row
        self.settings: Settings = settings_of(row.config)
        self.exhausted: list[tuple[int, int]] = []
        """(sequence, deliveries) of messages that were delivered as often as allowed."""
        self.first_seq, self.last_seq, self._msgs, self.many = found
        self._connection = connection
        self._stream = stream
        self._member = member
        self._now = now
        self._wall = wall
        self._check = check
        self._table = f"msg_{row.stream}"
        self._body = "length(data)" if self.settings.headers_only else "data"
        self._most = replay.MOST_AT_ONCE if self.settings.original else MOST_ROWS
        self._chosen: Sequence[int] = row.chosen
        self._before = (row.delivered_c, row.scanned, row.floor_c)
        self._not_before: int | None = None
        """It is paused until then."""
        self._later = EXHAUSTED
        """When the next message of a replay comes."""

    def serve(self, requests: Sequence[Request]) -> None:
        """First come, first served; what is left over stays empty."""
        if self.settings.request_limits is not None:
            requests = self._allowed(self.settings.request_limits, requests)
        paused = self.settings.paused_until - self._wall
        if paused > 0:
            self._not_before = self._now + paused
            return
        harvest(self._connection, self.row.id, self._now)
        for request in requests:
            try:
                request.found = self._take(request)
            except MaxBytesExceededError as error:
                request.error = error

    def _allowed(self, limits: RequestLimits, requests: Sequence[Request]) -> list[Request]:
        for request in requests:
            if not request.checked:
                request.checked, request.error = True, refusal(limits, request)
        return [request for request in requests if request.error is None]

    def finish(self) -> None:
        """Write the position."""
        row = self.row
        if self.settings.ack_none:
            row.floor_c, row.floor_s = row.delivered_c, row.delivered_s
        used = row.inactive is not None and self._now - row.active > row.inactive // 4
        if used or (row.delivered_c, row.scanned, row.floor_c) != self._before:
            row.active = self._now
            save(self._connection, row)

    def next_due(self) -> int | None:
        """When the next message of this consumer falls due."""
        if self._not_before is not None:
            return self._not_before
        found = one(
            self._connection,
            "SELECT min((SELECT coalesce(min(deadline), :never) FROM lease WHERE consumer = :id), "
            "(SELECT coalesce(min(due), :never) FROM pending WHERE consumer = :id))",
            {"id": self.row.id, "never": EXHAUSTED},
        )[0]
        found = min(found, self._later) if self._later > self._now else found
        return None if found >= EXHAUSTED else int(found)

    def _take(self, request: Request) -> list[Msg]:
        claim = Claim(self.settings, request.session, 0)
        found: list[Msg] = []
        room = request.max_bytes
        if not self.settings.ack_none:
            room = self._redeliver(request, claim, found, room)
        if room is not None and room < 0:
            return found
        limit = request.limit - len(found)
        free = self._free()
        if limit > 0 and (free is None or free > 0):
            self._fresh(request, limit if free is None else min(limit, free), room, found)
        return found

    def _free(self) -> int | None:
        most = self.settings.max_ack_pending
        if most is None:
            return None
        free = most - outstanding(self._connection, self.row, self._now)
        if free <= 0:  # what was deleted meanwhile makes room
            sweep(self._connection, self.row, self._wall, self._now)
            free = most - outstanding(self._connection, self.row, self._now)
        return free

    def _redeliver(self, request: Request, claim: Claim, found: list[Msg], room: int | None) -> int | None:
        connection, settings, row = self._connection, self.settings, self.row
        while len(found) < request.limit and (room is None or room >= 0):
            rows = every(
                connection,
                "SELECT seq, first_c, deliveries FROM pending WHERE consumer = ? AND due <= ? "
                "ORDER BY due, queue, seq LIMIT ?",
                (row.id, self._now, request.limit - len(found)),
            )
            if not rows:
                break
            for sequence, first_c, deliveries in rows:
                if deliveries >= settings.max_deliver:
                    self._exhaust(sequence, deliveries)
                    continue
                stored = self._stored(sequence)
                if stored is None:
                    connection.execute("DELETE FROM pending WHERE consumer = ? AND seq = ?", (row.id, sequence))
                    continue
                if room is not None:
                    room -= self._size(stored, deliveries + 1)
                    if room < 0:
                        self._refuse_if_first(request, found)
                        break
                row.delivered_c += 1
                claim.loose[sequence] = (deliveries + 1, first_c, row.delivered_c)
                due = self._now + settings.wait_ns(deliveries + 1)
                connection.execute(_DELIVERED, (due, deliveries + 1, self._member, row.id, sequence))
                claim.prolong(min(due, claim.deadline or due))
                found.append(self._message(claim, stored))
        claim.left = len(found)
        self._mark(claim)
        return room

    def _exhaust(self, sequence: int, deliveries: int) -> None:
        self._connection.execute(
            f"UPDATE pending SET due = {EXHAUSTED}, queue = NULL, owner = NULL WHERE consumer = ? AND seq = ?",
            (self.row.id, sequence),
        )
        self.exhausted.append((sequence, deliveries))

    def _fresh(self, request: Request, limit: int, room: int | None, found: list[Msg]) -> None:
        row, settings = self.row, self.settings
        rows = self._new_rows(min(limit, self._most if room is None else MOST_ROWS_BY_SIZE))
        if settings.original and rows:
            rows = self._in_rhythm(rows)
        if room is not None:
            rows = self._cut(rows, room, request, found)
        if not rows:
            return
        if settings.original:
            replay.note(self._connection, row.id, rows[-1][1], self._now, self.last_seq)
        deadline = self._now + settings.wait_ns(1)
        claim = Claim(settings, request.session, EXHAUSTED if settings.ack_none else deadline)
        claim.lo, hi, count = rows[0][0], rows[-1][0], len(rows)
        claim.first_c, claim.count, claim.left = row.delivered_c + 1, count, count
        row.delivered_c += count
        row.delivered_s = hi
        if row.snapshot is None:
            row.scanned = max(row.scanned, hi)
        self._mark(claim)
        if hi - claim.lo + 1 != count:
            claim.index = {stored[0]: place for place, stored in enumerate(rows)}
        if not settings.ack_none:
            self._lease(claim, hi)
        session, connection = request.session, self._connection
        if self._check:
            self._verify(rows)
        if settings.headers_only:
            found += [self._message(claim, stored) for stored in rows]
            return
        names = {subject: subject_name(connection, subject) for subject in {stored[2] for stored in rows}}
        found += [
            Msg(session, names[subject], data, headers or b"", (claim, sequence, stamp))
            for sequence, stamp, subject, headers, data, _ in rows
        ]

    def _mark(self, claim: Claim) -> None:
        claim.position = self.row.passed
        claim.last_seq = self.last_seq
        claim.chosen = self._chosen
        claim.gap_free = (
            self._msgs == self.last_seq - self.first_seq + 1
            and (not self.settings.filter or not self.many)
            and not self._chosen
        )

    def _lease(self, claim: Claim, hi: int) -> None:
        listed = None if claim.index is None else array("q", claim.index).tobytes()
        claim.acked = bytearray(claim.count)
        claim.plain = not self.settings.ack_all
        self._connection.execute(
            "INSERT INTO lease(consumer, lo, hi, first_c, owner, deadline, open, seqs, acked) "
            "VALUES(?, ?, ?, ?, ?, ?, ?, ?, NULL)",
            (self.row.id, claim.lo, hi, claim.first_c, self._member, claim.deadline, claim.count, listed),
        )

    def _new_rows(self, limit: int) -> list[Any]:
        """The next matching messages behind what was looked at before."""
        row = self.row
        start = max(row.scanned, row.delivered_s)
        if start >= self.last_seq:
            return []
        chosen = row.chosen
        if not chosen:
            return self._rows_behind(start, limit)
        rows = self._chosen_rows(chosen, limit)
        if len(rows) < limit:
            row.scanned = chosen[-1]
            rows += self._rows_behind(row.scanned, limit - len(rows))
        return rows

    def _rows_behind(self, start: int, limit: int) -> list[Any]:
        row = self.row
        ids = self.settings.filter.ids(self._connection) if self.settings.filter else None
        columns = f"seq, ts, subject, headers, {self._body}, crc"
        visible = "(expires IS NULL OR expires > ?)"
        if ids is None:
            where, bound = "seq > ?", [start]
        elif not ids:
            row.scanned = self.last_seq
            return []
        else:
            where, bound = self._where(ids, start, limit)
        rows = every(
            self._connection,
            f"SELECT {columns} FROM {self._table} WHERE {where} AND {visible} ORDER BY seq LIMIT ?",
            (*bound, self._wall, limit),
        )
        if len(rows) < limit and ids is not None:
            row.scanned = self.last_seq
        return rows

    def _chosen_rows(self, chosen: Sequence[int], limit: int) -> list[Any]:
        """The newest per subject as of the consumer's creation, as far as they are still there."""
        return every(
            self._connection,
            f"SELECT seq, ts, subject, headers, {self._body}, crc FROM {self._table} "
            "WHERE seq IN (SELECT value FROM json_each(?)) AND (expires IS NULL OR expires > ?) ORDER BY seq LIMIT ?",
            (str(list(chosen[:-1])), self._wall, limit),
        )

    def _where(self, ids: set[int], start: int, limit: int) -> tuple[str, list[Any]]:
        """By the index where few messages match, else along the messages: each alone is slow for the other case."""
        among = ",".join(map(str, ids)) if len(ids) <= INLINE_IDS else f"SELECT value FROM json_each('{sorted(ids)}')"
        if self.many:
            matching = one(
                self._connection,
                f"SELECT coalesce(sum(msgs), 0) FROM subject_state WHERE stream = ? AND subject IN ({among})",
                (self.row.stream,),
            )[0]
            if matching * SPARSE < self._msgs:
                chosen = (
                    f"SELECT seq FROM subject_seq_{self.row.stream} WHERE subject IN ({among}) AND seq > ? ORDER BY seq"
                )
                return f"seq IN ({chosen})", [start]
        return f"seq > ? AND subject IN ({among})", [start]

    def _stored(self, sequence: int) -> Any:
        rows = every(
            self._connection,
            f"SELECT seq, ts, subject, headers, {self._body}, crc FROM {self._table} "
            "WHERE seq = ? AND (expires IS NULL OR expires > ?)",
            (sequence, self._wall),
        )
        if not rows:
            return None
        if self._check:
            self._verify(rows)
        return rows[0]

    def _verify(self, rows: Sequence[Any]) -> None:
        if self.settings.headers_only:
            return  # the body was not read, and the checksum covers it
        sums = {key: crc32(subject_name(self._connection, key).encode()) for key in {row[2] for row in rows}}
        last = common = 0
        for sequence, stamp, subject, headers, data, crc in rows:
            # checksum(), written out: a call and an encoded subject per row would cost more than the sum, and the
            # messages of one commit share their time
            if stamp != last:
                last, common = stamp, (stamp ^ stamp >> 32) * 0x85EBCA6B
            start = (sequence * 0x9E3779B1 ^ common ^ sums[subject] ^ sequence >> 32) & 0xFFFFFFFF
            if crc32(data, crc32(headers, start) if headers else start) != crc:
                raise CorruptedError("the checksum does not fit", stream=self._stream, sequence=sequence)

    def _message(self, claim: Claim, stored: Any) -> Msg:
        sequence, stamp, subject, headers, data, _ = stored
        block = headers or b""
        if self.settings.headers_only:
            block, data = b"%bNats-Msg-Size: %d\r\n" % (block, data), b""
        return Msg(claim.owner, subject_name(self._connection, subject), data, block, (claim, sequence, stamp))

    def _size(self, stored: Any, deliveries: int) -> int:
        """What a server counts: subject, acknowledgement subject, headers, payload."""
        sequence, stamp, subject, headers, data, _ = stored
        length = 0 if self.settings.headers_only else len(data)
        block = len(headers) + 12 if headers else 0
        facts = (sequence, self.row.delivered_c + 1, stamp)
        token = reply_token(self._stream, self.row.name, deliveries, facts, max(0, self.last_seq - sequence))
        return len(subject_name(self._connection, subject).encode()) + len(token.encode()) + block + length

    def _cut(self, rows: list[Any], room: int, request: Request, found: list[Msg]) -> list[Any]:
        for place, stored in enumerate(rows):
            room -= self._size(stored, 1)
            if room < 0:
                self.row.scanned = min(self.row.scanned, stored[0] - 1)
                if not place:
                    self._refuse_if_first(request, found)
                return rows[:place]
        return rows

    def _in_rhythm(self, rows: list[Any]) -> list[Any]:
        count, self._later = replay.due_now(self._connection, self.row.id, rows, self._now)
        if count < len(rows):
            self.row.scanned = min(self.row.scanned, rows[count][0] - 1)
        return rows[:count]

    def _refuse_if_first(self, request: Request, found: list[Msg]) -> None:
        if not found:
            raise MaxBytesExceededError(f"the next message is larger than max_bytes ({request.max_bytes})")


def harvest(connection: apsw.Connection, consumer_id: int, now: int) -> None:
    """Leases that ran out become single rows, due since then."""
    due = one(connection, "SELECT 1 FROM lease WHERE consumer = ? AND deadline <= ? LIMIT 1", (consumer_id, now))
    if due is None:
        return
    for lease in leases_of(connection, consumer_id):
        if lease.deadline > now:
            continue
        connection.executemany(
            "INSERT OR IGNORE INTO pending(consumer, seq, first_c, due, deliveries, queue, owner) "
            "VALUES(?, ?, ?, ?, 1, NULL, NULL)",
            [(consumer_id, seq, lease.first_c + place, lease.deadline) for place, seq in lease.unsettled()],
        )
        connection.execute("DELETE FROM lease WHERE consumer = ? AND lo = ?", (consumer_id, lease.lo))
