"""One partition with checkpoints of one's own, dead letters, and logins: end to end on a real broker."""

import asyncio
import re
import time
from datetime import UTC, datetime

import pytest

from headrace.core.broker import Start
from headrace.core.delivery import Position
from headrace.core.errors import ConfigError
from headrace.core.headers import Headers
from headrace.core.message import Message
from headrace.deadletters.room import DeadLetters
from headrace.flow.judge import DeadLetter
from headrace.flow.retry import RetryPolicy
from headrace.flow.worker import Worker
from headrace.kafka.broker import KafkaBroker
from headrace.kafka.errors import AuthenticationError, UnknownTopicError
from headrace.kafka.options import KafkaOptions, KafkaSecurity
from headrace.kafka.presets import PartitionConsumer
from headrace.kafka.reading import KafkaPartitionOptions
from headrace.kafka.stores import DirectoryOffsetStore, MemoryOffsetStore
from headrace.kafka.wire import Tombstone
from headrace.testing.kafka import KafkaServer, Sasl, Tls
from tests.integration.kafka.raw import committed, eventually, new_name, new_topic, records, run, working, write
from tests.integration.nats.certificates import Authority

pytestmark = pytest.mark.servers


@pytest.mark.parametrize("kind", ["memory", "directory"])
def test_partition_resume(kafka_server, kind, tmp_path):
    """Rule 25: three consumed and a clean end save 3; the next run gets 3, 4, 5 and saves 6."""
    topic = new_topic(kafka_server, 3)
    memory = MemoryOffsetStore()

    async def one_run(first):
        store = memory if kind == "memory" else DirectoryOffsetStore(tmp_path)
        write(kafka_server, topic, *(b"%d" % (first + number) for number in range(3)), partition=2)
        broker = KafkaBroker(kafka_server.bootstrap)
        options = KafkaPartitionOptions(partition=2, offset_store=store, commit_interval=60)
        async with working(broker, topic, PartitionConsumer, subscribe=options) as found:
            assert str(found.worker) == f"partition-consumer({topic}:2)"
            await found.reach(3)
            assert [delivery.offset for delivery in found] == [first, first + 1, first + 2]
            assert await store.load(topic, 2) == (first or None)
            assert broker.is_open
        assert not broker.is_open  # a preset closes what it opened
        assert await store.load(topic, 2) == first + 3
        if kind == "directory":
            await store.aclose()

    async def story():
        write(kafka_server, topic, b"elsewhere", partition=0)
        await one_run(0)
        await one_run(3)

    run(story())
    assert committed(kafka_server, "headrace", topic, 3) == {0: -1001, 1: -1001, 2: -1001}  # the broker is told nothing


def test_partition_mode_saves_while_it_runs_and_resumes_behind_what_is_done(kafka_server):
    topic, store, go = new_topic(kafka_server), MemoryOffsetStore(), asyncio.Event()
    seen = []

    async def handler(delivery):
        seen.append(delivery.offset)
        if delivery.offset == 2 and seen.count(2) == 1:
            await go.wait()

    async def story():
        write(kafka_server, topic, *(b"%d" % number for number in range(5)))
        options = KafkaPartitionOptions(partition=0, offset_store=store, commit_interval=0.05)
        async with KafkaBroker(kafka_server.bootstrap) as broker:
            worker = Worker(broker, topic, handler, subscribe=options)
            running = asyncio.create_task(worker.run())
            await eventually(lambda: len(seen) == 5)
            await asyncio.sleep(0.3)
            assert await store.load(topic, 0) == 2  # 3 and 4 are done, 2 is not
            with pytest.raises(TimeoutError):
                await worker.shutdown(timeout=0)
            with pytest.raises(TimeoutError):
                await running
            assert await store.load(topic, 0) == 2
            async with working(broker, topic, subscribe=options) as found:
                await found.reach(3)
                assert [delivery.offset for delivery in found] == [2, 3, 4]

    run(story())


def test_partition_mode_where_it_may_begin(kafka_server):
    topic = new_topic(kafka_server, 2)

    async def story():
        write(kafka_server, topic, *(b"%d" % number for number in range(4)), partition=1)
        async with KafkaBroker(kafka_server.bootstrap) as broker:
            for start, offsets in (
                (Start.at(Position(f"{topic}/1", 2)), [2, 3]),
                (Start.at(3), [3]),
                (Start.all(), [0, 1, 2, 3]),
                (Start.new(), []),
            ):
                options = KafkaPartitionOptions(partition=1, start=start)
                async with broker.subscribe(topic, options) as reading:
                    found = list(await reading.pull(10, 5 if offsets else 0.5))
                    while len(found) < len(offsets):
                        found += await reading.pull(10, 5)
                    assert [delivery.offset for delivery in found] == offsets
                    assert await reading.backlog() == 0
            other = KafkaPartitionOptions(partition=1, start=Start.at(Position(f"{topic}/0", 2)))
            with pytest.raises(ConfigError, match=f"{topic}/1"):
                broker.subscribe(topic, other)
            with pytest.raises(UnknownTopicError, match="no partition 2"):
                await Worker(broker, topic, lambda delivery: None, subscribe=KafkaPartitionOptions(partition=2)).run()

    run(story())


# -- dead letters ------------------------------------------------------------------------------------------------------


