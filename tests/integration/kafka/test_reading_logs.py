"""Reading logs that are not plain: transactions, compaction, what was deleted, what was added, where one begins."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta

import pytest
from confluent_kafka import Producer as RawProducer
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewPartitions

from headrace.core.broker import Start, TopicOptions
from headrace.core.message import Message
from headrace.flow.worker import Worker
from headrace.kafka.broker import KafkaBroker
from headrace.kafka.consuming import plans
from headrace.kafka.errors import OffsetOutOfRangeError, UnknownGroupError, UnknownTopicError
from headrace.kafka.options import KafkaOptions
from headrace.kafka.reading import KafkaPartitionOptions, KafkaSubscribeOptions
from headrace.kafka.stores import MemoryOffsetStore
from headrace.kafka.wire import Tombstone
from headrace.testing.kafka import KafkaServer
from tests.integration.kafka.raw import (
    QUIET,
    ask,
    commit,
    committed,
    eventually,
    new_name,
    new_topic,
    numbered,
    records,
    run,
    working,
    write,
)
from tests.integration.kafka.strange import write_header

pytestmark = pytest.mark.servers

QUICK = {"topic.metadata.refresh.interval.ms": 300, "topic.metadata.propagation.max.ms": 1_000}


class Transactions:
    """Transactions of a driver's producer on partition 0."""

    def __init__(self, server, topic):
        self._producer = RawProducer(
            {"bootstrap.servers": server.bootstrap, "transactional.id": new_name("tx"), "linger.ms": 0} | QUIET
        )
        self._producer.init_transactions(20)
        self._topic = topic

    def write(self, *values, end=None):
        self._producer.begin_transaction()
        for value in values:
            self._producer.produce(self._topic, value, partition=0)
        self._producer.flush(20)
        if end == "commit":
            self._producer.commit_transaction(20)
        elif end == "abort":
            self._producer.abort_transaction(20)

    def commit(self):
        self._producer.commit_transaction(20)


def strict_or_not(isolation, group=None):
    return KafkaSubscribeOptions(isolation=isolation, start=Start.all(), group=group)


def test_transactions_gaps_and_isolation(kafka_server):
    """Offsets: 0-2, marker 3, aborted 4-5, marker 6, 7-8, marker 9, open 10."""
    topic, group = new_topic(kafka_server), new_name("group")

    async def story():
        log = Transactions(kafka_server, topic)
        log.write(b"a", b"b", b"c", end="commit")
        log.write(b"x", b"y", end="abort")
        log.write(b"d", b"e", end="commit")
        log.write(b"f")
        async with KafkaBroker(kafka_server.bootstrap) as broker:
            async with working(broker, topic, group=group, subscribe=strict_or_not("read_committed")) as found:
                await found.reach(5)
                await asyncio.wait_for(found.worker.idle(), 10)  # neither markers nor what is open are left to do
                assert [delivery.offset for delivery in found] == [0, 1, 2, 7, 8]
                log.commit()
                await found.reach(6)
                assert found.bodies == [b"a", b"b", b"c", b"d", b"e", b"f"]
            assert committed(kafka_server, group, topic) == {0: 11}
            async with working(broker, topic, subscribe=strict_or_not("read_uncommitted")) as found:
                await found.reach(8)
                assert [delivery.offset for delivery in found] == [0, 1, 2, 4, 5, 7, 8, 10]

    run(story())


def test_commits_pass_gaps_while_a_record_is_parked(kafka_server):
    """Arrival order counts: 0 waits, so nothing is committed; then all of it, over the gap of an aborted one."""
    topic, group = new_topic(kafka_server), new_name("group")
    go = asyncio.Event()

    async def handler(delivery):
        if delivery.offset == 0:
            await go.wait()
        handled.add(delivery.offset)

    handled = set()

    async def story():
        log = Transactions(kafka_server, topic)
        log.write(b"a", b"b", end="commit")
        log.write(b"x", end="abort")
        log.write(b"c", end="commit")
        options = KafkaSubscribeOptions(commit_interval=0.05)
        async with (
            KafkaBroker(kafka_server.bootstrap) as broker,
            Worker(broker, topic, handler, group=group, subscribe=options),
        ):
            await eventually(lambda: handled == {1, 5})
            await asyncio.sleep(0.3)
            assert committed(kafka_server, group, topic) == {0: 0}  # where the new group begins
            (stats,) = broker.partitions()
            assert (stats.committed, stats.tracked, stats.position) == (None, 4, 7)  # the last marker is one, too
            go.set()
            await eventually(lambda: broker.partitions()[0].committed == 7)
            assert committed(kafka_server, group, topic) == {0: 7}

    run(story())


