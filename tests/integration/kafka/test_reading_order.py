"""Order of keys, what is held back, what comes again: on a real broker."""

import asyncio
import random
import time
from collections import defaultdict

import pytest
from confluent_kafka import Producer as RawProducer

from headrace.core.delivery import Ack, Nak, Release
from headrace.core.errors import HandlerError
from headrace.flow.judge import STOP
from headrace.flow.keyed import Ordering
from headrace.flow.retry import RetryPolicy
from headrace.flow.worker import Worker
from headrace.kafka.broker import KafkaBroker
from headrace.kafka.reading import KafkaSubscribeOptions
from tests.integration.kafka.raw import QUIET, committed, eventually, new_name, new_topic, run, working, write

pytestmark = pytest.mark.servers


def write_keyed(server, topic, *pairs, partition=0):
    producer = RawProducer({"bootstrap.servers": server.bootstrap} | QUIET)
    for key, value in pairs:
        producer.produce(topic, value, key=key, partition=partition)
    assert producer.flush(20) == 0


class Watch:
    """A handler that says how many ran at once, and in which order each group of them began and ended."""

    def __init__(self, group_of):
        self.group_of = group_of
        self.now, self.most = defaultdict(int), defaultdict(int)
        self.order = defaultdict(list)
        self.deliveries = []

    @property
    def count(self):
        return len(self.deliveries)

    async def handle(self, delivery):
        group = self.group_of(delivery)
        for each in (group, "all"):
            self.now[each] += 1
            self.most[each] = max(self.most[each], self.now[each])
        await asyncio.sleep(random.random() * 0.005)
        self.order[group].append(delivery.offset)
        self.now[group] -= 1
        self.now["all"] -= 1
        self.deliveries.append(delivery)


async def watched(server, topic, watch, count, **options):
    group = new_name("group")
    async with (
        KafkaBroker(server.bootstrap) as broker,
        Worker(broker, topic, watch.handle, group=group, subscribe=KafkaSubscribeOptions(**options)),
    ):
        await eventually(lambda: watch.count == count)
    assert committed(server, group, topic) == {0: count}


# -- keys --------------------------------------------------------------------------------------------------------------


def test_key_extractor(kafka_server):
    """Records of different keys that belong to one customer keep their order; where it says nothing, the key counts."""
    topic = new_topic(kafka_server)
    rows = []
    for number in range(120):
        customer = (b"ann", b"bob", b"")[number % 3]
        rows.append((b"key%d" % (number % 2 if not customer else number), customer + b":%d" % number))
    write_keyed(kafka_server, topic, *rows)

    def extract(message):
        customer = message.body.partition(b":")[0]
        return {b"ann": "ann", b"bob": b"bob", b"": None if message.key == b"key0" else ""}[customer]

    watch = Watch(lambda delivery: delivery.order_key)
    run(watched(kafka_server, topic, watch, 120, key_extractor=extract))
    assert set(watch.order) == {b"ann", b"bob", b"key0", b"key1"}
    assert all(offsets == sorted(offsets) for offsets in watch.order.values())
    assert [watch.most[key] for key in watch.order] == [1] * 4
    assert watch.most["all"] > 1
    by_offset = {delivery.offset: delivery.attributes() for delivery in watch.deliveries}
    assert by_offset[0]["headrace.order_key"] == "ann"
    assert "headrace.order_key" not in by_offset[2]


@pytest.mark.parametrize("ordered", [True, False])
def test_order_keyless(kafka_server, ordered):
    topic = new_topic(kafka_server)
    write_keyed(kafka_server, topic, *((None, b"x") for _ in range(60)), *((b"", b"x") for _ in range(20)))
    watch = Watch(lambda delivery: delivery.message.key)
    run(watched(kafka_server, topic, watch, 80, order_keyless=ordered))
    assert watch.most[b""] == 1  # an empty key is one like any other
    assert watch.order[b""] == list(range(60, 80))
    assert (watch.most[None] == 1) is ordered
    assert (watch.order[None] == list(range(60))) is ordered


