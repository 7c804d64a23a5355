"""Of three brokers one is killed again and again: leaders and coordinators move, logs go back, nothing is passed."""

import asyncio
import logging
from collections import defaultdict

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import NewTopic

from headrace.core.message import Message, new_id
from headrace.kafka import KafkaBroker, KafkaSubscribeOptions, OffsetOutOfRangeError, Producer
from headrace.testing.plugin import kafka_cluster, kafka_installed  # noqa: F401
from tests.faults.kafka.troupe import KEYS, through
from tests.integration.kafka.raw import ask, committed, eventually, records, working, write

PARTITIONS = 4
OUTSTANDING = 5_000
UNCLEAN = {"min.insync.replicas": "1", "unclean.leader.election.enable": "true"}
KEPT, LOST = 10, 10
PATIENCE = 40.0


async def one_by_one(times, victim):
    """Kill what `victim(n)` answers, let the others take over, start it again; so many times."""
    for number in range(times):
        server = await asyncio.to_thread(victim, number)
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(4)  # its leaders are given away after 3 s
        await asyncio.to_thread(server.start)
        await asyncio.sleep(1)


async def pipelined(address, topic, over):
    """Send until it is over, with all places taken while nobody answers; the results in order, and the most waited."""
    futures, most = [], 0
    async with Producer(KafkaBroker(address), default_topic=topic, max_outstanding=OUTSTANDING) as producer:
        while not over.is_set():
            for _ in range(50):
                message = Message(topic="", key=b"k%d" % (len(futures) % KEYS), body=b"%d" % len(futures))
                futures.append(await producer.produce_async(message))
            most = max(most, sum(not future.done() for future in futures[-2 * OUTSTANDING :]))
            await asyncio.sleep(0.01)
        return await asyncio.gather(*futures), most


def stored(address, topic):
    """(partition, offset) -> number and key, as the driver reads them up to the ends."""
    settings = {"bootstrap.servers": address, "group.id": "look", "enable.partition.eof": True, "log_level": "0"}
    consumer, found, ends = Consumer(settings), {}, set()
    consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
    while len(ends) < PARTITIONS:
        for record in consumer.consume(5_000, 1):
            if record.error():
                ends.add(record.partition())
            else:
                found[record.partition(), record.offset()] = int(record.value()), record.key()
    consumer.close()
    return found


@pytest.mark.chaos
@pytest.mark.servers
def test_three_nodes_leader_killed(kafka_cluster, in_ci):  # noqa: F811
    """Nothing is lost, stored twice or out of its key's order, though thousands are on their way at each kill."""
    topic = f"leaders-{new_id()}"
    kafka_cluster.create_topic(topic, PARTITIONS)
    times = 1 if in_ci else 10

    async def story():
        over = asyncio.Event()
        sending = asyncio.create_task(pipelined(kafka_cluster.bootstrap, topic, over))
        await asyncio.sleep(1)
        await one_by_one(times, lambda number: kafka_cluster.leader_of(topic, number % PARTITIONS))
        over.set()
        return await sending

    results, most = asyncio.run(story())
    print(f"{times} leaders killed: {len(results)} sent, {most} of them outstanding at once")
    assert most > OUTSTANDING / 2, "only few were on their way: a run without an outage proves nothing"
    found = stored(kafka_cluster.bootstrap, topic)
    assert [found[result.partition, result.offset][0] for result in results] == list(range(len(results)))
    assert len(found) == len(results)
    by_key = defaultdict(list)
    for _, (number, key) in sorted(found.items()):
        by_key[key].append(number)
    assert all(numbers == sorted(numbers) for numbers in by_key.values())


def coordinator_of(cluster, group):
    """The broker that the group's members answer to."""
    (found,) = ask(cluster, lambda admin: admin.describe_consumer_groups([group]))
    return next(server for server in cluster.servers if server.seat.number == found.coordinator.id)


