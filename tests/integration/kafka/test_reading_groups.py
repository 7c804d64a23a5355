"""Members of a group on a real broker: who comes, who goes, who comes back; and nothing twice on a clean end."""

import asyncio
import random
import time
from collections import Counter, defaultdict

import pytest

from headrace.core.message import Message
from headrace.flow.topic import Topic
from headrace.flow.worker import Worker
from headrace.kafka.broker import KafkaBroker
from headrace.kafka.options import KafkaOptions
from headrace.kafka.presets import GroupConsumer
from headrace.kafka.producer import Producer
from headrace.kafka.reading import KafkaSubscribeOptions
from tests.integration.kafka.raw import committed, eventually, new_name, new_topic, numbered, run, working, write

pytestmark = pytest.mark.servers

PROTOCOLS = ["cooperative", "eager", "consumer"]


def member(server, protocol="cooperative"):
    """A broker whose members hear of a rebalance at once; with the newer protocol the server says when."""
    quick = {} if protocol == "consumer" else {"heartbeat.interval.ms": 200}
    return KafkaBroker(server.bootstrap, options=KafkaOptions(driver_options=quick))


class Ledger:
    """What all members did, as handlers; a key that runs twice at once, or out of order, is told at once."""

    def __init__(self, pace=0.0):
        self.pace = pace
        self.by = defaultdict(list)
        self.times = Counter()
        self.running = set()
        self.last = {}
        self.wrong = []

    def handler(self, name):
        async def handle(delivery):
            key, number = delivery.message.key, int(delivery.message.body)
            if key in self.running:
                self.wrong.append(f"{key} runs twice at once")
            if number <= self.last.get(key, -1):
                self.wrong.append(f"{key}: {number} after {self.last[key]}")
            self.running.add(key)
            await asyncio.sleep(random.random() * self.pace)
            self.running.discard(key)
            self.last[key] = number
            self.by[name].append((delivery.partition, delivery.offset))
            self.times[delivery.partition, delivery.offset] += 1

        return handle

    @property
    def count(self):
        return len(self.times)


def ours(broker):
    return sorted(stats.partition for stats in broker.partitions())


def test_produce_all_ways_consume_all_in_key_order(kafka_server):
    topic, group, ledger = new_topic(kafka_server, 4), new_name("group"), Ledger(pace=0.005)

    async def story():
        made = numbered(topic, 400, keys=7)
        async with KafkaBroker(kafka_server.bootstrap) as broker:
            async with Producer(broker) as producer:
                flow = Topic(producer, topic)
                calls = []
                for start in range(0, 400, 10):
                    ten = made[start : start + 10]
                    calls += [
                        asyncio.ensure_future(producer.produce_many(ten[:4])),
                        asyncio.ensure_future(producer.produce(ten[4])),
                        asyncio.ensure_future(producer.produce_async(ten[5])),
                        asyncio.ensure_future(producer.publish(ten[6])),
                        asyncio.ensure_future(producer.publish_batch(ten[7:9])),
                        asyncio.ensure_future(flow.send(ten[9].body, key=ten[9].key)),
                    ]
                for result in await asyncio.gather(*calls):
                    if isinstance(result, asyncio.Future):
                        await result
            worker = Worker(broker, topic, ledger.handler("one"), group=group)
            async with worker:
                await eventually(lambda: ledger.count == 400)
                await asyncio.wait_for(worker.idle(), 10)
        ends = Counter(partition for partition, _ in ledger.times)
        assert committed(kafka_server, group, topic, 4) == {number: ends.get(number, 0) for number in range(4)}

    run(story())
    assert ledger.wrong == []
    assert set(ledger.times.values()) == {1}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_two_members_join_leave(kafka_server, protocol):
    """Work goes over while it runs: no key twice at once, nothing twice, nothing left out."""
    topic, group, ledger = new_topic(kafka_server, 4), new_name("group"), Ledger(pace=0.02)
    options = KafkaSubscribeOptions(group_protocol=protocol, drain_timeout=10)

    async def story():
        messages = numbered(topic, 1_500, keys=40)
        async with member(kafka_server, protocol) as one, member(kafka_server, protocol) as two:
            await one.publish_batch(messages[:700])
            async with Worker(one, topic, ledger.handler("one"), group=group, subscribe=options):
                await eventually(lambda: ledger.count > 50)
                async with Worker(two, topic, ledger.handler("two"), group=group, subscribe=options):
                    await eventually(lambda: len(ours(one)) == len(ours(two)) == 2)
                    assert sorted(ours(one) + ours(two)) == [0, 1, 2, 3]
                    await one.publish_batch(messages[700:1_200])
                    await eventually(lambda: len(ledger.by["two"]) > 50)
                await one.publish_batch(messages[1_200:])
                await eventually(lambda: len(ours(one)) == 4)
                await eventually(lambda: ledger.count == 1_500)
                assert ours(two) == []
        ends = Counter(partition for partition, _ in ledger.times)
        assert committed(kafka_server, group, topic, 4) == dict(ends)

    run(story())
    assert ledger.wrong == []
    assert set(ledger.times.values()) == {1}, "a clean hand-over repeats nothing"
    assert len(ledger.by["one"]) > 200