def test_dead_letter_end_to_end(kafka_server):
    topic, group = new_topic(kafka_server, 2), new_name("group")
    dead = f"{topic}.dead"
    kafka_server.create_topic(dead)
    sent = datetime(2026, 3, 1, 9, 30, 0, 250_000, tzinfo=UTC)
    stamp = int(sent.timestamp()) * 1_000_000_000 + 250_000_000

    async def handler(delivery):
        if delivery.message.key != b"good":
            raise ValueError(f"no\nsuch customer {delivery.attempt}")

    async def story():
        async with KafkaBroker(kafka_server.bootstrap) as broker:
            headers = Headers([("Trace", "t1"), ("x-error", "of an earlier life")])
            bad = await broker.publish(
                Message(topic=topic, key=b"k\xff", body=b"bad", headers=headers, time_ns=stamp, id="first")
            )
            await broker.publish(Message(topic=topic, key=b"good", body=b"good"))
            await broker.publish(Tombstone(topic=topic, key=b"gone", time_ns=stamp, id="null"))
            worker = Worker(
                broker, topic, handler, group=group,
                retry=RetryPolicy(max_attempts=3, initial=0.01), on_exhausted=DeadLetter(dead),
            )  # fmt: skip
            async with worker:
                await asyncio.wait_for(worker.idle(), 20)
            found = {record.key(): record for record in records(kafka_server, dead)}
            assert set(found) == {b"k\xff", b"gone"}
            record = found[b"k\xff"]
            pairs = [(name, value.decode()) for name, value in record.headers()]
            said = dict(pairs)
            assert len(said) == len(pairs)
            assert record.value() == b"bad"
            assert said["Trace"] == "t1"
            assert said["x-source-topic"] == topic
            assert said["x-source-partition"] == str(bad.partition)
            assert said["x-source-offset"] == str(bad.offset)
            assert said["x-source-timestamp"] == "2026-03-01T09:30:00.25Z" or re.match(
                r"2026-03-01T09:30:00\.250*Z", said["x-source-timestamp"]
            )
            assert said["x-logical-key"] == "k\\xff"
            assert said["x-attempt"] == "3"
            assert said["x-error"].startswith("ValueError: no")
            assert "\n" not in said["x-error"]
            assert abs(datetime.fromisoformat(said["x-failed-at"]).timestamp() - time.time()) < 60
            assert found[b"gone"].value() is None
            assert dict(found[b"gone"].headers())["x-logical-key"] == b"gone"
            letters = DeadLetters(broker, dead)
            listed = {letter.id: letter for letter in await letters.read()}
            assert set(listed) == {"first", "null"}
            back = listed["first"].restore()
            assert (back.topic, back.key, back.body, back.id) == (topic, b"k\xff", b"bad", "first.r1")
            assert [name for name, _ in back.headers.items() if name.startswith("x-")] in ([], ["x-error"])
            assert isinstance(listed["null"].restore(), Tombstone)
        ends = committed(kafka_server, group, topic, 2)
        assert sum(ends.values()) == 3

    run(story())


def test_dead_letters_of_one_partition(kafka_server):
    """No group there: the record says so."""
    topic = new_topic(kafka_server)

    async def handler(delivery):
        raise ValueError("never")

    async def story():
        write(kafka_server, topic, b"x", key=b"k")
        async with KafkaBroker(kafka_server.bootstrap) as broker:
            worker = Worker(
                broker, topic, handler, subscribe=KafkaPartitionOptions(partition=0),
                retry=RetryPolicy(max_attempts=1), on_exhausted=DeadLetter(f"{topic}.dead"),
            )  # fmt: skip
            async with worker:
                await asyncio.wait_for(worker.idle(), 20)
            (letter,) = await DeadLetters(broker, f"{topic}.dead").read()
            assert letter.group == "partition"

    run(story())


# -- logins ------------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(240)
def test_tls_and_scram(kafka_installed, tmp_path):
    authority = Authority(tmp_path)
    certificate, key = authority.issue("broker", "127.0.0.1")

    def options(password="secret1", mechanism="SCRAM-SHA-512"):
        security = KafkaSecurity(
            protocol="sasl_tls", mechanism=mechanism, username="ann", password=password, ca_file=authority.ca
        )
        return KafkaOptions(security=security)

    async def refused(options):
        began = time.monotonic()
        with pytest.raises(AuthenticationError) as raised:
            async with KafkaBroker(server.bootstrap, options=options):
                pass
        assert time.monotonic() - began < 10
        assert "wrong1" not in str(raised.value)
        assert "secret1" not in str(raised.value)

    async def story():
        for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"):
            async with KafkaBroker(server.bootstrap, options=options(mechanism=mechanism)) as broker:
                await broker.publish(Message(topic="orders", key=b"k", body=mechanism.encode()))
                group = f"of-{mechanism}"
                async with working(broker, "orders", group=group) as found:
                    body = mechanism.encode()
                    await eventually(lambda found=found, body=body: body in found.bodies)
        await refused(options("wrong1"))
        await refused(options("wrong1", "PLAIN"))

    with KafkaServer(
        libs=kafka_installed, tls=Tls(certificate=certificate, key=key), sasl=Sasl(users={"ann": "secret1"})
    ) as server:
        run(story())