def test_backlog_zero_after_markers(kafka_server):
    """The marker at the end is committed too; a group that stands before it, by another library, is not stuck there."""
    topic, group = new_topic(kafka_server, 2), new_name("group")

    async def story():
        log = Transactions(kafka_server, topic)
        log.write(b"a", b"b", end="commit")
        write(kafka_server, topic, b"c", partition=1)
        async with KafkaBroker(kafka_server.bootstrap) as broker:
            options = KafkaSubscribeOptions(group=group)
            async with broker.subscribe(topic, options) as reading:
                found = []
                assert await reading.backlog() == 4
                while len(found) < 3:
                    found += await reading.pull(1, 5)
                assert await reading.backlog() <= 1
                for delivery in found:
                    delivery.ack()
                assert await reading.pull(1, 0.5) == []
                assert await reading.backlog() == 0
            assert committed(kafka_server, group, topic, 2) == {0: 3, 1: 1}
            before = new_name("group")
            commit(kafka_server, before, topic, 2)
            commit(kafka_server, before, topic, 1, partition=1)
            async with working(broker, topic, group=before) as found:
                await asyncio.wait_for(found.worker.idle(), 10)
                assert not found
            assert committed(kafka_server, before, topic, 2) == {0: 3, 1: 1}

    run(story())


@pytest.mark.timeout(240)
def test_compacted_topic(kafka_installed):
    """Most offsets are gone: all that is left comes, and the commits and the backlog end behind it."""

    async def story(server):
        topic = new_topic(server, cleanup_policy="compact", segment_ms=100, min_cleanable_dirty_ratio=0.01)
        for turn in range(6):
            for key in (b"a", b"b", b"c"):
                write(server, topic, b"%d" % turn, key=key)
            await asyncio.sleep(0.15)
        write(server, topic, b"last", key=b"z")
        left = [15, 16, 17, 18]
        await eventually(lambda: [record.offset() for record in records(server, topic)] == left)
        async with KafkaBroker(server.bootstrap) as broker, working(broker, topic, group="g") as found:
            await found.reach(4)
            assert [delivery.offset for delivery in found] == left
            assert found.bodies[-1] == b"last"
            await asyncio.wait_for(found.worker.idle(), 10)
        assert committed(server, "g", topic) == {0: 19}

    with KafkaServer(libs=kafka_installed, config={"log.cleaner.backoff.ms": "100"}) as server:
        run(story(server))


# -- out of range ------------------------------------------------------------------------------------------------------


def cut_log(server):
    """A topic with records 6 to 9; and a group that stands at 3."""
    topic, group = new_topic(server), new_name("group")
    write(server, topic, *(b"%d" % number for number in range(10)))
    commit(server, group, topic, 3)
    ask(server, lambda admin: admin.delete_records([TopicPartition(topic, 0, 6)]))
    return topic, group


async def standing_at(topic, offset):
    store = MemoryOffsetStore()
    await store.save(topic, 0, offset)
    return store


async def placed(kind, topic, group, offset, policy):
    """Options of a group, or of one partition, both standing at that offset."""
    if kind != "partition":
        return {"group": group, "subscribe": KafkaSubscribeOptions(on_out_of_range=policy, group_protocol=kind)}
    store = await standing_at(topic, offset)
    return {"subscribe": KafkaPartitionOptions(partition=0, offset_store=store, on_out_of_range=policy)}


