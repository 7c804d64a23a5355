"""Partition: one stay of a partition with us, from its assignment to its end; Epoch: one run over its offsets.

The loop's thread owns both. The driver's thread makes a stay and ends it, and reads one integer meanwhile: what may be
committed. A delivery holds its epoch and never looks one up by number, so a late one cannot touch a newer stay.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from headrace.core.message import Message
from headrace.kafka.consuming.beyond import written
from headrace.kafka.tracker import OffsetTracker

__all__ = ["Epoch", "Held", "Partition", "Run"]


class Epoch:
    """Offsets that only grow. ``dead``: nothing that is settled in it counts any more."""

    __slots__ = (
        "arrivals",
        "confirmed",
        "dead",
        "last",
        "leaders",
        "number",
        "out",
        "partition",
        "sent",
        "tracker",
    )

    def __init__(self, partition: Partition, number: int) -> None:
        self.partition = partition
        self.number = number
        self.tracker = OffsetTracker()
        self.dead = False
        self.out = 0
        """Handed out and not settled."""
        self.leaders: deque[tuple[int, int]] = deque()
        """(first offset, leader epoch) of records begun, where it changes."""
        self.arrivals: deque[tuple[int, int]] = deque()
        """(first offset, when it came in ns) of each batch that is not finished."""
        self.last: tuple[int, str] | None = None
        """What the last commit is to say: the offset, and what is finished beyond. The loop writes it."""
        self.sent: tuple[int, str] | None = None
        """The driver's thread: what was sent to be committed."""
        self.confirmed: tuple[int, str] | None = None
        """The driver's thread: what the group's coordinator has confirmed (partition mode: the store)."""

    @property
    def committed(self) -> int | None:
        """The offset that is confirmed."""
        return None if self.confirmed is None else self.confirmed[0]

    def sum_up(self) -> None:
        """Work out what a last commit says. On the loop, where nothing changes meanwhile."""
        tracker, partition = self.tracker, self.partition
        base = tracker.oldest if tracker.committable is None else tracker.committable
        if base is None:
            self.last = None
            return
        leader = self.leaders[-1][1] if self.leaders else -1
        finished = tracker.ahead
        if partition.before and leader <= partition.before_leader:
            # What another has finished, and was not read here yet, is handed on.
            finished += sorted(offset for offset in partition.before if offset > (tracker.begun or base))
            leader = partition.before_leader
        self.last = base, written(base, finished, leader)

    def finish(self, finished: Sequence[Held]) -> None:
        """They need no more work."""
        self.out -= len(finished)
        self.partition.held_bytes -= sum([held.size for held in finished])
        self.tracker.finish_many([held.offset for held in finished])

    def since_ns(self) -> int | None:
        """When the oldest unfinished record came; ``None``: all are finished."""
        oldest, arrivals = self.tracker.oldest, self.arrivals
        if oldest is None:
            arrivals.clear()
            return None
        while len(arrivals) > 1 and arrivals[1][0] <= oldest:
            arrivals.popleft()
        return arrivals[0][1]

    def leader_at(self, offset: int) -> int:
        """The leader epoch of the record before `offset`, the next one to read; -1 = unknown."""
        leaders = self.leaders
        while len(leaders) > 1 and leaders[1][0] < offset:
            leaders.popleft()
        return leaders[0][1] if leaders and leaders[0][0] < offset else -1


