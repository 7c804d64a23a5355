"""Members and readers of one partition are killed at work: what comes again is what they had not committed, no more."""

import asyncio
import random
import signal
import sys
import time
from itertools import cycle, islice

import pytest

from headrace.core.broker import TopicOptions
from headrace.core.message import Message, new_id
from headrace.kafka import KafkaBroker
from headrace.testing.plugin import kafka_installed, kafka_server  # noqa: F401
from tests.faults.kafka import checkpointer
from tests.faults.kafka.journal import held_by, judge
from tests.faults.kafka.published import publish_more
from tests.faults.kafka.troupe import KEYS, at_work, everything, handled, publish

EACH = 2_000  # records of a round
RUNS = 100  # of a member, before it is killed
SESSION = 20  # seconds that a group waits for a dead one, where a member leaves meanwhile


def runs_of(folder, name):
    journal = folder / f"{name}.journal"
    return journal.read_bytes().count(b" F ") if journal.exists() else 0


async def at_it(troupe, name, count):
    """Until this member has done some more of the so many that there are in all."""
    before, folder = runs_of(troupe.folder, name), troupe.folder
    while runs_of(folder, name) < before + RUNS:
        assert handled(folder) < count, f"{name} got nothing to do"
        assert troupe.alive[name].returncode is None, f"{name} has ended: {troupe.said(name)[-2000:]}"
        await asyncio.sleep(0.05)


async def killed_at_work(folder, address, protocol, rounds):
    """A new member and more to do, then one that is at work is killed; the judge's word."""
    topic, chance = f"killed-{new_id()}", random.Random(protocol)
    published = await publish(address, topic, EACH)
    async with at_work(folder, address, topic, protocol, members=3, pace=0.2) as troupe:
        for number in range(rounds):
            victim = min(troupe.alive)  # the oldest
            await publish_more(published, address, topic, EACH)
            await at_it(troupe, victim, (number + 2) * EACH)
            await asyncio.sleep(chance.random() * 0.5)
            await troupe.end(victim, signal.SIGKILL)
            await troupe.join()
        await everything(folder, (rounds + 1) * EACH)
    return judge(folder, published, troupe.deaths), troupe.deaths


@pytest.mark.chaos
@pytest.mark.servers
@pytest.mark.parametrize("protocol", ["cooperative", "eager"])
def test_member_sigkill(protocol, tmp_path, kafka_server, in_ci):  # noqa: F811
    """What comes again was in a killed one's hands, and not below a commit that was confirmed: that is the judge's."""
    if in_ci and protocol != "cooperative":
        pytest.skip("the long run has it")
    verdict, deaths = asyncio.run(killed_at_work(tmp_path, kafka_server.bootstrap, protocol, 1 if in_ci else 30))
    held = set().union(*(held_by(tmp_path, name, at) for name, at in deaths.items()))
    print(f"{protocol}, {len(deaths)} killed: {verdict}; {dict(verdict.again_of)}")
    assert not verdict.wrong, "\n".join(verdict.wrong[:20])
    assert verdict.commits
    assert set(verdict.again_in) <= held, "what was not of a killed one came again"
    assert max(verdict.again_of.values(), default=0) <= EACH, "one of them had committed next to nothing"


async def leaves_beside_a_dead_one(folder, address):
    """One is killed, and as another joins the group waits for the dead; meanwhile one that is at work leaves."""
    topic = f"killed-{new_id()}"
    published = await publish(address, topic, 2 * EACH)
    more = {"options": {"session_timeout": SESSION, "commit_interval": 60}}
    async with at_work(folder, address, topic, "cooperative", members=2, pace=0.1, more=more) as troupe:
        for name in ("m000", "m001"):
            await at_it(troupe, name, 2 * EACH)
        await troupe.end("m000", signal.SIGKILL)
        await troupe.join()
        await asyncio.sleep(3)
        began = time.monotonic()
        await troupe.end("m001", signal.SIGTERM)
        took = time.monotonic() - began
        await everything(folder, 2 * EACH)
    return judge(folder, published, troupe.deaths), took


@pytest.mark.chaos
@pytest.mark.servers
def test_leaving_waits_for_the_last_commit(tmp_path, kafka_server):  # noqa: F811
    """The driver sends it behind the join that it waits for: nothing of the one that left comes again."""
    verdict, took = asyncio.run(leaves_beside_a_dead_one(tmp_path, kafka_server.bootstrap))
    print(f"left within {took:.1f} s: {verdict}; {dict(verdict.again_of)}")
    assert not verdict.wrong, "\n".join(verdict.wrong[:20])
    assert took > SESSION / 2, "the group was not being balanced: it proves nothing"
    assert set(verdict.again_of) <= {"m000"}, "it was not confirmed what it had done"


async def publish_one(address, topic, count):
    """So many messages on one partition; offset -> key."""
    async with KafkaBroker(address) as broker:
        await broker.declare(topic, TopicOptions(partitions=1))
        batch = [Message(topic=topic, key=b"k%d" % (n % KEYS), body=b"%d" % n) for n in range(count)]
        results = await broker.publish_batch(batch)
    return {result.offset: message.key for message, result in zip(batch, results, strict=True)}


class Readers:
    """One process after the other reads the same partition on the same store."""

    def __init__(self, folder, address, topic):
        self._folder = folder
        self._address = address
        self._topic = topic
        self.deaths = {}

    async def start(self, name, fuse):
        own = str(self._folder / f"{name}.journal"), str(self._folder / "store"), fuse, "0.02"
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.faults.kafka.checkpointer", self._address, self._topic, *own
        )

    async def until_it_dies(self, name, fuse):
        process = await self.start(name, fuse)
        assert await process.wait() == -signal.SIGKILL
        self.deaths[name] = time.monotonic_ns()

    async def until_all_is_done(self, count):
        process = await self.start("last", "")
        try:
            await everything(self._folder, count)
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


@pytest.mark.chaos
@pytest.mark.servers
def test_crash_between_handle_and_save(tmp_path, kafka_server, in_ci):  # noqa: F811
    """A reader dies once it has begun, handled, begun to save, saved: the next goes on from there."""
    topic, chance, rounds = f"crash-{new_id()}", random.Random(7), 4 if in_ci else 200
    fuses = [
        f"{kind}:{chance.randrange(1, 300) if kind in 'SF' else chance.randrange(1, 6)}"
        for kind in islice(cycle("SFCA"), rounds)
    ]
    count = 300 * rounds + 1_000

    async def story():
        published = await publish_one(kafka_server.bootstrap, topic, count)
        readers = Readers(tmp_path, kafka_server.bootstrap, topic)
        for number, fuse in enumerate(fuses):
            await readers.until_it_dies(f"m{number:03}", fuse)
        await readers.until_all_is_done(count)
        return judge(tmp_path, {0: published}, readers.deaths)

    verdict = asyncio.run(story())
    print(f"{rounds} crashes of one reader: {verdict}")
    assert not verdict.wrong, "\n".join(verdict.wrong[:20])
    assert verdict.again, "nothing came again: no crash was between a run and a save"
    # what it had in advance when it was paused comes on top, and an interval: more, where the machine stood still
    usual = sorted(verdict.again_of.values())[: max(1, rounds * 9 // 10)]
    assert usual[-1] <= checkpointer.SPAN + checkpointer.IN_FLIGHT