@pytest.mark.parametrize("kind", ["cooperative", "eager", "consumer", "partition"])
def test_out_of_range_policies(kafka_server, kind, caplog):
    async def story():
        async with KafkaBroker(kafka_server.bootstrap) as broker:
            topic, group = cut_log(kafka_server)
            with pytest.raises(OffsetOutOfRangeError):
                async with working(broker, topic, **await placed(kind, topic, group, 3, "stop")) as found:
                    await asyncio.sleep(20)
            assert not found
            if kind != "partition":
                assert committed(kafka_server, group, topic) == {0: 3}
            async with working(broker, topic, **await placed(kind, topic, group, 3, "earliest")) as found:
                await found.reach(4)
                assert found.bodies == [b"6", b"7", b"8", b"9"]
            topic, group = cut_log(kafka_server)
            with caplog.at_level(logging.WARNING, "headrace.kafka"):
                caplog.clear()
                async with working(broker, topic, **await placed(kind, topic, group, 3, "latest")) as found:
                    await eventually(lambda: "out of range" in caplog.text)
                    assert "position 3" in caplog.text
                    assert "at 10" in caplog.text
                    write(kafka_server, topic, b"new")
                    await found.reach(1)
                    assert found.bodies == [b"new"]

    run(story())


def test_a_checkpoint_behind_the_end_is_out_of_range(kafka_server):
    async def story():
        topic = new_topic(kafka_server)
        write(kafka_server, topic, b"0", b"1")
        async with KafkaBroker(kafka_server.bootstrap) as broker:
            with pytest.raises(OffsetOutOfRangeError):
                async with working(broker, topic, **await placed("partition", topic, "", 5, "stop")):
                    await asyncio.sleep(20)
            async with working(broker, topic, **await placed("partition", topic, "", 5, "earliest")) as found:
                await found.reach(2)

    run(story())


# -- where one begins --------------------------------------------------------------------------------------------------

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def hours(count):
    return int((NOON + timedelta(hours=count)).timestamp() * 1_000_000_000)


def test_start_since_and_new(kafka_server):
    """In each partition by itself: 0 holds 10:00 and 13:00, 1 holds 11:00 only, 2 nothing."""
    topic = new_topic(kafka_server, 3, retention_ms=-1)  # else they are too old to stay

    async def story():
        producer = RawProducer({"bootstrap.servers": kafka_server.bootstrap} | QUIET)
        for partition, hour in ((0, -2), (0, 1), (1, -1)):
            stamp = hours(hour) // 1_000_000
            producer.produce(topic, b"%d" % hour, partition=partition, timestamp=stamp)
        assert producer.flush(20) == 0
        async with KafkaBroker(kafka_server.bootstrap) as broker:
            wanted = {
                "all": (Start.all(), {b"-2", b"-1", b"1"}, {0: 0, 1: 0, 2: 0}),
                "since": (Start.since(NOON), {b"1"}, {0: 1, 1: 1, 2: 0}),
                "exactly": (Start.since(NOON - timedelta(hours=1)), {b"-1", b"1"}, {0: 1, 1: 0, 2: 0}),
                "new": (Start.new(), set(), {0: 2, 1: 1, 2: 0}),
            }
            for word, (start, bodies, offsets) in wanted.items():
                group = new_name(word)
                options = KafkaSubscribeOptions(start=start, commit_interval=60)
                async with broker.subscribe(topic, KafkaSubscribeOptions(group=group, start=start)):
                    pass  # joined, and gone again before it has handled anything
                assert committed(kafka_server, group, topic, 3) == offsets
                async with working(broker, topic, subscribe=options) as alone:  # no group
                    async with working(broker, topic, group=group, subscribe=options) as found:
                        await found.worker.idle()
                        assert set(found.bodies) == bodies
                    await alone.worker.idle()
                    assert set(alone.bodies) == bodies

    run(story())


def test_a_new_group_loses_nothing_between_two_members(kafka_server):
    """`Start.new()` is fixed before the group is joined: what comes while nobody is in it is read by the next one."""
    topic, group = new_topic(kafka_server, 2), new_name("group")
    options = KafkaSubscribeOptions(start=Start.new())

    async def story():
        write(kafka_server, topic, b"old")
        async with KafkaBroker(kafka_server.bootstrap) as broker:
            async with working(broker, topic, group=group, subscribe=options):
                pass
            write(kafka_server, topic, b"meanwhile", partition=1)
            async with working(broker, topic, group=group, subscribe=options) as found:
                await found.reach(1)
                assert found.bodies == [b"meanwhile"]

    run(story())


