"""kill -9 again and again, and four processes at once: nothing acknowledged is lost, keys keep their order."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.court import Court

MEMBER = Path(__file__).with_name("member.py")
SOURCE = Path(__file__).parents[2] / "src"
PATIENCE = 30.0


def member(directory, log, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    with log.with_suffix(".err").open("ab") as errors:
        return subprocess.Popen(
            [sys.executable, str(MEMBER), str(directory), str(log), *map(str, arguments)],
            env=environment,
            stderr=errors,
        )


def lines(log):
    """What it wrote down; the last line may be cut."""
    return [line.split(" ") for line in log.read_text().split("\n")[:-1]] if log.exists() else []


def wait_for(log, process, enough):
    deadline = time.monotonic() + PATIENCE
    while not enough({line[0] for line in lines(log)}):
        assert process.poll() is None, f"ended by itself: {log.with_suffix('.err').read_text()[-2000:]}"
        assert time.monotonic() < deadline, f"nothing happens; so far {lines(log)[-3:]}"
        time.sleep(0.002)


class Ledger:
    """What all rounds have acknowledged and handled, and whether each key came in order."""

    def __init__(self):
        self.acknowledged = {}
        self.handled = set()
        self.newest = Counter()
        self.wrong = []

    def read(self, number, log):
        """Take over one round: how many were acknowledged, and how many were delivered again."""
        acknowledged = again = 0
        here = Counter()
        for line in lines(log):
            if line[0] == "P":
                self.acknowledged[int(line[1])] = line[2]
                acknowledged += 1
            elif line[0] == "H":
                sequence, key, attempt = int(line[1]), line[2], int(line[3])
                again += attempt > 1 or sequence in self.handled
                if sequence <= here[key] and attempt == 1:
                    self.wrong.append(f"round {number}: {key} {sequence} behind {here[key]} in one process")
                if sequence not in self.handled and sequence < self.newest[key]:
                    self.wrong.append(f"round {number}: {key} {sequence} first seen behind {self.newest[key]}")
                here[key] = sequence
                self.newest[key] = max(self.newest[key], sequence)
                self.handled.add(sequence)
        return acknowledged, again


def kill_rounds(tmp_path, rounds, *, judge_every):
    """One member at a time publishes and handles until it is killed; every so many rounds the judge looks."""
    ledger, chance, idle = Ledger(), random.Random(9), []
    with Court() as court:
        for number in range(rounds):
            log = tmp_path / f"{number}.log"
            process = member(tmp_path / "data", log, "both", f"r{number}")
            try:
                wait_for(log, process, lambda kinds: {"P", "H"} <= kinds)
                time.sleep(chance.uniform(0.02, 0.12))
            finally:
                process.send_signal(signal.SIGKILL)
                process.wait()
            acknowledged, again = ledger.read(number, log)
            if not acknowledged or (number and not again):
                idle.append(f"round {number}: {acknowledged} acknowledged, {again} delivered again")
            if (number + 1) % judge_every == 0 or number + 1 == rounds:
                assert court.judge_copy(tmp_path / "data", ledger.acknowledged) == [], f"after round {number}"
            log.unlink()
    left = drain(tmp_path, ledger)
    print(
        f"\n{rounds} rounds, {len(ledger.acknowledged)} acknowledged, {len(ledger.handled)} handled, {len(idle)} idle"
    )
    assert not ledger.wrong, "\n".join(ledger.wrong[:10])
    assert not idle, "a round that proves nothing: " + "; ".join(idle[:5])
    assert not left, f"acknowledged and never handled: {sorted(left)[:10]}"


def drain(tmp_path, ledger):
    """Handle what is left, and end well: which acknowledged messages never came."""
    log, last = tmp_path / "drain.log", 0
    process = member(tmp_path / "data", log, "handle")
    deadline = time.monotonic() + 120
    wait_for(log, process, lambda kinds: "R" in kinds)
    while last != (last := len(lines(log))) or not last or len(lines(log)) < 2:
        if time.monotonic() > deadline:
            break
        time.sleep(1.0)
    (tmp_path / "stop").touch()
    process.wait(PATIENCE)
    ledger.read("drain", log)
    return set(ledger.acknowledged) - ledger.handled


def test_kill9_few_rounds(tmp_path):
    kill_rounds(tmp_path, 5, judge_every=1)


@pytest.mark.chaos
def test_kill9_rounds(tmp_path, rounds):
    kill_rounds(tmp_path, rounds, judge_every=20)


def four_processes(tmp_path, count):
    logs = {name: tmp_path / f"{name}.log" for name in ("one", "two", "left", "right")}
    data = tmp_path / "data"
    first = member(data, logs["left"], "handle")
    wait_for(logs["left"], first, lambda kinds: "R" in kinds)
    processes = [first, member(data, logs["right"], "handle")]
    wait_for(logs["right"], processes[1], lambda kinds: "R" in kinds)
    publishers = [member(data, logs[name], "publish", name, count) for name in ("one", "two")]
    try:
        for process in publishers:
            assert process.wait(PATIENCE * 4) == 0, [
                log.with_suffix(".err").read_text()[-1000:] for log in logs.values()
            ]
        wanted = {line[2] for name in ("one", "two") for line in lines(logs[name]) if line[0] == "P"}
        deadline = time.monotonic() + PATIENCE
        while wanted - handled(logs) and time.monotonic() < deadline:
            time.sleep(0.05)
        (tmp_path / "stop").touch()
        assert [process.wait(PATIENCE) for process in processes] == [0, 0]
    finally:
        for process in (*processes, *publishers):
            process.kill()
            process.wait()
    return logs, wanted


def handled(logs):
    return {line[4] for name in ("left", "right") for line in lines(logs[name]) if line[0] == "H"}


def check_four(tmp_path, count):
    logs, wanted = four_processes(tmp_path, count)
    shares = {}
    for name in ("left", "right"):
        here, ledger = [line for line in lines(logs[name]) if line[0] == "H"], Ledger()
        ledger.read(name, logs[name])
        assert not ledger.wrong, "\n".join(ledger.wrong[:5])
        shares[name] = len(here)
    ends = {name: line for name in ("one", "two") for line in lines(logs[name]) if line[0] == "L"}
    worst, commits = max(int(line[1]) for line in ends.values()), {name: int(line[2]) for name, line in ends.items()}
    print(f"\n{len(wanted)} published; worst publish {worst / 1e3:.1f} ms; commits {commits}; handled {shares}")
    assert len(wanted) == 2 * count
    assert not wanted - handled(logs), f"never handled: {sorted(wanted - handled(logs))[:5]}"
    assert min(shares.values()) > 0, f"one member starves: {shares}"
    assert min(commits.values()) > 0, f"one publisher starves: {commits}"


def test_four_processes_few(tmp_path):
    check_four(tmp_path, 400)


@pytest.mark.chaos
def test_four_processes(tmp_path):
    check_four(tmp_path, 8_000)


def check_fair(tmp_path, least):
    """Four processes publish flat out until each has had the time: the shares of the commits are fair."""
    data, names = tmp_path / "data", ("one", "two", "three", "four")
    logs = {name: tmp_path / f"{name}.log" for name in names}
    processes = {name: member(data, logs[name], "flood", name) for name in names}
    try:
        for name, process in processes.items():
            wait_for(logs[name], process, lambda kinds: "R" in kinds)
        (tmp_path / "go").touch()
        deadline = time.monotonic() + PATIENCE * 4
        while sum(len(lines(log)) for log in logs.values()) < least:
            assert time.monotonic() < deadline, {name: len(lines(log)) for name, log in logs.items()}
            time.sleep(0.1)
        (tmp_path / "stop").touch()
        assert [process.wait(PATIENCE) for process in processes.values()] == [0] * 4
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    ends = {name: next(line for line in lines(log) if line[0] == "L") for name, log in logs.items()}
    commits = {name: int(line[2]) for name, line in ends.items()}
    shares = {name: round(each / sum(commits.values()), 3) for name, each in commits.items()}
    worst = max(int(line[1]) for line in ends.values())
    print(f"\n{sum(commits.values())} commits, shares {shares}, worst publish {worst / 1e3:.1f} ms")
    assert min(shares.values()) >= 0.1, f"one publisher starves: {shares}"
    acknowledged = {int(line[1]): line[2] for log in logs.values() for line in lines(log) if line[0] == "P"}
    with Court() as court:
        assert court.judge(data, acknowledged) == []


@pytest.mark.chaos
def test_four_publishers_fair(tmp_path):
    check_fair(tmp_path, 40_000)


def test_four_publishers_fair_few(tmp_path):
    check_fair(tmp_path, 1_500)
