"""What every test gets: the number of chaos rounds, and a look at what it left behind."""

import asyncio
import gc
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

ROUNDS_IN_CI = 200
ROUNDS = 1000
GRACE = 1.0  # seconds that a closing thread or socket may take
DESCRIPTORS = Path("/proc/self/fd" if Path("/proc/self/fd").exists() else "/dev/fd")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rounds",
        default=os.environ.get("HEADRACE_ROUNDS") or str(ROUNDS),
        help=f"rounds of each chaos test: a number, or ci ({ROUNDS_IN_CI}); else HEADRACE_ROUNDS, else {ROUNDS}",
    )


def pytest_configure() -> None:
    # a shell's background job ignores Ctrl-C, and so would every program that a test starts and interrupts
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("chaos") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(0))


@pytest.fixture(scope="session")
def rounds(pytestconfig: pytest.Config) -> int:
    asked = pytestconfig.getoption("rounds")
    return ROUNDS_IN_CI if asked == "ci" else int(asked)


@pytest.fixture(scope="session")
def in_ci(pytestconfig: pytest.Config) -> bool:
    """Whether the rounds are CI's: what is random is the same in every run then."""
    return pytestconfig.getoption("rounds") == "ci"


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Fails a test after which a thread, a task or a descriptor is left that was not there before."""
    before = alive()
    yield
    left = alive() - before
    if left:
        gc.collect()
        deadline = time.monotonic() + GRACE
        while (left := alive() - before) and time.monotonic() < deadline:
            time.sleep(0.01)
    if left:
        pytest.fail("left behind: " + ", ".join(sorted(left)), pytrace=False)


def alive() -> set[str]:
    return threads() | tasks() | descriptors()


def threads() -> set[str]:
    return {f"thread {thread.name} ({thread.ident})" for thread in threading.enumerate()}


def tasks() -> set[str]:
    # asyncio.all_tasks() asks one loop; what a test left belongs to a loop that is gone (3.11 has the older name)
    registry = getattr(asyncio.tasks, "_scheduled_tasks", None)
    everything = list(asyncio.tasks._all_tasks if registry is None else registry)
    return {f"task {task.get_name()} ({task.get_coro()})" for task in everything if not task.done()}


def descriptors() -> set[str]:
    found = set()
    for descriptor in map(int, os.listdir(DESCRIPTORS)):  # noqa: PTH208  (numbers, not paths)
        with suppress(OSError):  # the listing's own descriptor is gone again
            found.add(f"descriptor {descriptor} ({target(descriptor)})")
    return found


def target(descriptor: int) -> str:
    if DESCRIPTORS.parts[1] == "proc":
        return str((DESCRIPTORS / str(descriptor)).readlink())
    return f"inode {os.fstat(descriptor).st_ino}"
