"""A million messages through one process: the memory does not grow with them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SLOPE = str(Path(__file__).with_name("slope.py"))
SOURCE = str(Path(__file__).parents[3] / "src")
MIB = 1024 * 1024
MOST = 12.0
"""MiB per million. Whatever Python keeps of a message has 24 bytes at least (23 MiB per million); the caches of SQLite
are full only after the first million or two, and were seen to grow by 1.5 to 5 until then."""


def slope_of(points):
    """Least squares: bytes per message."""
    middle = sum(x for x, _ in points) / len(points)
    level = sum(y for _, y in points) / len(points)
    return sum((x - middle) * (y - level) for x, y in points) / sum((x - middle) ** 2 for x, _ in points)


def test_the_slope():
    assert slope_of([(0, 5), (10, 5)]) == 0
    assert slope_of([(0, 5), (10, 25), (20, 45)]) == 2


@pytest.mark.chaos
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_memory_slope(tmp_path):
    count = 1_000_000
    done = subprocess.run(
        [sys.executable, SLOPE, str(tmp_path / "d"), str(count)],
        env={**os.environ, "PYTHONPATH": SOURCE}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    points = [(int(line.split()[1]), int(line.split()[2])) for line in done.stdout.splitlines()]
    assert points[-1][0] == count
    late = [point for point in points if point[0] > count // 2]
    slope = slope_of(late) * 1e6 / MIB
    print(f"\n{count} messages: {points[0][1] / MIB:.1f} -> {points[-1][1] / MIB:.1f} MiB, {slope:.2f} MiB per million")
    assert slope < MOST, [f"{x}: {y / MIB:.1f}" for x, y in points]
