"""Both engines, opened beside each other: a server per module, streams per program."""

import asyncio
from contextlib import asynccontextmanager

from headrace import embedded, jetstream
from tests.differential.compare import Comparison


@asynccontextmanager
async def both(url):
    async with embedded.open(":memory:") as ours, jetstream.connect(url) as theirs:
        yield ours, theirs


def compare(url, *programs, **options):
    """Run the programs one after the other; how many steps they took."""

    async def run():
        async with both(url) as engines:
            return [await Comparison(*engines, **options).run(program) for program in programs]

    return asyncio.run(run())


def compare_beside(url, *programs, **options):
    """Run the programs beside each other: each must keep to its own streams."""

    async def run():
        async with both(url) as engines:
            await asyncio.gather(*(Comparison(*engines, **options).run(program) for program in programs))

    asyncio.run(run())
