"""Acks: how outcomes reach consumers.db. On its thread, in the transaction of the next claim or flush."""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from headrace.embedded.consumers.leases import SETTLED, Move, Payload
from headrace.embedded.consumers.rows import (
    EXHAUSTED,
    LEASED,
    WAITING,
    ConsumerRow,
    Leased,
    Settings,
    leases_of,
    settings_of,
)
from headrace.embedded.store.sql import every, one

__all__ = ["Settler", "lowest_pending", "settle_floor"]

_QUEUE_AGAIN = (  # due already at the time of the nak (?5): only a delay makes it wait again
    "UPDATE pending SET due = ?1, queue = ?2, owner = NULL WHERE consumer = ?3 AND seq = ?4 "
    f"AND (due > ?5 OR ?1 > ?5) AND due < {EXHAUSTED}"
)
_EXTEND = (
    f"UPDATE pending SET due = ? WHERE consumer = ? AND seq = ? AND owner = ? AND queue IS NULL AND due < {EXHAUSTED}"
)
_LEASES = "SELECT lo, hi, first_c, owner, deadline, open, seqs, acked FROM lease WHERE consumer = ?1"


class Settler:
    """Applies payloads to one consumer. `settled` lists what they settled, where retention must know it."""

    def __init__(
        self, connection: apsw.Connection, row: ConsumerRow, settings: Settings, member: int, *, collect: bool
    ) -> None:
        self.settled: list[int] = []
        self._connection = connection
        self._row = row
        self._settings = settings
        self._member = member
        self._collect = collect

    def apply(self, payload: Payload) -> None:
        """Write it. What is no longer leased or pending is left alone: a late outcome without effect."""
        before = None if self._settings.ack_all else lowest_pending(self._connection, self._row, payload.since)
        self._keep(payload)
        moves: dict[int, list[Move]] = {}
        for move in payload.moved:
            moves.setdefault(move.lo, []).append(move)
        for lo, acked, sequences in payload.leases:
            self._lease(lo, acked, sequences, moves.pop(lo, ()))
        self._naks(payload)
        if payload.settled:
            self._settle(payload.settled)
        if payload.upto is not None and payload.upto[0] > self._row.floor_s:
            self._all_upto(*payload.upto)
        if not self._settings.ack_all:
            settle_floor(self._connection, self._row, before, payload.since)

    def _keep(self, payload: Payload) -> None:
        consumer, member = self._row.id, self._member
        if payload.kept:
            self._connection.executemany(
                "UPDATE lease SET deadline = ? WHERE consumer = ? AND lo = ? AND owner = ?",
                [(deadline, consumer, lo, member) for lo, deadline in payload.kept],
            )
        if payload.extended:
            self._connection.executemany(_EXTEND, [(due, consumer, seq, member) for seq, due in payload.extended])

    def _naks(self, payload: Payload) -> None:
        if payload.naked:
            consumer = self._row.id
            rows = [(due, queue, consumer, sequence, at) for sequence, due, queue, at in payload.naked]
            self._connection.executemany(_QUEUE_AGAIN, rows)

    def _lease(self, lo: int, acked: bytes, sequences: Sequence[int] | None, moves: Sequence[Move]) -> None:
        connection, key = self._connection, (self._row.id, lo)
        if not moves and not self._collect and 0 not in acked:
            connection.execute("DELETE FROM lease WHERE consumer = ? AND lo = ?", key)
            if connection.changes():
                return
        found = one(connection, f"{_LEASES} AND lo = ?2", key)
        if found is None:
            self._late_lease(lo, acked, sequences, moves)
            return
        lease = Leased(*found)
        disk = lease.acked or bytes(len(acked))
        if self._collect:
            claimed = lease.sequences
            self.settled += [claimed[place] for place, mark in enumerate(acked) if mark == SETTLED and not disk[place]]
        for move in moves:
            place = move.sequence - lo if sequences is None else sequences.index(move.sequence)
            if disk[place]:
                self._move_late(move)
            else:
                self._insert(move, lease.first_c + place, lease.deadline)
        self._write_lease(key, disk, acked)

    def _write_lease(self, key: tuple[int, int], disk: bytes, acked: bytes) -> None:
        # Both only grow: what another process settled meanwhile (ack all) stays settled.
        both = int.from_bytes(disk, "big") | int.from_bytes(acked, "big")
        merged = both.to_bytes(len(acked), "big")
        left = merged.count(0)
        if left:
            self._connection.execute(
                "UPDATE lease SET acked = ?, open = ? WHERE consumer = ? AND lo = ?", (merged, left, *key)
            )
        else:
            self._connection.execute("DELETE FROM lease WHERE consumer = ? AND lo = ?", key)

    def _late_lease(self, lo: int, acked: bytes, sequences: Sequence[int] | None, moves: Sequence[Move]) -> None:
        """The lease ran out and became single rows: acks still count while the message is pending."""
        claimed = range(lo, lo + len(acked)) if sequences is None else sequences
        self._settle([claimed[place] for place, mark in enumerate(acked) if mark == SETTLED])
        for move in moves:
            self._move_late(move)

    def _insert(self, move: Move, first_c: int, deadline: int) -> None:
        due, queue = move.due, move.queue
        if deadline <= move.at == due:
            due, queue = deadline, None  # a plain nak of what was due again by itself changes nothing
        self._connection.execute(
            "INSERT OR IGNORE INTO pending(consumer, seq, first_c, due, deliveries, queue, owner) "
            "VALUES(?, ?, ?, ?, 1, ?, ?)",
            (self._row.id, move.sequence, first_c, due, queue, move.owner),
        )

    def _move_late(self, move: Move) -> None:
        if move.owner is None:
            self._connection.execute(_QUEUE_AGAIN, (move.due, move.queue, self._row.id, move.sequence, move.at))
        else:
            self._connection.execute(_EXTEND, (move.due, self._row.id, move.sequence, move.owner))

    def _settle(self, sequences: Sequence[int]) -> None:
        statement = "DELETE FROM pending WHERE consumer = ? AND seq = ?"
        if not self._collect:
            self._connection.executemany(statement, [(self._row.id, sequence) for sequence in sequences])
            return
        for sequence in sequences:
            self._connection.execute(statement, (self._row.id, sequence))
            if self._connection.changes():
                self.settled.append(sequence)

    def _all_upto(self, sequence: int, consumer_sequence: int) -> None:
        """Ack all: this message and everything below."""
        connection, row = self._connection, self._row
        for lease in leases_of(connection, row.id):
            if lease.lo > sequence:
                break
            marks = bytearray(lease.acked or bytes(len(lease.sequences)))
            for place, claimed in lease.unsettled():
                if claimed <= sequence:
                    marks[place] = SETTLED
                    self.settled.append(claimed)
            self._write_lease((row.id, lease.lo), bytes(marks), bytes(marks))
        below = (row.id, sequence)
        if self._collect:
            rows = every(connection, "SELECT seq FROM pending WHERE consumer = ? AND seq <= ?", below)
            self.settled += [found for (found,) in rows]
        connection.execute("DELETE FROM pending WHERE consumer = ? AND seq <= ?", below)
        row.floor_c, row.floor_s = max(row.floor_c, consumer_sequence), sequence


