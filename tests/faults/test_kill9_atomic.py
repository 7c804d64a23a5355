"""kill -9 while batches are published atomically: each is stored whole or not at all, and none acknowledged is lost."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.court import Court
from tests.faults.test_kill9 import SOURCE, lines, wait_for

BATCHES = Path(__file__).with_name("batches.py")


def killed(tmp_path, number, pause):
    """Publish until something is acknowledged, a little longer, kill: {sequence: body} of what was acknowledged."""
    log = tmp_path / f"{number}.log"
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    with log.with_suffix(".err").open("ab") as errors:
        command = [sys.executable, str(BATCHES), str(tmp_path / "data"), str(log), f"r{number}"]
        process = subprocess.Popen(command, env=environment, stderr=errors)
    try:
        wait_for(log, process, lambda kinds: "P" in kinds)
        time.sleep(pause)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    found = {}
    for _, last, count, name in lines(log):
        first = int(last) - int(count) + 1
        found.update({first + place: f"{name}-{place}" for place in range(int(count))})
    return found


def rounds_of(tmp_path, rounds):
    acknowledged, chance = {}, random.Random(11)
    with Court() as court:
        for number in range(rounds):
            fresh = killed(tmp_path, number, chance.uniform(0.0, 0.08))
            assert fresh, "a round that acknowledged nothing proves nothing"
            acknowledged |= fresh
            assert court.judge_copy(tmp_path / "data", acknowledged) == [], f"after round {number}"
    print(f"\n{rounds} rounds, {len(acknowledged)} messages acknowledged")


def test_kill9_atomic_few_rounds(tmp_path):
    rounds_of(tmp_path, 5)


@pytest.mark.chaos
def test_kill9_atomic_rounds(tmp_path):
    rounds_of(tmp_path, 60)