def test_an_extractor_that_raises_ends_the_run_behind_those_before_it(kafka_server):
    """Else the records before it would never be handled: they come in one batch with it, each time."""
    topic, group = new_topic(kafka_server), new_name("group")
    write_keyed(kafka_server, topic, *((b"k%d" % (number % 3), b"%d" % number) for number in range(20)))

    def extract(message):
        if message.body == b"7":
            raise KeyError("customer")
        return message.key

    async def story():
        options = KafkaSubscribeOptions(key_extractor=extract)
        async with KafkaBroker(kafka_server.bootstrap) as broker:
            seen = []

            async def handler(delivery):
                seen.append(delivery.offset)

            with pytest.raises(HandlerError, match="key_extractor") as raised:
                await Worker(broker, topic, handler, group=group, subscribe=options).run()
            assert isinstance(raised.value.__cause__, KeyError)
            assert sorted(seen) == list(range(7))
        assert committed(kafka_server, group, topic) == {0: 7}

    run(story())


# -- what is held back -------------------------------------------------------------------------------------------------


def of_partition_0(broker):
    return next((each for each in broker.partitions() if each.partition == 0), None)


@pytest.mark.parametrize("limit", [{"max_span": 20}, {"max_span_bytes": 20_000}], ids=["records", "bytes"])
def test_a_parked_key_stops_only_its_partition(kafka_server, limit):
    """Paused at the limit, so little of it is held; resumed once it is half."""
    topic, group = new_topic(kafka_server, 2), new_name("group")
    body, go, handled = bytes(1_000), asyncio.Event(), defaultdict(list)
    # of bytes only what is unfinished counts: there all wait for the one key
    first, then = (
        ([b"bad", *(b"k%d" % number for number in range(200))], [b"late"] * 99)
        if "max_span" in limit
        else ([b"bad"] * 60, [b"bad"] * 40)
    )
    count = len(first) + len(then)

    async def handler(delivery):
        if delivery.message.key == b"bad" and not go.is_set():
            raise ValueError("not yet")
        handled[delivery.partition].append(delivery.offset)

    async def story():
        write_keyed(kafka_server, topic, *((key, body) for key in first))
        write_keyed(kafka_server, topic, *((b"o%d" % number, body) for number in range(300)), partition=1)
        options = KafkaSubscribeOptions(max_in_flight=70, prefetch=10, commit_interval=0.1, **limit)
        retry = RetryPolicy(initial=0.2, maximum=0.2)
        async with KafkaBroker(kafka_server.bootstrap) as broker:
            worker = Worker(broker, topic, handler, group=group, subscribe=options, retry=retry, concurrency=8)
            async with worker:
                await eventually(lambda: len(handled[1]) == 300)
                await eventually(lambda: of_partition_0(broker).paused)
                write_keyed(kafka_server, topic, *((key, body) for key in then))
                await asyncio.sleep(1.5)  # longer than the thread's patience before it pauses everything
                stats = of_partition_0(broker)
                assert stats.paused
                assert stats.committed is None
                assert 20 <= stats.tracked == stats.position <= 100
                assert len(handled[0]) < stats.position
                write_keyed(kafka_server, topic, (b"late", body), partition=1)
                await eventually(lambda: len(handled[1]) == 301)
                await eventually(lambda: committed(kafka_server, group, topic, 2) == {0: 0, 1: 301})
                go.set()
                await eventually(lambda: len(handled[0]) == count)
                await asyncio.wait_for(worker.idle(), 10)
                assert not any(each.paused for each in broker.partitions())
                assert sum(each.tracked_bytes for each in broker.partitions()) == 0
        assert committed(kafka_server, group, topic, 2) == {0: count, 1: 301}
        if "max_span_bytes" in limit:
            assert handled[0] == list(range(count))

    run(story())


def test_a_slow_reader_loses_nothing(kafka_server):
    """It is so slow that everything is paused again and again."""
    topic, seen = new_topic(kafka_server), []

    async def story():
        write(kafka_server, topic, *(b"%d" % number for number in range(24)))
        async with KafkaBroker(kafka_server.bootstrap) as broker:
            options = KafkaSubscribeOptions(group=new_name("group"), max_in_flight=10, prefetch=1)
            async with broker.subscribe(topic, options) as reading:
                while len(seen) < 24:
                    found = await reading.pull(10, 5)
                    assert found
                    await asyncio.sleep(1.3 if len(seen) < 10 else 0)
                    for delivery in found:
                        seen.append(delivery.offset)
                        delivery.ack()
                assert await reading.backlog() == 0

    run(story())
    assert seen == list(range(24))