def lowest_pending(connection: apsw.Connection, row: ConsumerRow, now: int) -> tuple[int, int] | None:
    """The lowest message that is delivered and not settled, exhausted ones left out: sequence, its first delivery."""
    lowest: tuple[int, int] | None = None
    limits = (row.id, now, settings_of(row.config).max_deliver)
    lease = one(connection, f"{_LEASES} AND {LEASED} ORDER BY lo LIMIT 1", limits)
    if lease is not None:
        leased = Leased(*lease)
        for place, sequence in leased.unsettled():
            lowest = (sequence, leased.first_c + place)
            break
    single: tuple[int, int] | None = one(
        connection,
        f"SELECT seq, first_c FROM pending WHERE consumer = ?1 AND {WAITING} ORDER BY seq LIMIT 1",
        limits,
    )
    return single if lowest is None or (single is not None and single < lowest) else lowest


def settle_floor(connection: apsw.Connection, row: ConsumerRow, before: tuple[int, int] | None, now: int) -> None:
    """Move the floor over what is settled: to the delivered pair, or in front of the lowest pending message.

    `before` was the lowest one, as of `now` too. As on a server the floor moves only when the message right above it
    went, so it waits behind an exhausted one until nothing is pending.
    """
    left = lowest_pending(connection, row, now)
    if left is None:
        if before is not None:
            row.floor_c, row.floor_s = row.delivered_c, row.delivered_s
    elif before is not None and before[1] == row.floor_c + 1 and left != before:
        row.floor_c, row.floor_s = left[1] - 1, left[0] - 1
