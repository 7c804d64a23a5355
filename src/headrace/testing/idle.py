"""run_until_idle: run a worker until there is nothing left to do, then shut it down."""

from __future__ import annotations

import asyncio

from headrace.flow.worker import Worker

__all__ = ["run_until_idle"]


async def run_until_idle(worker: Worker) -> None:
    """Run `worker` until nothing is held or parked and its group has no backlog, then shut it down.

    Raises what ended the worker; ``UsageError`` if its engine cannot say what is left. There is no time-out of its
    own: put ``asyncio.timeout`` around it (on virtual time that costs nothing).
    """
    running = asyncio.create_task(worker.run())
    idle = asyncio.create_task(worker.idle())
    try:
        await asyncio.wait((running, idle), return_when=asyncio.FIRST_COMPLETED)
        if idle.done() and not running.done():
            await worker.shutdown()
        await running
        if idle.done():
            idle.result()
    finally:
        for task in (idle, running):
            task.cancel()
        await asyncio.gather(idle, running, return_exceptions=True)
