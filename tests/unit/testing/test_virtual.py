"""Virtual time: jumps, but never past a thread at work."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from headrace.core.clock import current_clock
from headrace.core.errors import UsageError
from headrace.testing import virtual
from headrace.testing.virtual import virtual_time


def test_sleep_costs_nothing():
    @virtual_time
    async def main():
        clock = current_clock()
        await asyncio.gather(asyncio.sleep(600), asyncio.sleep(1_000))
        assert clock.now_ns() == (946_684_800 + 1_000) * 10**9
        assert clock.monotonic() == 1_000
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10):
                await asyncio.sleep(20)
        return "done"

    assert main() == "done"


@virtual_time
async def test_time_stands_still_while_a_thread_works():
    loop, clock = asyncio.get_running_loop(), current_clock()
    timer = asyncio.create_task(asyncio.sleep(100))
    await asyncio.to_thread(time.sleep, 0.01)
    assert loop.time() == 0
    done = loop.create_future()
    clock.begin()
    loop.run_in_executor(None, lambda: (time.sleep(0.01), loop.call_soon_threadsafe(done.set_result, None)))
    await done
    assert loop.time() == 0
    clock.end()
    await timer
    assert loop.time() == 100
    with pytest.raises(UsageError):
        clock.end()


def test_threads_that_are_still_at_work_at_the_end_are_waited_for():
    ended = []

    @virtual_time
    async def main():
        executor = ThreadPoolExecutor(1)
        asyncio.get_running_loop().set_default_executor(executor)
        executor.submit(lambda: (time.sleep(0.02), ended.append(True)))

    main()
    assert ended


def test_deadlock_is_said(monkeypatch):
    monkeypatch.setattr(virtual, "_DEADLOCK_AFTER", 0.01)

    @virtual_time
    async def main():
        await asyncio.get_running_loop().create_future()

    with pytest.raises(UsageError, match="deadlock"):
        main()
