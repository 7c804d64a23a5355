"""Claim: what one claim brought, as the loop sees it; and Payload, the outcomes on their way to the disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from headrace.embedded.consumers.rows import Settings

__all__ = ["MOVED", "SETTLED", "Claim", "Move", "Payload"]

SETTLED = 1
MOVED = 2


class Claim:
    """The messages of one claim of one session: a lease row (first deliveries), or single rows (redeliveries).

    ``acked`` holds one byte per message of a lease row: settled, or moved to a row of its own (nak, extended).
    ``loose`` maps what stands in single rows to (deliveries, first and present consumer sequence).
    """

    __slots__ = (
        "acked", "chosen", "count", "deadline", "dirty", "done", "first_c", "gap_free", "index", "last_seq", "left",
        "lo", "longer", "loose", "owner", "plain", "position", "settings", "until",
        "written",
    )  # fmt: skip

    def __init__(self, settings: Settings, owner: Any, deadline: int) -> None:
        self.settings = settings
        self.owner = owner
        self.deadline = deadline
        self.until = deadline / 1e9
        self.plain = False
        """Whether an ack is nothing but a byte in `acked`."""
        self.lo = self.first_c = self.count = self.left = 0
        self.acked = bytearray()
        self.index: dict[int, int] | None = None
        self.loose: dict[int, tuple[int, int, int]] = {}
        self.done: set[int] = set()
        """Settled ones that were more than a byte."""
        self.longer: dict[int, int] = {}
        """Deadlines of single messages."""
        self.dirty = False
        self.written = 0
        """How many settled ones were handed over."""
        self.position = self.last_seq = 0
        self.gap_free = True
        self.chosen: Sequence[int] = ()
        """What of a snapshot was not delivered yet when this was claimed."""

    def place(self, sequence: int) -> int:
        """The place of a first delivery in its lease row."""
        return sequence - self.lo if self.index is None else self.index[sequence]

    def numbers(self, sequence: int) -> tuple[int, int]:
        """Delivery count and consumer sequence of a delivery."""
        known = self.loose.get(sequence)
        if known is not None:
            return known[0], known[2]
        return 1, self.first_c + self.place(sequence)

    def prolong(self, deadline: int) -> None:
        """The lease runs until then."""
        self.deadline = deadline
        self.until = deadline / 1e9


class Move(NamedTuple):
    """A first delivery gets a row of its own: handed back (no `owner`) or extended by its owner, at this time."""

    lo: int
    sequence: int
    due: int
    queue: int | None
    owner: int | None
    at: int


class Payload:
    """Outcomes of one consumer, taken over from the loop: nothing in it changes any more.

    The bytes of each lease are copied here, on the loop: else a nak could reach the disk as acked before its own row,
    and a kill in between would lose the message.
    """

    __slots__ = ("acks", "extended", "kept", "leases", "moved", "naked", "settled", "since", "touched", "upto")

    def __init__(self) -> None:
        self.leases: list[tuple[int, bytes, tuple[int, ...] | None]] = []
        """(lo, bytes, sequences where they are no range)."""
        self.moved: list[Move] = []
        self.settled: list[int] = []
        self.naked: list[tuple[int, int, int, int]] = []
        """(sequence, due, queue, time of the nak)."""
        self.extended: list[tuple[int, int]] = []
        self.kept: list[tuple[int, int]] = []
        """(lo, deadline)."""
        self.touched = False
        """The consumer was in use."""
        self.upto: tuple[int, int] | None = None
        """Ack all: (sequence, consumer sequence)."""
        self.since = 0
        """None of it was said before then (boot clock)."""
        self.acks = 0
        """How many acks are in it."""

    def __bool__(self) -> bool:
        if self.leases or self.moved or self.settled or self.naked or self.extended or self.kept:
            return True
        return self.touched or self.upto is not None
