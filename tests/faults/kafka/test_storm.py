"""Members of a group that join, leave and are killed at work: every commit is looked at, not only the totals."""

import asyncio
import random
import signal
import sys
import time

import pytest

from headrace.core.broker import TopicOptions
from headrace.core.message import Message, new_id
from headrace.kafka import KafkaBroker
from headrace.testing.plugin import kafka_installed, kafka_server  # noqa: F401
from tests.faults.kafka.journal import judge

KEYS = 300
PARTITIONS = 8
PATIENCE = 60.0
IN_FLIGHT = 500
OPEN = "open: on a machine as busy as CI's, members that come every second get no work done for a minute now and then"


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
    """Member processes that come and go."""

    def __init__(self, folder, address, topic, protocol, pace):
        self.folder = folder
        self.arguments = address, topic, protocol
        self.pace = pace
        self.alive = {}
        self.deaths = {}
        self.number = 0

    async def join(self):
        name = f"m{self.number:03}"
        self.number += 1
        command = [sys.executable, "-m", "tests.faults.kafka.member", *self.arguments]
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
        await asyncio.gather(*(self.end(name, signal.SIGTERM) for name in list(self.alive)))


def handled(folder):
    """How many different records have ended well."""
    done = set()
    for path in folder.glob("*.journal"):
        for line in path.read_bytes().splitlines():
            parts = line.split(b" ")
            if len(parts) == 5 and parts[1] == b"F":
                done.add((parts[2], parts[3]))
    return len(done)


async def storm(folder, address, protocol, count, *, members, pace, every=2.0, deadly=True):
    """Publish, then let members come and go until everything was handled."""
    topic = f"storm-{new_id()}"
    published = await publish(address, topic, count)
    chance = random.Random(protocol)
    troupe = Troupe(folder, address, topic, protocol, pace)
    kinds = {"joined": 0, "left": 0, "killed": 0}
    try:
        for _ in range(members):
            await troupe.join()
        end = time.monotonic() + PATIENCE
        before = 0
        while (now := handled(folder)) < count:
            if now > before:
                before, end = now, time.monotonic() + PATIENCE
            assert time.monotonic() < end, f"{now} of {count} were handled"
            await asyncio.sleep(every)
            kind = chance.choice(["joined", "left", "killed" if deadly else "left"])
            if kind != "joined" and len(troupe.alive) > 2:
                await troupe.end(
                    chance.choice(sorted(troupe.alive)), signal.SIGKILL if kind == "killed" else signal.SIGTERM
                )
            elif len(troupe.alive) < members:
                kind = "joined"
                await troupe.join()
            kinds[kind] += 1
        await troupe.close()
    finally:
        for process in troupe.alive.values():
            process.kill()
            await process.wait()
    return judge(folder, published, troupe.deaths), kinds


@pytest.mark.chaos
@pytest.mark.servers
@pytest.mark.parametrize("protocol", ["cooperative", "eager", "consumer"])
def test_rebalance_storm(protocol, tmp_path, kafka_server, in_ci):  # noqa: F811
    if in_ci and protocol != "cooperative":
        pytest.skip(OPEN)
    count = 50_000 if in_ci else 1_000_000
    verdict, kinds = asyncio.run(storm(tmp_path, kafka_server.bootstrap, protocol, count, members=8, pace=0.4))
    print(f"{protocol}: {verdict}; {kinds}")
    assert not verdict.wrong, "\n".join(verdict.wrong[:20])
    assert verdict.commits
    assert kinds["killed"], "nobody was killed: a run without a fault proves nothing"
    assert verdict.again <= kinds["killed"] * IN_FLIGHT, "more came again than the killed ones can have held"


@pytest.mark.chaos
@pytest.mark.servers
@pytest.mark.parametrize("protocol", ["cooperative", "eager", "consumer"])
def test_graceful_stops_make_no_duplicate(protocol, tmp_path, kafka_server, in_ci):  # noqa: F811
    """Members that join and are told to leave, every second."""
    if in_ci:
        pytest.skip(OPEN)
    count = 10_000 if in_ci else 200_000
    verdict, kinds = asyncio.run(
        storm(tmp_path, kafka_server.bootstrap, protocol, count, members=6, pace=0.3, every=1.0, deadly=False)
    )
    print(f"{protocol}: {verdict}; {kinds}")
    assert not verdict.wrong, "\n".join(verdict.wrong[:20])
    assert kinds["left"], "nobody left: a run without a fault proves nothing"
    assert not verdict.again


@pytest.mark.servers
def test_members_come_and_go(tmp_path, kafka_server):  # noqa: F811
    """The short version: three members, one leaves, one is killed."""
    verdict, _ = asyncio.run(
        storm(tmp_path, kafka_server.bootstrap, "cooperative", 3_000, members=3, pace=0.004, every=0.5)
    )
    assert not verdict.wrong, "\n".join(verdict.wrong[:20])
    assert verdict.commits
