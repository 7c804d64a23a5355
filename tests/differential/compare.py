"""Two engines take the steps of one program, and after each of them everything that can be seen is the same."""

import asyncio
import itertools
import time

from tests.differential.accepted import is_avoided, normal
from tests.differential.past import Past
from tests.differential.side import Side, do, moved

PATIENCE = 20.0  # an engine may do its book-keeping after its answer: an info gets so long to say what it must say
NUMBERS = itertools.count(1)
READS = ("info", "consumer_info", "names", "listed", "consumers", "consumers_listed")


class DifferenceError(AssertionError):
    """The engines do not do the same."""


class Comparison:
    """One program on two sides, in lock step."""

    def __init__(self, ours, theirs, *, patience=PATIENCE, looks=True):
        """`looks`: at every info after every step."""
        self.ours, self.theirs = Side(ours), Side(theirs)
        self.past = Past()
        self.patience = patience
        self.looks = looks
        self.taken = []

    async def run(self, program):
        name = f"S{next(NUMBERS)}"
        try:
            for step in moved(program, name):
                await self.step(step)
        finally:
            await self.ours.clear()
            await self.theirs.clear()
        return len(self.taken)

    async def step(self, step):
        step = await self.past.resolved(step, self.ours)
        if is_avoided(step, self.past):
            return
        self.taken.append(step)
        answer = await (self._seen(step) if step.name in READS else self._both(step))
        self.past.took(step, answer)
        if self.looks:
            await self._look()

    async def _look(self):
        """Streams and consumers as both engines show them, before anything depends on them."""
        for stream, one in self.past.streams.items():
            for name, known in one.consumers.items():
                known.told = await self._seen(do.consumer_info(stream, name))
            one.told = await self._seen(do.info(stream))

    async def _seen(self, step):
        deadline = time.monotonic() + self.patience
        while True:
            try:
                return await self._both(step)
            except DifferenceError:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.005)

    async def _both(self, step):
        answers = await asyncio.gather(self.ours.take(step), self.theirs.take(step), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        ours, theirs = answers
        normal_ours, normal_theirs = self._normal(step, ours), self._normal(step, theirs)
        if normal_ours != normal_theirs:
            raise DifferenceError(self._difference(step, normal_ours, normal_theirs))
        return ours

    def _normal(self, step, answer):
        return normal(step, answer, self.past)

    def _difference(self, step, ours, theirs):
        told = "\n".join(f"    {one!r}," for one in self.taken)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            both = {name for name in ours.keys() & theirs.keys() if ours[name] == theirs[name]}
            ours, theirs = ({name: one[name] for name in one if name not in both} for one in (ours, theirs))
        return f"{step!r}\n  embedded: {ours}\n  server:   {theirs}\nafter\n{told}"