def test_a_second_topic_of_a_group_is_new_by_itself(kafka_server):
    first, second, group = new_topic(kafka_server), new_topic(kafka_server), new_name("group")

    async def story():
        write(kafka_server, first, b"1")
        write(kafka_server, second, b"old")
        async with KafkaBroker(kafka_server.bootstrap) as broker:
            async with working(broker, first, group=group) as found:
                await found.reach(1)
                write(kafka_server, first, b"2")
                await found.reach(2)
            write(kafka_server, first, b"3")
            new = KafkaSubscribeOptions(start=Start.new())
            async with working(broker, [first, second], group=group, subscribe=new) as found:
                await found.reach(1)
                write(kafka_server, second, b"new")
                await found.reach(2)
                assert found.bodies == [b"3", b"new"]

    run(story())


def test_without_create_an_unknown_group_is_an_error(kafka_server):
    topic, group = new_topic(kafka_server), new_name("group")

    async def story():
        async with KafkaBroker(kafka_server.bootstrap, create=False) as broker:
            with pytest.raises(UnknownGroupError, match=group):
                async with broker.subscribe(topic, KafkaSubscribeOptions(group=group)):
                    pass
            with pytest.raises(UnknownTopicError, match="missing"):
                async with broker.subscribe(new_name("missing"), KafkaSubscribeOptions(group=group)):
                    pass
            commit(kafka_server, group, topic, 0)
            write(kafka_server, topic, b"a")
            async with working(broker, topic, group=group) as found:
                await found.reach(1)

    run(story())


# -- topics change -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["cooperative", "consumer"])
def test_partitions_added(kafka_server, protocol):
    """Taken up without a restart, from their beginning, whatever `start` says."""
    topic, group = new_topic(kafka_server), new_name("group")
    options = KafkaSubscribeOptions(start=Start.new(), group_protocol=protocol)

    async def story():
        write(kafka_server, topic, b"old")
        quick = KafkaOptions(driver_options=QUICK)
        async with (
            KafkaBroker(kafka_server.bootstrap, options=quick) as broker,
            working(broker, topic, group=group, subscribe=options) as found,
        ):
            await eventually(broker.partitions)
            ask(kafka_server, lambda admin: admin.create_partitions([NewPartitions(topic, 3)]))
            await eventually(lambda: kafka_has(kafka_server, topic, 3))
            write(kafka_server, topic, b"first", partition=2)
            await found.reach(1)
            assert (found[0].partition, found[0].offset) == (2, 0)
            write(kafka_server, topic, b"second", partition=0)
            await found.reach(2)
            assert sorted(stats.partition for stats in broker.partitions()) == [0, 1, 2]

    run(story())


def test_partitions_added_without_a_group(kafka_server, monkeypatch):
    monkeypatch.setattr(plans, "_PARTITIONS_EVERY", 0.3)
    topic = new_topic(kafka_server)

    async def story():
        write(kafka_server, topic, b"old")
        async with KafkaBroker(kafka_server.bootstrap) as broker, working(broker, topic) as found:
            await eventually(broker.partitions)
            ask(kafka_server, lambda admin: admin.create_partitions([NewPartitions(topic, 2)]))
            await eventually(lambda: kafka_has(kafka_server, topic, 2))
            write(kafka_server, topic, b"new", partition=1)
            await found.reach(1)
            assert (found[0].partition, found[0].offset) == (1, 0)

    run(story())


def kafka_has(server, topic, partitions):
    there = ask(server, lambda admin: admin.list_topics(topic, timeout=10)).topics[topic].partitions
    return len(there) == partitions and all(each.leader > 0 for each in there.values())


@pytest.mark.chaos
@pytest.mark.parametrize("kind", ["group", "partition", "alone"])
def test_topic_deleted(kafka_server, kind):
    """It ends the run, once the driver is sure (30 s; here 1)."""
    topic = new_topic(kafka_server)
    options = {
        "group": {"group": new_name("group"), "subscribe": KafkaSubscribeOptions()},
        "partition": {"subscribe": KafkaPartitionOptions(partition=0)},
        "alone": {"subscribe": KafkaSubscribeOptions(start=Start.all())},
    }

    async def story():
        write(kafka_server, topic, b"a")
        quick = KafkaOptions(driver_options=QUICK)
        async with KafkaBroker(kafka_server.bootstrap, options=quick) as broker:
            with pytest.raises(UnknownTopicError):
                async with working(broker, topic, **options[kind]) as found:
                    await found.reach(1)
                    ask(kafka_server, lambda admin: admin.delete_topics([topic]))
                    await asyncio.sleep(25)

    run(story())