class Partition:
    """One stay. ``live``: runs may begin."""

    __slots__ = (
        "before",
        "before_leader",
        "end",
        "epoch",
        "held_bytes",
        "key",
        "live",
        "number",
        "on_quiet",
        "paused",
        "position",
        "source",
        "started",
        "topic",
    )

    def __init__(self, topic: str, number: int, position: int, before: tuple[set[int], int] | None = None) -> None:
        self.topic = topic
        self.number = number
        self.key = topic, number
        self.source = f"{topic}/{number}"
        self.position = position
        """The next record to hand out; below 0: not known before the first one."""
        self.epoch = Epoch(self, 1)
        self.before, self.before_leader = before or (set[int](), -1)
        """Offsets that another member has finished, beyond what it could commit: not handed out again."""
        self.end: int | None = None
        """Behind the last record of the log, as the driver has heard. The driver's thread writes it."""
        self.live = True
        self.held_bytes = 0
        """Bytes of records handed out and unfinished."""
        self.paused = False
        self.started: set[Held] = set()
        """What a run was granted for, last time it was asked, and is not settled: in epochs that are over, too."""
        self.on_quiet: Callable[[], None] | None = None
        """Called once nothing runs any more, while it is being revoked."""

    def __repr__(self) -> str:
        return f"<Partition {self.source} epoch {self.epoch.number}{'' if self.live else ', ended'}>"

    def begin(self, offsets: Sequence[int], leader: int, received_ns: int) -> Epoch:
        """Records are handed out, read from this leader epoch: the epoch they belong to.

        Ascending `offsets`. Where they do not go on above the last one, the log was cut or somebody went back:
        what comes is handled again, and the epoch before is over.
        """
        epoch = self.epoch
        if epoch.tracker.begun is not None and offsets[0] <= epoch.tracker.begun:
            epoch = self._begin_anew()
        epoch.since_ns()  # lets go of what is finished
        epoch.tracker.begin_many(offsets)
        epoch.arrivals.append((offsets[0], received_ns))
        if not epoch.leaders or epoch.leaders[-1][1] != leader:
            epoch.leaders.append((offsets[0], leader))
        self.position = offsets[-1] + 1
        return epoch

    def _begin_anew(self) -> Epoch:
        self.epoch.dead = True
        self.epoch = Epoch(self, self.epoch.number + 1)
        self.held_bytes = 0
        self.before.clear()  # it may be another log
        return self.epoch

    def goes_on(self, end: int, received_ns: int) -> None:
        """Reading goes on at `end`, with nothing before it any more: it is committed once all that came is finished.

        Ahead stand markers of transactions, or records that are gone; `end` before what was read: the log was cut.
        """
        if end != self.position:
            leaders = self.epoch.leaders
            if end < self.position:
                self._begin_anew()
            self.begin([end - 1], leaders[-1][1] if leaders else -1, received_ns).tracker.finish(end - 1)

    def ended(self) -> None:
        """The stay is over: nothing may begin, nothing counts."""
        self.live = False
        self.epoch.dead = True
        self.started.clear()  # what it holds is hidden from the collector, and leads back to here

    def unfinished_from(self) -> int:
        """What was read here before it is finished. The driver's thread may ask."""
        committable, leaders = self.epoch.tracker.committable, self.epoch.leaders
        if committable is not None:
            return committable
        return leaders[0][0] if leaders else self.position

    def run_over(self, held: Held) -> None:
        """One run less."""
        self.started.discard(held)
        if self.on_quiet is not None and not self.started:
            self.quiet()

    def runs_over(self, runs: Sequence[Held]) -> None:
        """So many less."""
        self.started.difference_update(runs)
        if self.on_quiet is not None and not self.started:
            self.quiet()

    def quiet(self) -> None:
        """Nothing runs any more, or nobody waits for it. Told once: what was never started is settled, too."""
        if self.on_quiet is not None:
            told, self.on_quiet = self.on_quiet, None
            told()


class Held(msgspec.Struct, eq=False, gc=False):
    """What a delivery and its views share beside the settlement: the record, and where it stands."""

    epoch: Epoch
    offset: int
    message: Message
    size: int
    """Bytes of it."""
    stamp: int
    """The kind of its timestamp: 0 none, 1 the sender's, 2 the broker's."""
    received_ns: int


class Run(msgspec.Struct, eq=False):
    """Records of one partition as they came, in order."""

    partition: Partition
    records: list[Any]
    received_ns: int
    at: int = 0
    """How many of them were handed out."""
    end: int | None = None
    """Where reading goes on behind them, if the driver has said so: what lies between are no records."""
    jumped: bool = False
    """Whether `end` is a new place, because the one before is out of range: it may lie before these records."""