@pytest.mark.parametrize("protocol", ["cooperative", "consumer"])
def test_static_member_returns(kafka_server, protocol):
    """Its partitions wait for it: nobody else gets them while it is away for a moment."""
    topic, group = new_topic(kafka_server, 4), new_name("group")

    def options(name):
        return KafkaSubscribeOptions(
            group_instance_id=name, group_protocol=protocol, session_timeout=None if protocol == "consumer" else 20
        )

    async def story():
        async with (
            member(kafka_server, protocol) as one,
            member(kafka_server, protocol) as two,
            working(one, topic, group=group, subscribe=options("one")) as stays,
        ):
            async with working(two, topic, group=group, subscribe=options("two")):
                await eventually(lambda: len(ours(one)) == len(ours(two)) == 2)
                mine, others = ours(two), ours(one)
            for partition in range(4):
                write(kafka_server, topic, b"%d" % partition, partition=partition)
            await stays.reach(2)
            await asyncio.sleep(1)
            assert sorted(delivery.partition for delivery in stays) == others
            async with working(two, topic, group=group, subscribe=options("two")) as back:
                await back.reach(2)
                assert sorted(delivery.partition for delivery in back) == ours(two) == mine
            await asyncio.sleep(0.2)
            assert len(stays) == 2

    run(story())


def test_a_revoke_waits_for_what_runs_and_not_for_what_waits(kafka_server):
    """The one that runs ends and is committed before its partition goes; those behind it run at the other member."""
    topic, group = new_topic(kafka_server, 2), new_name("group")
    go, began, ended = asyncio.Event(), [], []

    def handler(name):
        async def handle(delivery):
            began.append((name, delivery.partition, delivery.offset))
            if delivery.offset == 0:
                await go.wait()
            ended.append((name, delivery.partition, delivery.offset))

        return handle

    async def story():
        for partition in (0, 1):
            write(kafka_server, topic, *(b"x" for _ in range(5)), partition=partition, key=b"k%d" % partition)
        async with member(kafka_server) as one, member(kafka_server) as two:
            async with Worker(one, topic, handler("one"), group=group):
                await eventually(lambda: len(began) == 2)
                async with Worker(two, topic, handler("two"), group=group):
                    (subscription,) = one._subscriptions
                    await eventually(lambda: not all(stay.live for stay in subscription.stays))
                    await asyncio.sleep(0.5)
                    assert len(began) == 2  # the other does not run what is not committed
                    assert ours(two) == []
                    go.set()
                    await eventually(lambda: len(ended) == 10)
            first = [entry for entry in began if entry[2] == 0]
            assert {name for name, _, _ in first} == {"one"}
            assert len({entry[1:] for entry in began}) == len(began) == 10
            assert "two" in {name for name, _, _ in began}

    run(story())


