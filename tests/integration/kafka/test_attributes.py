"""Where a message stands, as its span, the log and a failure event tell it: one truth, and that of the receipt."""

import logging
from dataclasses import dataclass, field

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from headrace.core.message import Message
from headrace.flow import DROP, RetryPolicy, Worker
from headrace.flow.judge import FailureStage
from headrace.flow.middleware import logging as carried
from headrace.flow.middleware import tracing
from headrace.kafka import (
    GroupConsumer,
    KafkaBroker,
    KafkaOptions,
    KafkaPartitionOptions,
    KafkaSubscribeOptions,
    PartitionConsumer,
)
from tests.integration.kafka.raw import eventually, run

pytestmark = pytest.mark.servers

PARTITIONS = 4
NEIGHBOURS = b"before", b"before", b"before", b"bad", b"behind"
SYSTEM, PARTITION, OFFSET = "messaging.system", "messaging.destination.partition.id", "messaging.kafka.offset"


@dataclass
class Telling:
    """What a worker is told to tell: spans, lines of the logger `name`, failure events."""

    name: str
    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    events: list = field(default_factory=list)

    def options(self):
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        layers = [tracing.receive(tracer_provider=provider), carried.receive(logging.getLogger(self.name))]
        retry = RetryPolicy(max_attempts=2, initial=0)
        return {"middleware": layers, "on_failure": self.events.append, "retry": retry, "on_exhausted": DROP}

    def spans(self, message):
        return [s for s in self.exporter.get_finished_spans() if s.attributes["messaging.message.id"] == message.id]

    def lines(self, caplog, message):
        said = [record.getMessage() for record in caplog.records if record.name == self.name]
        return [line for line in said if message.id in line]


def told_in(line):
    """The facts at the end of a line of the logging middleware."""
    return dict(word.split("=", 1) for word in line.split() if "=" in word)


async def publish(broker, *bodies):
    """All to one partition that is not the first; where the one to watch went."""
    messages = [Message(topic="orders", key=b"ann", body=body) for body in bodies]
    receipts = await broker.publish_batch(messages)
    place = bodies.index(b"bad")
    receipt = receipts[place]
    assert (receipt.partition > 0, receipt.offset) == (True, place)
    return messages[place], receipt


def made(kind, broker, handler, partition, **options):
    if kind == "group":
        subscribe = KafkaSubscribeOptions(group_protocol="consumer")
        return GroupConsumer(broker, "orders", handler, group="billing", subscribe=subscribe, **options)
    subscribe = KafkaPartitionOptions(partition=partition)
    return PartitionConsumer(broker, "orders", handler, subscribe=subscribe, **options)


@pytest.mark.parametrize("kind", ["group", "partition"])
def test_attributes_reach_span_log_event(kind, kafka_mock, caplog):
    """It fails once: the span and the event of that run, and span and line of the good one, say the same of it."""
    kafka_mock.create_topic("orders", PARTITIONS)
    telling, runs = Telling("test.attributes"), []

    async def handler(delivery):
        runs.append(delivery.message.body)
        if delivery.message.body == b"bad" and delivery.attempt == 1:
            raise KeyError("no")

    async def story():
        options = KafkaOptions(client_id="billing-1")
        async with KafkaBroker(kafka_mock.bootstrap, options=options) as broker:
            watched, receipt = await publish(broker, *NEIGHBOURS)
            async with made(kind, broker, handler, receipt.partition, **telling.options()) as worker:
                await eventually(lambda: worker.stats.acked == len(NEIGHBOURS))
            return watched, receipt

    with caplog.at_level(logging.DEBUG, telling.name):
        watched, receipt = run(story())
    assert runs.count(b"bad") == 2
    first, second = telling.spans(watched)
    assert [span.attributes["headrace.attempt"] for span in (first, second)] == [1, 2]
    assert [span.status.status_code for span in (first, second)] == [StatusCode.ERROR, StatusCode.UNSET]
    (line,), (event,) = telling.lines(caplog, watched), telling.events
    assert (event.message.id, event.stage, event.will_retry) == (watched.id, FailureStage.RETRY, True)
    facts = {SYSTEM: "kafka", PARTITION: str(receipt.partition), OFFSET: receipt.offset}
    facts |= {"messaging.client.id": "billing-1", "messaging.kafka.message.key": "ann", "headrace.kafka.epoch": 1}
    assert event.attributes == facts
    assert event.position == receipt.position
    for span in (first, second):
        assert span.attributes.items() >= facts.items()
    assert told_in(line) == {name: str(value) for name, value in facts.items()}
    assert receipt.attributes().items() <= facts.items()


def test_every_stage_says_where_it_was(kafka_mock):
    """Of a message that is given up, each event, beside others that fail in other partitions."""
    kafka_mock.create_topic("orders", PARTITIONS)
    telling = Telling("test.attributes")

    async def handler(delivery):
        raise KeyError("no")

    async def story():
        async with KafkaBroker(kafka_mock.bootstrap) as broker:
            messages = [Message(topic="orders", key=key, body=b"") for key in (b"ann", b"k1", b"k3", b"ann", b"k1")]
            receipts = await broker.publish_batch(messages)
            places = [(receipt.partition, receipt.offset) for receipt in receipts]
            assert places == [(2, 0), (1, 0), (0, 0), (2, 1), (1, 1)]
            worker = Worker(broker, "orders", handler, group="billing", **telling.options())
            async with worker:
                await eventually(lambda: worker.stats.dropped == len(messages))
            return dict(zip([message.id for message in messages], receipts, strict=True))

    receipts = run(story())
    stages = [FailureStage.RETRY, FailureStage.RETRY, FailureStage.EXHAUSTED, FailureStage.DROP]
    for name, receipt in receipts.items():
        told = [event for event in telling.events if event.message.id == name]
        assert [event.stage for event in told] == stages
        for event in told:
            assert event.attributes.items() >= receipt.attributes().items()
            assert event.position == receipt.position
