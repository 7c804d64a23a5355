"""What is known as soon as it is open: certificates that do not fit, and how much is left to do."""

import asyncio

import pytest
from confluent_kafka import Producer as RawProducer

from headrace.core.message import Message
from headrace.flow.worker import Worker
from headrace.kafka import topics
from headrace.kafka.broker import KafkaBroker
from headrace.kafka.errors import AuthenticationError
from headrace.kafka.options import KafkaOptions, KafkaSecurity
from headrace.kafka.reading import KafkaPartitionOptions, KafkaSubscribeOptions
from headrace.kafka.stores import MemoryOffsetStore
from headrace.testing.idle import run_until_idle
from headrace.testing.kafka import KafkaServer, Tls
from tests.integration.kafka.raw import commit, new_name, new_topic, run, write
from tests.integration.nats.certificates import Authority

pytestmark = pytest.mark.servers


@pytest.mark.timeout(120)
def test_a_certificate_that_is_refused_ends_the_open_at_once(kafka_installed, tmp_path, monkeypatch):
    """Whoever only waits until the time for an answer is over waits longer than this test."""
    monkeypatch.setattr(topics, "_PATIENCE", 600)
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
    authority, stranger = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    certificate, key = authority.issue("broker", "127.0.0.1")
    good, bad = authority.issue("client", "client"), stranger.issue("client", "client")

    def options(ca, client=None):
        files = {} if client is None else {"certificate_file": client[0], "key_file": client[1]}
        return KafkaOptions(security=KafkaSecurity(protocol="tls", ca_file=ca, **files))

    async def refused(options, said):
        with pytest.raises(AuthenticationError, match=said):
            await KafkaBroker(server.bootstrap, options=options).open()

    async def story():
        async with KafkaBroker(server.bootstrap, options=options(authority.ca, good)) as broker:
            await broker.publish(Message(topic="orders", body=b"x"))
        await refused(options(stranger.ca, good), "certificate verify failed")
        await refused(options(authority.ca), "alert")
        await refused(options(authority.ca, bad), "alert")

    tls = Tls(certificate=certificate, key=key, clients=authority.ca)
    with KafkaServer(libs=kafka_installed, tls=tls) as server:
        run(story())


@pytest.mark.parametrize(
    ("kind", "policy", "left"),
    [
        ("group", "earliest", 3), ("group", "latest", 0),
        ("partition", "earliest", 3), ("partition", "stop", 3), ("partition", "latest", 0),
    ],
)  # fmt: skip
def test_a_place_behind_the_end_is_not_nothing_left(kafka_server, kind, policy, left):
    """A topic that was made anew: the group stands where the old one ended."""

    async def story():
        topic, group, store = new_topic(kafka_server), new_name("group"), MemoryOffsetStore()
        write(kafka_server, topic, b"0", b"1", b"2")
        commit(kafka_server, group, topic, 100)
        await store.save(topic, 0, 100)
        if kind == "group":
            options = KafkaSubscribeOptions(group=group, on_out_of_range=policy)
        else:
            options = KafkaPartitionOptions(partition=0, offset_store=store, on_out_of_range=policy)
        async with (
            KafkaBroker(kafka_server.bootstrap) as broker,
            broker.subscribe(topic, options) as subscription,
        ):
            assert await subscription.backlog() == left

    run(story())


def test_a_worker_is_not_idle_before_it_has_gone_back(kafka_server):
    async def story():
        topic, group, found = new_topic(kafka_server), new_name("group"), []
        write(kafka_server, topic, b"0", b"1", b"2")
        commit(kafka_server, group, topic, 100)

        async def handler(body: bytes):
            found.append(body)

        async with KafkaBroker(kafka_server.bootstrap) as broker:
            options = KafkaSubscribeOptions(on_out_of_range="earliest")
            await asyncio.wait_for(run_until_idle(Worker(broker, topic, handler, group=group, subscribe=options)), 30)
        assert found == [b"0", b"1", b"2"]

    run(story())


def test_what_an_open_transaction_hides_is_not_left(kafka_server):
    """A place that is behind the last committed record, and not behind the last one, is no place out of range."""

    async def story():
        topic, group = new_topic(kafka_server), new_name("group")
        write(kafka_server, topic, b"0", b"1")
        producer = open_transaction(kafka_server, topic, b"2", b"3")
        commit(kafka_server, group, topic, 4)
        options = KafkaSubscribeOptions(group=group, on_out_of_range="earliest")
        async with (
            KafkaBroker(kafka_server.bootstrap) as broker,
            broker.subscribe(topic, options) as subscription,
        ):
            assert await subscription.backlog() == 0
        producer.abort_transaction(10)

    run(story())


def open_transaction(server, topic, *values):
    """Stored by a transaction that goes on; its producer."""
    settings = {"bootstrap.servers": server.bootstrap, "transactional.id": new_name("transaction"), "log_level": "0"}
    producer = RawProducer(settings)
    producer.init_transactions(20)
    producer.begin_transaction()
    for value in values:
        producer.produce(topic, value, partition=0)
    assert producer.flush(20) == 0
    return producer