# -- records -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_compressions(kafka_server, compression):
    topic = new_topic(kafka_server)
    body = b"again and again " * 2_000

    async def story():
        options = KafkaOptions(compression=compression, linger=0.05)
        async with KafkaBroker(kafka_server.bootstrap, options=options) as broker:
            await broker.publish_batch([Message(topic=topic, key=b"k", body=b"%d" % n + body) for n in range(50)])
            async with working(broker, topic, group=new_name("group")) as found:
                await found.reach(50)
                assert found.bodies == [b"%d" % number + body for number in range(50)]

    run(story())


def test_tombstone(kafka_server):
    topic = new_topic(kafka_server)

    async def story():
        async with KafkaBroker(kafka_server.bootstrap) as broker:
            await broker.publish(Message(topic=topic, key=b"k", body=b""))
            await broker.publish(Tombstone(topic=topic, key=b"k", id="gone"))
            write(kafka_server, topic, None, key=b"foreign")
            assert [record.value() for record in records(kafka_server, topic)] == [b"", None, None]
            async with working(broker, topic, group=new_name("group")) as found:
                await found.reach(3)
                found.sort(key=lambda delivery: delivery.offset)
                assert [type(delivery.message) for delivery in found] == [Message, Tombstone, Tombstone]
                assert found.bodies == [b""] * 3
                assert [delivery.message.id for delivery in found[1:]] == ["gone", f"{topic}/0/2"]
                facts = [delivery.attributes() for delivery in found]
                assert [each.get("messaging.kafka.message.tombstone") for each in facts] == [None, True, True]
                assert facts[2]["messaging.kafka.message.key"] == "foreign"

    run(story())


def test_header_name_not_utf8(kafka_server, caplog):
    topic = new_topic(kafka_server)

    async def story():
        for number in range(60):  # after a few the interpreter no more looks whether the driver has failed
            if number % 3:
                write_header(kafka_server.bootstrap, topic, b"%d" % number, b"na\xffme", b"value")
            else:
                write(kafka_server, topic, b"%d" % number)
        async with KafkaBroker(kafka_server.bootstrap) as broker, working(broker, topic, group=topic) as found:
            await found.reach(60)
            assert found.bodies == [b"%d" % number for number in range(60)]
            for number, delivery in enumerate(found):
                said = (("Headrace-Kafka-Unreadable", f"{topic}/0@{number}"),) if number % 3 else ()
                assert delivery.message.headers.items() == said
                assert delivery.message.id == f"{topic}/0/{number}"
            await asyncio.wait_for(found.worker.idle(), 10)
        assert committed(kafka_server, topic, topic) == {0: 60}

    with caplog.at_level(logging.WARNING, "headrace.kafka"):
        run(story())
    assert f"{topic}/0@1" in caplog.text


def test_facts_of_a_delivery(kafka_server):
    topic = new_name("facts")

    async def story():
        options = KafkaOptions(client_id="shop")
        async with KafkaBroker(kafka_server.bootstrap, options=options) as broker:
            await broker.declare(topic, TopicOptions(partitions=1))
            before = datetime.now(UTC)
            await broker.publish_batch(numbered(topic, 2, keys=2))
            async with working(broker, topic, group="facts") as found:
                await found.reach(2)
            one = found[1]
            assert (one.partition, one.offset, str(one.position)) == (0, 1, f"{topic}/0@1")
            assert one.timestamp_type == "create"
            assert before - timedelta(seconds=1) < one.received_at < datetime.now(UTC) + timedelta(seconds=1)
            assert one.attributes() == {
                "messaging.system": "kafka",
                "messaging.destination.partition.id": "0",
                "messaging.kafka.offset": 1,
                "messaging.client.id": "shop",
                "messaging.kafka.message.key": "k1",
                "headrace.kafka.epoch": 1,
            }

    run(story())
