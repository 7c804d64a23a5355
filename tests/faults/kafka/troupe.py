"""A troupe of member processes that join, leave and are killed at work, and what they have got done."""

import asyncio
import random
import signal
import sys
import time

from headrace.core.broker import TopicOptions
from headrace.core.message import Message, new_id
from headrace.kafka import KafkaBroker
from tests.faults.kafka.journal import judge

KEYS = 300
PARTITIONS = 8
MEMBER = "tests.faults.kafka.member"


async def publish(address, topic, count):
    """So many messages; partition -> offset -> key."""
    published = {partition: {} for partition in range(PARTITIONS)}
    async with KafkaBroker(address) as broker:
        await broker.declare(topic, TopicOptions(partitions=PARTITIONS))
        for first in range(0, count, 1_000):
            batch = [Message(topic=topic, key=b"k%d" % (n % KEYS), body=b"%d" % n) for n in range(first, first + 1_000)]
            for message, result in zip(batch, await broker.publish_batch(batch), strict=True):
                published[result.partition][result.offset] = message.key
    return published


class Troupe:
    """Member processes that come and go; `member` is the module that each runs."""

    def __init__(self, folder, address, topic, protocol, *, pace, member=MEMBER):
        self.folder = folder
        self.arguments = address, topic, protocol
        self.pace = pace
        self.member = member
        self.alive = {}
        self.deaths = {}
        self.number = 0

    async def join(self):
        name = f"m{self.number:03}"
        self.number += 1
        command = [sys.executable, "-m", self.member, *self.arguments]
        log = (self.folder / f"{name}.log").open("wb")
        self.alive[name] = await asyncio.create_subprocess_exec(
            *command, str(self.folder / f"{name}.journal"), str(self.pace), stdout=log, stderr=log
        )
        log.close()

    async def end(self, name, how):
        process = self.alive.pop(name)
        process.send_signal(how)
        code = await process.wait()
        if how is signal.SIGKILL:
            self.deaths[name] = time.monotonic_ns()
        elif code != -signal.SIGTERM or self._has_begun(name):
            assert code == 0, f"{name} ended with {code}: {(self.folder / f'{name}.log').read_text()[-2000:]}"

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


def handled(folder):
    """How many different records have ended well."""
    done = set()
    for path in folder.glob("*.journal"):
        for line in path.read_bytes().splitlines():
            parts = line.split(b" ")
            if len(parts) == 5 and parts[1] == b"F":
                done.add((parts[2], parts[3]))
    return len(done)


async def everything(folder, count, *, patience=90.0, every=0.3, disturb=None):
    """Until all was handled; patience is for standing still. `disturb()` is awaited before each further look."""
    before, end = 0, time.monotonic() + patience
    while (now := handled(folder)) < count:
        if now > before:
            before, end = now, time.monotonic() + patience
        assert time.monotonic() < end, f"{now} of {count} were handled"
        await asyncio.sleep(every)
        if disturb is not None:
            await disturb()


async def storm(folder, address, protocol, count, *, members, pace, every=2.0, deadly=True, member=MEMBER):
    """Publish, then let members come and go until everything was handled."""
    topic = f"storm-{new_id()}"
    published = await publish(address, topic, count)
    chance = random.Random(protocol)
    troupe = Troupe(folder, address, topic, protocol, pace=pace, member=member)
    kinds = {"joined": 0, "left": 0, "killed": 0}

    async def disturb():
        kind = chance.choice(["joined", "left", "killed" if deadly else "left"])
        if kind != "joined" and len(troupe.alive) > 2:
            how = signal.SIGKILL if kind == "killed" else signal.SIGTERM
            await troupe.end(chance.choice(sorted(troupe.alive)), how)
        elif len(troupe.alive) < members:
            kind = "joined"
            await troupe.join()
        kinds[kind] += 1

    try:
        for _ in range(members):
            await troupe.join()
        await everything(folder, count, patience=60.0, every=every, disturb=disturb)
        await troupe.close()
    finally:
        await troupe.kill()
    return judge(folder, published, troupe.deaths), kinds


async def through(folder, address, protocol, count, disturb, *, pace=0.05):
    """Three members at work while `disturb(troupe)` does its worst; the judge's word."""
    topic = f"outage-{new_id()}"
    published = await publish(address, topic, count)
    troupe = Troupe(folder, address, topic, protocol, pace=pace)
    try:
        for _ in range(3):
            await troupe.join()
        while not handled(folder):
            await asyncio.sleep(0.1)
        await disturb(troupe)
        await everything(folder, count)
        await troupe.close()
    finally:
        await troupe.kill()
    return judge(folder, published, troupe.deaths)
