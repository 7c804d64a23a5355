"""A troupe of member processes that join, leave and are killed at work, and what they have got done."""

import asyncio
import json
import random
import signal
import sys
import time
from contextlib import asynccontextmanager

from headrace.core.broker import TopicOptions
from headrace.core.message import Message, new_id
from headrace.kafka import KafkaBroker
from tests.faults.kafka.journal import judge

KEYS = 300
PARTITIONS = 8
MEMBER = "tests.faults.kafka.member"
SHORT = {
    "options": {"max_in_flight": 100},
    "driver": {"queued.max.messages.kbytes": 1, "fetch.message.max.bytes": 1_000},
}
"""`more` for a member that reads little in advance: its log is to change before it, not behind it."""


async def publish(address, topic, count):
    """So many messages; partition -> offset -> key."""
    published = {partition: {} for partition in range(PARTITIONS)}
    async with KafkaBroker(address) as broker:
        await broker.declare(topic, TopicOptions(partitions=PARTITIONS))
        for first in range(0, count, 1_000):
            numbers = range(first, min(first + 1_000, count))
            batch = [Message(topic=topic, key=b"k%d" % (n % KEYS), body=b"%d" % n) for n in numbers]
            for message, result in zip(batch, await broker.publish_batch(batch), strict=True):
                published[result.partition][result.offset] = message.key
    return published


class Troupe:
    """Member processes that come and go; `member` is the module that each runs, `more` is what ours can be told."""

    def __init__(self, folder, address, topic, protocol, *, pace, member=MEMBER, more=None):
        self.folder = folder
        self.topic = topic
        self.arguments = address, topic, protocol
        self.pace = pace
        self.member = member
        self.more = [json.dumps(more)] if more else []
        self.alive = {}
        self.deaths = {}
        self.number = 0

    async def join(self):
        name = f"m{self.number:03}"
        self.number += 1
        own = str(self.folder / f"{name}.journal"), str(self.pace), *self.more
        log = (self.folder / f"{name}.log").open("wb")
        self.alive[name] = await asyncio.create_subprocess_exec(
            sys.executable, "-m", self.member, *self.arguments, *own, stdout=log, stderr=log
        )
        log.close()
        return name

    async def end(self, name, how):
        process = self.alive.pop(name)
        process.send_signal(how)
        code = await process.wait()
        if how is signal.SIGKILL:
            self.deaths[name] = time.monotonic_ns()
        elif code != -signal.SIGTERM or self._has_begun(name):
            assert code == 0, f"{name} ended with {code}: {self.said(name)[-2000:]}"

    def said(self, name):
        """What this member has written, on both outputs."""
        return (self.folder / f"{name}.log").read_text()

    def _has_begun(self, name):
        """Whether it has come so far as to listen to signals."""
        journal = self.folder / f"{name}.journal"
        return journal.exists() and journal.stat().st_size > 0

    async def close(self):
        """All leave in good order."""
        await asyncio.gather(*(self.end(name, signal.SIGTERM) for name in list(self.alive)))

    async def kill(self):
        """End what is left at once, after a failure too."""
        for process in self.alive.values():
            process.kill()
            await process.wait()


class Done:
    """(partition, offset) of all records that have ended well, as the journals grow."""

    def __init__(self, folder):
        self.folder = folder
        self.found = set()
        self._read = {}

    def look(self):
        """All that there are by now."""
        for path in self.folder.glob("*.journal"):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                whole, end, _ = file.read().rpartition(b"\n")  # the last line may be on its way
            self._read[path] = self._read.get(path, 0) + len(whole) + len(end)
            for line in whole.splitlines():
                parts = line.split(b" ")
                if len(parts) == 5 and parts[1] == b"F":
                    self.found.add((int(parts[2]), int(parts[3])))
        return self.found


def done_of(folder):
    """(partition, offset) of all records that have ended well."""
    return Done(folder).look()


def handled(folder):
    """How many different records have ended well."""
    return len(done_of(folder))


async def everything(folder, wanted, *, patience=90.0, every=0.3, disturb=None):
    """Until so many were handled, or (a set) these; patience is for standing still.

    `disturb()` is awaited before each further look.
    """
    count, these = (wanted, set()) if isinstance(wanted, int) else (len(wanted), wanted)
    journals, before, end = Done(folder), 0, time.monotonic() + patience
    while len(done := journals.look()) < count or these - done:
        if len(done) > before:
            before, end = len(done), time.monotonic() + patience
        assert time.monotonic() < end, f"{len(done)} of {count} were handled"
        await asyncio.sleep(every)
        if disturb is not None:
            await disturb()


@asynccontextmanager
async def at_work(folder, address, topic, protocol, *, members=3, **options):
    """So many members, told to begin; they leave in good order at the end, and are killed after a failure.

    Ours are in a group named as the topic, as other tests may be at the same broker; and hear of each other soon.
    """
    if options.get("member", MEMBER) == MEMBER:
        more = options.get("more") or {}
        quick = {} if protocol == "consumer" else {"heartbeat.interval.ms": 300}  # there it is the broker's to say
        options["more"] = more | {"group": topic, "driver": quick | more.get("driver", {})}
    troupe = Troupe(folder, address, topic, protocol, **options)
    try:
        for _ in range(members):
            await troupe.join()
        yield troupe
        await troupe.close()
    finally:
        await troupe.kill()


async def storm(folder, address, protocol, count, *, members, pace, every=2.0, deadly=True, member=MEMBER):
    """Publish, then let members come and go until everything was handled."""
    topic = f"storm-{new_id()}"
    published = await publish(address, topic, count)
    chance = random.Random(protocol)
    kinds = {"joined": 0, "left": 0, "killed": 0}
    async with at_work(folder, address, topic, protocol, members=members, pace=pace, member=member) as troupe:

        async def disturb():
            kind = chance.choice(["joined", "left", "killed" if deadly else "left"])
            if kind != "joined" and len(troupe.alive) > 2:
                how = signal.SIGKILL if kind == "killed" else signal.SIGTERM
                await troupe.end(chance.choice(sorted(troupe.alive)), how)
            elif len(troupe.alive) < members:
                kind = "joined"
                await troupe.join()
            kinds[kind] += 1

        await everything(folder, count, patience=60.0, every=every, disturb=disturb)
    return judge(folder, published, troupe.deaths), kinds


async def through(folder, address, protocol, count, disturb, **options):
    """Three members at work while `disturb(troupe)` does its worst; the judge's word."""
    topic = f"outage-{new_id()}"
    published = await publish(address, topic, count)
    async with at_work(folder, address, topic, protocol, **options) as troupe:
        await everything(folder, 1)
        await disturb(troupe)
        await everything(folder, count)
    return judge(folder, published, troupe.deaths)
