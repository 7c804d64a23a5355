"""Of three brokers one is killed again and again: leaders and coordinators move, order and commits do not."""

import asyncio
from collections import defaultdict

import pytest
from confluent_kafka import Consumer, TopicPartition

from headrace.core.message import Message, new_id
from headrace.kafka import KafkaBroker, Producer
from headrace.testing.plugin import kafka_cluster, kafka_installed  # noqa: F401
from tests.faults.kafka.troupe import KEYS, through
from tests.integration.kafka.raw import ask

PARTITIONS = 4
OUTSTANDING = 5_000


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
    times = 2 if in_ci else 10

    async def story():
        over = asyncio.Event()
        sending = asyncio.create_task(pipelined(kafka_cluster.bootstrap, topic, over))
        await asyncio.sleep(1)
        await one_by_one(times, lambda number: kafka_cluster.leader_of(topic, number % PARTITIONS))
        over.set()
        return await sending

    results, most = asyncio.run(story())
    print(f"{times} leaders killed: {len(results)} sent, {most} of them outstanding at once")
    assert most > 0.9 * OUTSTANDING, "the places were never all taken: a run without an outage proves nothing"
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
    times = 2 if in_ci else 10

    async def disturb(troupe):
        await one_by_one(times, lambda _: coordinator_of(kafka_cluster, troupe.topic))

    count = 5_000 if in_ci else 60_000
    verdict = asyncio.run(through(tmp_path, kafka_cluster.bootstrap, protocol, count, disturb, pace=0.3))
    print(f"{protocol}, {times} coordinators killed: {verdict}")
    assert not verdict.wrong, "\n".join(verdict.wrong[:20])
    assert verdict.commits
