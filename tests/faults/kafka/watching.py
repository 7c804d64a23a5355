"""What a story waits for before it goes on, by what the members have written."""

import asyncio
import time

from tests.faults.kafka.journal import count_of


async def shared_out(troupe):
    """Until all members have partitions and something committed, and for two seconds nobody was given more."""
    async with asyncio.timeout(60):
        while not (
            all(count_of(troupe.folder, b"A", member=name) for name in troupe.alive)
            and count_of(troupe.folder, b"B", time.monotonic_ns() - 2e9) == 0
        ):
            await asyncio.sleep(0.1)
