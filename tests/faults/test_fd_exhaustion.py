"""No descriptor left: opening, syncing and backing up fail clearly and leak nothing, publishing goes on."""

import os
import subprocess
import sys
from pathlib import Path

from tests.faults.court import Court

STARVED = str(Path(__file__).with_name("starved.py"))
SOURCE = str(Path(__file__).parents[2] / "src")


def test_fd_exhaustion(tmp_path):
    path, log = tmp_path / "d", tmp_path / "log"
    done = subprocess.run(
        [sys.executable, "-W", "error", STARVED, str(path), str(log)],
        env={**os.environ, "PYTHONPATH": SOURCE}, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr == ""
    said = dict(line.split() for line in done.stdout.splitlines())
    assert int(said["refused"]) > 5, "it opens without descriptors?"
    assert int(said["failed"]) > 10
    acknowledged = {int(line.split()[1]): line.split()[2] for line in log.read_text().splitlines()}
    assert len(acknowledged) == 22
    with Court() as court:
        assert court.judge(path, acknowledged) == []
