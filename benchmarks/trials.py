"""What members are put through, whoever made them: a storm of joins and kills, and a topic written in transactions."""

import asyncio
import random
import signal
import time
from dataclasses import dataclass, field

from confluent_kafka import Consumer, Producer, TopicPartition

from headrace.core.message import new_id
from tests.faults.kafka.journal import Verdict, judge
from tests.faults.kafka.troupe import KEYS, PARTITIONS, Troupe, everything, handled, publish

GROUP = "storm"
PROTOCOL = "eager"  # for ours; pyrallel-consumer leaves the driver no other
TRANSACTIONS, EACH, PLAIN = 10, 20, 90
PATIENCE = 60.0
QUIET = 3.0


@dataclass
class Outcome:
    """What a trial came to."""

    verdict: Verdict
    done: int
    count: int
    seconds: float
    committed: int
    end: int
    troubles: list[str]
    kinds: dict[str, int] = field(default_factory=dict)


class Company(Troupe):
    """A troupe whose failures are taken down, and stop nothing. Who has ended, in whatever way, runs nothing more."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.troubles = []

    async def end(self, name, how):
        process = self.alive[name]
        try:
            if process.returncode is not None:
                del self.alive[name]
                self.troubles.append(f"{name} had ended by itself with {process.returncode}: {self._last_word(name)}")
            else:
                await asyncio.wait_for(super().end(name, how), PATIENCE)
        except AssertionError:
            self.troubles.append(f"{name} ended with {process.returncode}: {self._last_word(name)}")
        except TimeoutError:
            process.kill()
            await process.wait()
            self.troubles.append(f"{name} did not end within {PATIENCE:.0f} s")
        self.deaths.setdefault(name, time.monotonic_ns())

    def has_begun(self, name):
        """Whether it was given a partition: to end one before that is no fault to anybody."""
        return self._has_begun(name)

    def _last_word(self, name):
        said = (self.folder / f"{name}.log").read_text(errors="replace").strip()
        return said.splitlines()[-1] if said else "without a word"


class Storm:
    """Who joins, leaves or is killed next; the same story for each member, as far as its speed makes it the same."""

    def __init__(self, company, members):
        self._company = company
        self._members = members
        self._chance = random.Random(PROTOCOL)
        self.kinds = {"joined": 0, "left": 0, "killed": 0}

    async def strike(self):
        company, kind = self._company, self._chance.choice(sorted(self.kinds))
        working = [name for name in sorted(company.alive) if company.has_begun(name)]
        if kind != "joined" and working and len(company.alive) > self._members // 2:
            how = signal.SIGKILL if kind == "killed" else signal.SIGTERM
            await company.end(self._chance.choice(working), how)
        elif len(company.alive) < self._members:
            kind = "joined"
            await company.join()
        else:
            return
        self.kinds[kind] += 1


def _ends(address, topic, partitions):
    """Where the group's commits ended, and the log: sums over the partitions, one without a commit counts 0."""
    reader = Consumer({"bootstrap.servers": address, "group.id": GROUP, "log_level": "0"})
    try:
        places = [TopicPartition(topic, number) for number in range(partitions)]
        committed = sum(max(0, place.offset) for place in reader.committed(places, timeout=PATIENCE))
        return committed, sum(reader.get_watermark_offsets(place, timeout=20)[1] for place in places)
    finally:
        reader.close()


async def storm(folder, address, member, count, *, members, pace, every=2.0):
    """`members` at most and half of them at least; one joins, leaves or is killed `every` seconds."""
    topic = f"storm-{new_id()}"
    published = await publish(address, topic, count)
    company = Company(folder, address, topic, PROTOCOL, pace=pace, member=member)
    weather, began = Storm(company, members), time.monotonic()
    try:
        for _ in range(members):
            await company.join()
        await everything(folder, count, patience=PATIENCE, every=every, disturb=weather.strike)
    except AssertionError as error:
        company.troubles.append(f"stood still for {PATIENCE:.0f} s: {error}")
    finally:
        seconds = time.monotonic() - began
        await company.close()
        await company.kill()
    verdict, places = judge(folder, published, company.deaths), _ends(address, topic, PARTITIONS)
    return Outcome(verdict, handled(folder), count, seconds, *places, company.troubles, weather.kinds)


def _in_transactions(address, topic):
    """Ten transactions of 20 records, then plain records, on partition 0; what `publish` returns."""
    published = {0: {}}

    def stored(error, record):
        assert error is None, error
        published[0][record.offset()] = record.key()

    sure = Producer({"bootstrap.servers": address, "transactional.id": new_id(), "linger.ms": 0})
    sure.init_transactions(20)
    plain = Producer({"bootstrap.servers": address})
    for first in range(0, TRANSACTIONS * EACH, EACH):
        sure.begin_transaction()
        for number in range(first, first + EACH):
            sure.produce(topic, b"%d" % number, b"k%d" % (number % KEYS), partition=0, on_delivery=stored)
        sure.flush(20)
        sure.commit_transaction(20)
    for number in range(PLAIN):
        plain.produce(topic, b"%d" % number, b"k%d" % number, partition=0, on_delivery=stored)
    assert plain.flush(20) == 0
    return published


async def _at_rest(folder):
    """Until no member has written anything down for a while."""
    before, since = -1, time.monotonic()
    while time.monotonic() < since + QUIET:
        await asyncio.sleep(0.2)
        size = sum(path.stat().st_size for path in folder.glob("*.journal"))
        if size != before:
            before, since = size, time.monotonic()


async def transactions(folder, server, member):
    """One member handles all and leaves in good order, then another one comes: what it gets was not committed."""
    topic = f"transactions-{new_id()}"
    server.create_topic(topic, 1)
    published = _in_transactions(server.bootstrap, topic)
    count = len(published[0])
    company = Company(folder, server.bootstrap, topic, PROTOCOL, pace=0.005, member=member)
    began = time.monotonic()
    try:
        await company.join()
        await everything(folder, count, patience=PATIENCE)
        seconds = time.monotonic() - began
        await _at_rest(folder)
        await company.close()
        await company.join()
        await _assigned(company)
        await _at_rest(folder)
    except AssertionError as error:
        seconds = time.monotonic() - began
        company.troubles.append(f"stood still for {PATIENCE:.0f} s: {error}")
    finally:
        await company.close()
        await company.kill()
    verdict, places = judge(folder, published, company.deaths), _ends(server.bootstrap, topic, 1)
    return Outcome(verdict, handled(folder), count, seconds, *places, company.troubles)


async def _assigned(company):
    """Until the only member has its partition."""
    (name,) = company.alive
    end = time.monotonic() + PATIENCE
    while not company.has_begun(name):
        assert time.monotonic() < end, "the second member was assigned nothing"
        await asyncio.sleep(0.1)