@pytest.mark.chaos
@pytest.mark.servers
@pytest.mark.parametrize("protocol", ["cooperative", "eager", "consumer"])
def test_coordinator_moves(protocol, tmp_path, kafka_cluster, in_ci):  # noqa: F811
    """The broker of the group's coordinator is killed, and some leaders with it, in the midst of work."""
    if in_ci and protocol != "cooperative":
        pytest.skip("the long run has it")
    times = 1 if in_ci else 10

    async def disturb(troupe):
        await one_by_one(times, lambda _: coordinator_of(kafka_cluster, troupe.topic))

    count = 5_000 if in_ci else 60_000
    verdict = asyncio.run(through(tmp_path, kafka_cluster.bootstrap, protocol, count, disturb, pace=0.3))
    print(f"{protocol}, {times} coordinators killed: {verdict}")
    assert not verdict.wrong, "\n".join(verdict.wrong[:20])
    assert verdict.commits


# -- an unclean election -----------------------------------------------------------------------------------------------


def topic_on(cluster, *servers):
    """A topic that these brokers have, and no other; the first leads it."""
    topic, numbers = f"unclean-{new_id()}", [server.seat.number for server in servers]
    ask(cluster, lambda admin: admin.create_topics([NewTopic(topic, 1, replica_assignment=[numbers], config=UNCLEAN)]))
    return topic


def put(cluster, topic, word, count):
    write(cluster, topic, *(b"%s %d" % (word, number) for number in range(count)), key=b"k")


async def go_back(cluster, topic, found, anew):
    """The follower misses what was handled and committed; it is elected; so many are written anew."""
    leader, follower, _ = cluster.servers
    await asyncio.to_thread(put, cluster, topic, b"kept", KEPT)
    await asyncio.to_thread(follower.kill)
    await asyncio.to_thread(put, cluster, topic, b"lost", LOST)
    await found.reach(KEPT + LOST, PATIENCE)
    await eventually(lambda: committed(cluster, topic, topic) == {0: KEPT + LOST}, PATIENCE)
    await asyncio.to_thread(leader.kill)
    await asyncio.to_thread(follower.start)
    await asyncio.to_thread(put, cluster, topic, b"anew", anew)
    await asyncio.to_thread(leader.start)


async def read_on(cluster, topic, policy, anew):
    """Read while that happens; the log that there is in the end, and what was handled."""
    options = KafkaSubscribeOptions(on_out_of_range=policy, commit_interval=0.2)
    async with (
        KafkaBroker(cluster.bootstrap) as broker,
        working(broker, topic, group=topic, subscribe=options) as found,
    ):
        await go_back(cluster, topic, found, anew)
        await asyncio.to_thread(put, cluster, topic, b"last", 1)
        log = {(each.offset(), each.value()) for each in records(cluster, topic)}
        await eventually(lambda: b"last 0" in found.bodies, PATIENCE)
        return log, {(each.offset, each.message.body) for each in found}


@pytest.mark.chaos
@pytest.mark.servers
@pytest.mark.parametrize("anew", [5, 15], ids=["shorter", "longer"])
@pytest.mark.parametrize("policy", ["earliest", "latest", "stop"])
def test_log_goes_back(kafka_cluster, policy, anew, caplog, in_ci):  # noqa: F811
    """Also where it has grown beyond the reader's place again: what is written there now is not passed in silence."""
    if in_ci:
        pytest.skip("the long run has it")
    topic = topic_on(kafka_cluster, *kafka_cluster.servers[:2])
    try:
        with caplog.at_level(logging.WARNING, "headrace.kafka"):
            log, done = asyncio.run(read_on(kafka_cluster, topic, policy, anew))
    except OffsetOutOfRangeError:
        assert policy == "stop"
        return
    finally:
        for server in kafka_cluster.servers:
            if not server.running:
                server.start()
    print(f"{policy}, {anew} written anew: {len(log - done)} of {len(log)} not handled")
    assert policy != "stop"
    assert "is out of range" in caplog.text
    if policy == "earliest":
        assert not log - done