def test_blocking_handler_keeps_membership(kafka_server):
    """A handler that blocks the loop for longer than the session: nobody takes its partitions."""
    topic, group = new_topic(kafka_server, 2), new_name("group")
    options = KafkaSubscribeOptions(session_timeout=6)
    seen = []

    async def handler(delivery):
        if not seen:
            seen.append(delivery.offset)
            time.sleep(7.5)
        else:
            seen.append(delivery.offset)

    async def story():
        write(kafka_server, topic, b"a", b"b", b"c", key=b"k")
        async with KafkaBroker(kafka_server.bootstrap) as broker:
            worker = Worker(broker, topic, handler, group=group, subscribe=options)
            async with worker:
                await eventually(lambda: len(seen) == 3)
                await asyncio.wait_for(worker.idle(), 10)
            assert seen == [0, 1, 2]
            assert [worker.stats.late_settles] == [0]
        assert committed(kafka_server, group, topic, 2) == {0: 3, 1: 0}

    run(story())


def test_a_stopped_member_lets_what_runs_end_and_repeats_nothing(kafka_server):
    topic, group, ledger = new_topic(kafka_server, 2), new_name("group"), Ledger(pace=0.1)

    async def story():
        async with KafkaBroker(kafka_server.bootstrap) as broker:
            await broker.publish_batch(numbered(topic, 300, keys=30))
            for _ in range(4):
                async with Worker(broker, topic, ledger.handler("one"), group=group):
                    before = ledger.count
                    await eventually(lambda before=before: ledger.count > before + 30)
            async with Worker(broker, topic, ledger.handler("one"), group=group):
                await eventually(lambda: ledger.count == 300)

    run(story())
    assert ledger.wrong == []
    assert set(ledger.times.values()) == {1}


# -- presets and stats -------------------------------------------------------------------------------------------------


def test_a_preset_opens_a_closed_broker_and_closes_it(kafka_server):
    topic, group = new_topic(kafka_server), new_name("group")

    async def story():
        write(kafka_server, topic, b"a")
        broker = KafkaBroker(kafka_server.bootstrap)
        async with working(broker, topic, GroupConsumer, group=group) as found:
            assert str(found.worker) == f"group-consumer({group}:{topic})"
            assert broker.is_open
            await found.reach(1)
        assert not broker.is_open
        assert committed(kafka_server, group, topic) == {0: 1}
        async with KafkaBroker(kafka_server.bootstrap) as broker:
            async with working(broker, topic, GroupConsumer, group=group) as found:
                write(kafka_server, topic, b"b")
                await found.reach(1)
            assert broker.is_open  # it was shared
            assert (await broker.publish(Message(topic=topic, body=b"c"))).offset == 2

    run(story())


def test_partitions_say_how_they_stand(kafka_server):
    topic, group = new_topic(kafka_server, 2), new_name("group")
    go, began = asyncio.Event(), []
    options = KafkaSubscribeOptions(commit_interval=0.05)

    async def handler(delivery):
        began.append(delivery.offset)
        if delivery.message.body == b"wait":
            await go.wait()

    async def story():
        write(kafka_server, topic, b"a", b"wait", b"c", partition=1)
        async with KafkaBroker(kafka_server.bootstrap) as broker:
            assert broker.partitions() == []
            async with Worker(broker, topic, handler, group=group, subscribe=options):
                await eventually(lambda: len(began) == 3)
                stats = await eventually(
                    lambda: next((each for each in broker.partitions() if each.committed == 1 and each.end == 3), None)
                )
                assert (stats.group, stats.topic, stats.partition, stats.epoch) == (group, topic, 1, 1)
                assert (stats.position, stats.lag, stats.tracked, stats.tracked_bytes) == (3, 0, 2, 4)
                assert stats.paused is False
                await asyncio.sleep(0.2)
                (empty, stats) = sorted(broker.partitions(), key=lambda each: each.partition)
                assert 0.2 < stats.oldest_unfinished_age < 30
                assert (empty.position, empty.committed, empty.tracked, empty.oldest_unfinished_age) == (
                    0,
                    None,
                    0,
                    None,
                )
                go.set()
                stats = await eventually(
                    lambda: next((each for each in broker.partitions() if each.committed == 3), None)
                )
                assert (stats.tracked, stats.tracked_bytes, stats.oldest_unfinished_age) == (0, 0, None)
            assert broker.partitions() == []

    run(story())
