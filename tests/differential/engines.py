"""Both engines, opened beside each other: a server per module, streams per program."""

import asyncio
from contextlib import asynccontextmanager

from headrace import embedded, jetstream
from tests.differential.compare import Comparison

TRIES = 3
IN_NO_HURRY = jetstream.JetStreamOptions(timeout=25)


@asynccontextmanager
async def both(url):
    async with embedded.open(":memory:") as ours, jetstream.connect(url, options=IN_NO_HURRY) as theirs:
        yield ours, theirs


def compare(url, *programs, **options):
    """Run the programs one after the other; how many steps they took."""

    async def run():
        async with both(url) as engines:
            return [await Comparison(*engines, **options).run(program) for program in programs]

    return asyncio.run(run())


def compare_beside(url, *programs):
    """Run programs about time beside each other.

    Up to three times each: where the machine stalls for half a second, a wait runs out that should not have, on one
    side or on both. A difference of the engines is there every time.
    """

    async def run():
        async with both(url) as engines:
            await asyncio.gather(*(some_time(engines, program) for program in programs))

    async def some_time(engines, program):
        for left in reversed(range(TRIES)):
            try:
                return await Comparison(*engines, looks=False).run(program)
            except AssertionError:
                if not left:
                    raise
        return None

    asyncio.run(run())
