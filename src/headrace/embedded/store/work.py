"""Blocking work off the loop, for calls that have no open engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from headrace.core.clock import current_clock
from headrace.embedded.errors import raise_translated

__all__ = ["off_the_loop"]

T = TypeVar("T")


async def off_the_loop(function: Callable[[], T], where: str) -> T:
    """Its result, from a thread of its own. A cancelled caller waits until it has cleaned up."""
    clock = current_clock()
    clock.begin()
    with ThreadPoolExecutor(1, thread_name_prefix="headrace-work") as worker:
        work = asyncio.get_running_loop().run_in_executor(worker, function)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])
            raise
        except Exception as error:  # noqa: BLE001  (translated)
            raise_translated(error, where)
        finally:
            clock.end()
