"""The Kafkas that tests start: they answer, die, come back with what they had, and leave nothing."""

import time

from confluent_kafka import Consumer, Producer

from headrace.testing.kafka import KafkaServer
from headrace.testing.plugin import kafka_server  # noqa: F401  (pytest finds it here)

QUIET = {"log_level": "0"}


def produce(bootstrap, topic, *values, **options):
    """The errors of these values, in order; none is None."""
    errors = []
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, **QUIET, **options})
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _: errors.append(error))
    producer.flush(30)
    return errors


def consume(bootstrap, topic, count, **options):
    """The first values of this topic."""
    settings = {"group.id": f"of {topic}", "auto.offset.reset": "earliest"} | QUIET | options
    consumer = Consumer({"bootstrap.servers": bootstrap, **settings})
    consumer.subscribe([topic])
    found, deadline = [], time.monotonic() + 30
    while len(found) < count and time.monotonic() < deadline:
        found += [message.value() for message in consumer.consume(count, 0.2) if not message.error()]
    consumer.close()
    return found


def test_what_is_produced_is_consumed(kafka_server):  # noqa: F811
    kafka_server.create_topic("servers-round", 4)
    assert produce(kafka_server.bootstrap, "servers-round", b"a", b"b", b"c") == [None] * 3
    assert sorted(consume(kafka_server.bootstrap, "servers-round", 3)) == [b"a", b"b", b"c"]


def test_comes_back_on_the_same_port_and_data():
    began = time.monotonic()
    with KafkaServer() as kafka:
        print(f"\nready after {time.monotonic() - began:.1f} s")
        kafka.create_topic("orders")
        for number, end in enumerate((kafka.kill, kafka.stop)):
            assert produce(kafka.bootstrap, "orders", f"{number}".encode()) == [None]
            first = kafka.pid
            end()
            assert not kafka.running
            began = time.monotonic()
            kafka.start()
            print(f"{end.__name__}: ready again after {time.monotonic() - began:.1f} s")
            assert kafka.pid != first
        assert consume(kafka.bootstrap, "orders", 2) == [b"0", b"1"]
