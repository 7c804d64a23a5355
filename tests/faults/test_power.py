"""Power cuts at every boundary: nothing acknowledged is lost. The judge does not know the engine."""

import asyncio
import os
import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from headrace import embedded
from headrace.embedded import Durability
from tests.faults.court import FILES, Court
from tests.faults.disk import Recorder, Surface, disk, lay, platter
from tests.faults.script import CONFIG, SMALL, made, readable, script

RELAXED = replace(SMALL, durability=Durability.RELAXED, relaxed_window=0.02)
MANNERS = ("lost", "kept", "torn", "entries")


def boundaries(log, every):
    """(place, event, manner): all manners at a sync, a make or a delete; at each `every`-th of the rest one of them."""
    for place, event in enumerate(log):
        if event[0] in {"sync", "make", "delete", "rename"}:
            yield from ((place, event, manner) for manner in MANNERS)
        elif event[0] != "ack" and place % every == 0:
            yield place, event, MANNERS[place // every % len(MANNERS)]


class Cuts:
    """Goes through a recording, and judges the store as it falls at each boundary."""

    def __init__(self, surface, court, folder, *, relaxed):
        self.surface, self.court, self.folder, self.relaxed = surface, court, folder, relaxed
        self.acknowledged, self.unsynced, self.points, self.wrong = {}, set(), Counter(), []

    def apply(self, event):
        kind, name, _, data = event
        if kind == "ack":
            self.acknowledged[name] = data.decode()
            self.unsynced.add(name)
            return
        if kind == "sync" and name == "streams.db-wal":
            self.unsynced.clear()
        self.surface.apply(*event)

    def judge(self, place, event, manner):
        self.points[manner] += 1
        files = self.surface.fallen(manner, place)
        lay(self.folder, {name: content for name, content in files.items() if name in FILES})
        if faults := self.court.judge(self.folder, self.acknowledged, sorted(self.unsynced) if self.relaxed else None):
            self.wrong.append(f"cut before event {place} {event[:3]}, {manner}: {faults[:3]}")

    def reopen(self, place, manner):
        """The engine opens what fell: positions are not ahead, and no sequence is given out twice."""
        files = self.surface.fallen(manner, place)
        lay(self.folder, {name: content for name, content in files.items() if name in FILES})
        certain = {key: body for key, body in self.acknowledged.items() if not (self.relaxed and key in self.unsynced)}
        fresh = asyncio.run(readable(self.folder, certain, RELAXED if self.relaxed else SMALL))
        assert fresh > max(self.acknowledged, default=0), f"cut before event {place}: {fresh} was given out before"
        if faults := self.court.judge(self.folder, certain):
            self.wrong.append(f"reopened after a cut before event {place}, {manner}: {faults[:3]}")


def power_cuts(tmp_path, operations, *, every, reopen_every, relaxed=False):
    """Run the script on a recording disk, then cut the power at every `every`-th boundary in every manner."""
    path, recorder = tmp_path / "data", Recorder()
    asyncio.run(made(path))
    surface = Surface(path)
    with disk(recorder):
        asyncio.run(script(path, operations, recorder.acknowledged, RELAXED if relaxed else SMALL))
    shutil.rmtree(path)
    done = reopened = 0
    with Court() as court, platter() as folder:
        cuts = Cuts(surface, court, folder, relaxed=relaxed)
        for place, event, manner in boundaries(recorder.log, every):
            for passed in recorder.log[done:place]:
                cuts.apply(passed)
            done = place
            cuts.judge(place, event, manner)
            if sum(cuts.points.values()) % reopen_every == 0:
                reopened += 1
                cuts.reopen(place, manner)
    total = sum(cuts.points.values())
    print(
        f"\n{'RELAXED' if relaxed else 'FSYNC'}: {operations} operations, {len(recorder.log)} events, {total} crash "
        f"points {dict(cuts.points)}, {reopened} opened again, {len(cuts.acknowledged)} acknowledged, "
        f"{len(cuts.wrong)} wrong"
    )
    assert cuts.acknowledged, "a run that acknowledged nothing proves nothing"
    assert min(cuts.points[manner] for manner in MANNERS) > 0
    assert not cuts.wrong, "\n".join(cuts.wrong[:10])
    return total


@pytest.mark.parametrize("relaxed", [False, True])
def test_power_cut_every_boundary_small(tmp_path, relaxed):
    assert power_cuts(tmp_path, 40, every=5, reopen_every=25, relaxed=relaxed) > 100


@pytest.mark.chaos
@pytest.mark.parametrize("relaxed", [False, True])
def test_power_cut_every_boundary(tmp_path, relaxed):
    assert power_cuts(tmp_path, 500, every=1, reopen_every=20, relaxed=relaxed) >= 2_000


def test_power_cut_while_a_store_is_made(tmp_path, monkeypatch):
    """Whatever is left of a store that was never finished: it opens, or becomes one."""
    path, recorder, rename = tmp_path / "data", Recorder(), os.rename

    async def make(where):
        async with embedded.open(where, options=SMALL) as streams:
            await streams.create_stream(CONFIG)
            await streams.publish("s.x", b"x")

    def renamed(old, new, **folders):
        if not folders:
            recorder("rename", Path(old).name, 0, Path(new).name)
        rename(old, new, **folders)

    monkeypatch.setattr(os, "rename", renamed)
    with disk(recorder):
        asyncio.run(make(path))
    monkeypatch.undo()
    surface, done, points = Surface(), 0, 0
    with platter() as folder:
        for place, _, manner in boundaries(recorder.log, 1):
            for passed in recorder.log[done:place]:
                surface.apply(*passed)
            done, points = place, points + 1
            lay(folder, surface.fallen(manner, place))
            asyncio.run(make(folder))
    print(f"\n{points} crash points while a store is made")
    assert points > 50


def tear(directory):
    """Delete one message of an atomic publish: how many went."""
    with closing(sqlite3.connect(directory / "streams.db")) as streams, streams:
        part = "SELECT max(seq) FROM msg_1 WHERE CAST(headers AS TEXT) LIKE '%Nats-Batch-Sequence: 2%'"
        return streams.execute(f"DELETE FROM msg_1 WHERE seq = ({part})").rowcount


def test_the_judge_finds_planted_defects(tmp_path):
    """A judge that finds nothing is no judge."""
    acknowledged = {}
    asyncio.run(made(tmp_path / "data"))
    asyncio.run(script(tmp_path / "data", 20, lambda sequence, body: acknowledged.update({sequence: body.decode()})))
    with Court() as court:
        assert court.judge_copy(tmp_path / "data", acknowledged) == []
        assert court.judge_copy(tmp_path / "data", acknowledged | {9_999: "never"}) == ["lost: 9999 was acknowledged"]
        first = min(acknowledged)
        assert "changed" in court.judge_copy(tmp_path / "data", acknowledged | {first: "other"})[0]
        assert court.judge(tmp_path / "data", acknowledged | {9_999: "never"}, [9_999]) == []
        gap = next(each for each in range(1, max(acknowledged)) if each not in acknowledged)
        assert "a hole" in court.judge(tmp_path / "data", acknowledged | {gap: "never"}, [gap])[0]
        assert tear(tmp_path / "data")
        assert "is torn" in court.judge_copy(tmp_path / "data", {})[0]
        file = tmp_path / "data" / "streams.db"
        file.write_bytes(file.read_bytes()[:8192] + bytes(4096) + file.read_bytes()[12288:])
        assert court.judge_copy(tmp_path / "data", acknowledged) != []
