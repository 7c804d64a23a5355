"""The third target: the same machine on a nats-server, in real time.

Every length of time is a thousand times as long, so nothing runs out. What a line of docs/embedded-differences.md
accepts is left out here, each by a method that names its line.
"""

import asyncio
import itertools
import time

from headrace import jetstream
from headrace.streams.config import Rollup
from tests.model.machine import Machine

NUMBERS = itertools.count(1)
PATIENCE = 20.0  # a server does some of its book-keeping after its answer
BRIEF = 0.05  # seconds of a pull that a server keeps open where it may hand out nothing


class ServerMachine(Machine):
    """The machine on the server of `url`, each program with a stream of its own."""

    url = ""
    virtual = False
    scale = 1000

    def __init__(self):
        super().__init__()
        self.name = f"S{next(NUMBERS)}"

    def prepare(self):
        """Something to settle: a program in real time is short."""
        self.publish_some(4, "s.a")
        self.add_consumer("x", "all", ">", wait=1.03, most=None, deliver=None)
        self.pull("x", 3)

    async def opened(self):
        return await jetstream.opened(self.url)

    def teardown(self):
        if self.engine is not None:
            self.run(self.engine.delete_stream(self.name))
        super().teardown()

    def purge_options(self, subject, keep, sequence):
        """After a purge of some subjects, an ack may settle a message below it that is still out."""
        if any(one.pending for one in self.model.consumers.values()):
            subject = ">"
        if self.filters:
            keep = 0
        return super().purge_options(subject, keep, sequence)

    def rollup_of(self, rollup):
        """After a rollup of all, or a purge that keeps some, the pending count of a filtered consumer may be wrong."""
        return None if rollup is Rollup.ALL and self.filters else rollup

    @property
    def filters(self):
        return any(one.filter != ">" for one in self.model.consumers.values())

    async def _pull(self, name, limit):
        consumer = self.model.consumers[name]
        parked = consumer.max_ack_pending is not None or consumer.paused_until > self.model.now
        there = await self.stream.consumer(name)
        return await (there.fetch(limit, max_wait=BRIEF) if parked else there.fetch_no_wait(limit))

    async def _settle(self, msg, call):
        await call
        await msg._session.flush()

    async def _same_state(self):
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return await super()._same_state()
            except AssertionError:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.005)

    def same_first(self, first, state):
        """A purge up to the last sequence, whose message was deleted before, leaves the old first sequence."""
        if self.model.stored:
            super().same_first(first, state)