# -- what comes again --------------------------------------------------------------------------------------------------


async def take(reading, count):
    found = []
    deadline = time.monotonic() + 10
    while len(found) < count:
        found += await reading.pull(count - len(found), 1)
        assert time.monotonic() < deadline, told(found)
    return found


def told(deliveries):
    return [(delivery.offset, delivery.attempt) for delivery in deliveries]


def test_nak_and_release_come_before_new_ones_lowest_first(kafka_server):
    topic, group = new_topic(kafka_server), new_name("group")

    async def story():
        write_keyed(kafka_server, topic, *((b"k", b"%d" % number) for number in range(12)))
        async with KafkaBroker(kafka_server.bootstrap) as broker:
            async with broker.subscribe(topic, KafkaSubscribeOptions(group=group)) as reading:
                first = await take(reading, 6)
                assert told(first) == [(number, 1) for number in range(6)]
                for number, outcome in ((4, Nak()), (2, Release()), (0, Ack()), (5, Nak(0.4)), (1, Nak()), (3, Ack())):
                    assert first[number].start()
                    first[number].settle(outcome)
                began = time.monotonic()
                again = await take(reading, 5)
                assert told(again) == [(1, 2), (2, 1), (4, 2), (6, 1), (7, 1)]
                assert [delivery.message for delivery in again[:3]] == [first[number].message for number in (1, 2, 4)]
                assert again[0].message.id == f"{topic}/0/1"
                late = await take(reading, 1) if time.monotonic() < began + 0.3 else None
                assert late is None or told(late) == [(8, 1)]
                await asyncio.sleep(max(0.0, began + 0.45 - time.monotonic()))
                (due,) = await take(reading, 1)
                assert told([due]) == [(5, 2)]
                again[0].settle(Nak())
                (third,) = await take(reading, 1)
                assert told([third]) == [(1, 3)]
                third.ack()
                await reading.flush()
                assert committed(kafka_server, group, topic) == {0: 2}  # 2 is not done
            assert committed(kafka_server, group, topic) == {0: 2}
            async with broker.subscribe(topic, KafkaSubscribeOptions(group=group)) as reading:
                back = await take(reading, 9)  # 3 is done: the last commit said so
                assert told(back) == [(number, 1) for number in (2, *range(4, 12))]  # attempts live in memory

    run(story())


def test_nak_of_a_worker_without_order(kafka_server):
    topic, runs = new_topic(kafka_server), []

    async def handler(delivery):
        runs.append((delivery.offset, delivery.attempt))
        if delivery.offset == 1 and delivery.attempt < 3:
            raise ValueError("again")

    async def story():
        write(kafka_server, topic, b"0", b"1", b"2")
        async with KafkaBroker(kafka_server.bootstrap) as broker:
            retry = RetryPolicy(initial=0.1, jitter=0)
            worker = Worker(broker, topic, handler, group=topic, ordering=Ordering.NONE, retry=retry)
            async with worker:
                await asyncio.wait_for(worker.idle(), 15)
        assert sorted(runs) == [(0, 1), (1, 1), (1, 2), (1, 3), (2, 1)]
        assert committed(kafka_server, topic, topic) == {0: 3}

    run(story())


def test_stop_commits_all_that_is_finished_below(kafka_server):
    """The policy ends the run; what stands below the record is committed, and it comes again first."""
    topic, group = new_topic(kafka_server), new_name("group")

    async def handler(delivery):
        await asyncio.sleep(random.random() * 0.02)
        if delivery.offset == 5:
            raise ValueError("poison")

    async def story():
        write_keyed(kafka_server, topic, *((b"k", b"%d" % number) for number in range(10)))
        async with KafkaBroker(kafka_server.bootstrap) as broker:
            with pytest.raises(HandlerError):
                await Worker(
                    broker, topic, handler, group=group, retry=RetryPolicy(max_attempts=1), on_exhausted=STOP
                ).run()
            assert committed(kafka_server, group, topic) == {0: 5}
            async with working(broker, topic, group=group) as found:
                await found.reach(5)
                assert found[0].offset == 5

    run(story())
