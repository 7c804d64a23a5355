"""Journals: what members of a group did, in lines that survive their death; and the one who reads them all.

A line is ``<ns> <kind> <partition> <offset> <key>``: S a run begins, F it ended well, C a commit is handed to the
driver (the next offset to read), A it was confirmed, B a stay begins; Z and T stand around a fault of the member's own.
The clock is the machine's, the same for all processes. The judge knows nothing of headrace: it looks at the lines and
at what was published.
"""

import os
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path


class Journal:
    """One member's; each line is in the kernel's hands before the call returns."""

    def __init__(self, path):
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, kind, partition, offset, key=b""):
        os.write(self._file, b"%d %s %d %d %s\n" % (time.monotonic_ns(), kind.encode(), partition, offset, key or b"-"))


@dataclass
class Verdict:
    """What a run came to; `wrong` is empty where all promises were kept."""

    starts: int = 0
    finishes: int = 0
    commits: int = 0
    stays: int = 0
    again: int = 0
    """Runs that ended well of what had ended well before."""
    again_of: Counter = field(default_factory=Counter)
    """How many of these each member had done before."""
    again_in: Counter = field(default_factory=Counter)
    """How many of these there are in each partition."""
    wrong: list = field(default_factory=list)

    def __str__(self):
        return (
            f"{self.starts} starts, {self.finishes} ended well, {self.again} of them again, {self.commits} commits, "
            f"{self.stays} stays, {len(self.wrong)} wrong"
        )


def lines_of(folder):
    """All that was written: time, member, kind, partition, offset, key; in order of time."""
    lines = []
    for path in sorted(Path(folder).glob("*.journal")):
        for line in path.read_bytes().splitlines():
            if line.count(b" ") == 4:  # the last one of a killed member may be torn
                at, kind, partition, offset, key = line.split(b" ")
                lines.append((int(at), path.stem, kind, int(partition), int(offset), key))
    lines.sort(key=lambda line: line[0])
    return lines


def count_of(folder, kind, start=0, stop=float("inf"), member=None):
    """How many lines of this kind there are between two times, of this member."""
    return sum(start < line[0] < stop and line[2] == kind and member in {None, line[1]} for line in lines_of(folder))


def judge(folder, published, deaths, *, whole=True):
    """Look at all journals in `folder`.

    `published`: partition -> offset -> key. `deaths`: member -> ns of its kill, where it was killed: what it ran has
    ended with it. Not `whole`: not everything needs to have been handled.
    """
    lines = lines_of(folder)
    verdict = Verdict()
    _judge_commits(lines, published, verdict)
    _judge_confirmed(lines, verdict)
    _judge_keys(lines, deaths, verdict)
    _judge_order(lines, published, verdict)
    if whole:
        _judge_end(lines, published, verdict)
    return verdict


def held_by(folder, member, at):
    """The partitions that were this member's at that time, as far as anybody has begun a stay."""
    last = {}
    for when, name, kind, partition, *_ in lines_of(folder):
        if kind == b"B" and when <= at:
            last[partition] = name
    return {partition for partition, name in last.items() if name == member}


def _judge_commits(lines, published, verdict):
    """No commit past unfinished work, none that goes back within a stay."""
    waiting = {partition: sorted(offsets) for partition, offsets in published.items()}
    done, upto, last = defaultdict(set), defaultdict(int), {}
    for at, member, kind, partition, offset, _ in lines:
        if kind == b"F":
            done[partition].add(offset)
        elif kind == b"B":
            verdict.stays += 1
            last.pop((member, partition), None)
        elif kind == b"C":
            verdict.commits += 1
            if offset < last.get((member, partition), 0):
                verdict.wrong.append(
                    f"{member} went back on {partition}: {offset} after {last[member, partition]} at {at}"
                )
            last[member, partition] = offset
            offsets = waiting[partition]
            while upto[partition] < len(offsets) and offsets[upto[partition]] in done[partition]:
                upto[partition] += 1
            first = offsets[upto[partition]] if upto[partition] < len(offsets) else None
            if first is not None and offset > first:
                verdict.wrong.append(f"{member} committed {offset} of {partition} while {first} was not done, at {at}")


def _judge_confirmed(lines, verdict):
    """Nothing begins below a commit that was confirmed."""
    upto = defaultdict(int)
    for at, member, kind, partition, offset, _ in lines:
        if kind == b"A":
            upto[partition] = max(upto[partition], offset)
        elif kind == b"S" and offset < upto[partition]:
            verdict.wrong.append(f"{member} began {offset} of {partition} below the commit {upto[partition]} at {at}")


def _judge_keys(lines, deaths, verdict):
    """No key twice at once, and none out of order where it is handled for the first time."""
    running, done = {}, {}
    for at, member, kind, partition, offset, key in lines:
        if kind == b"S":
            verdict.starts += 1
            before = running.get(key)
            if before is not None and not (before[0] in deaths and deaths[before[0]] <= at):
                verdict.wrong.append(f"key {key!r} twice at once: {before} and {member, partition, offset} at {at}")
            running[key] = member, partition, offset
        elif kind == b"F":
            verdict.finishes += 1
            if running.get(key) == (member, partition, offset):
                del running[key]
            place = partition, offset
            if place in done:
                verdict.again += 1
                verdict.again_of[done[place]] += 1
                verdict.again_in[partition] += 1
            done[place] = member


def _judge_order(lines, published, verdict):
    """Each key in order of its first runs; and nothing that nobody published."""
    first = defaultdict(list)
    seen = set()
    for _, member, kind, partition, offset, key in lines:
        if kind == b"S" and (partition, offset) not in seen:
            seen.add((partition, offset))
            first[partition, key].append(offset)
            if offset not in published.get(partition, ()):
                verdict.wrong.append(f"{member} began {offset} of {partition}, which was never published")
    for place, offsets in first.items():
        if offsets != sorted(offsets):
            verdict.wrong.append(f"{place} began out of order: {offsets[:20]}")


def _judge_end(lines, published, verdict):
    """Everything was handled."""
    done = {(partition, offset) for _, _, kind, partition, offset, _ in lines if kind == b"F"}
    missing = [(p, o) for p, offsets in published.items() for o in offsets if (p, o) not in done]
    if missing:
        verdict.wrong.append(f"{len(missing)} were never handled: {missing[:5]}")
