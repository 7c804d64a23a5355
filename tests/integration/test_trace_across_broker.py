"""A trace across each engine: from the span that sends to the one that processes, and on to the next topic."""

import asyncio

import pytest
from opentelemetry import baggage, context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from headrace import Delivery, Topic, Worker, connect
from headrace.core.message import new_id
from headrace.flow.middleware import Base64Decode, Base64Encode, Compress, Decompress, tracing
from headrace.testing.idle import run_until_idle
from headrace.testing.nats import NatsServer
from headrace.testing.plugin import kafka_installed, kafka_server  # noqa: F401  (pytest finds them here)
from headrace.testing.virtual import VirtualLoop

SYSTEMS = {"memory": "headrace", "directory": "headrace", "server": "nats", "kafka": "kafka"}


@pytest.fixture(params=SYSTEMS)
def place(request, tmp_path):
    if request.param == "server":
        with NatsServer() as server:
            yield request.param, server.url
    elif request.param == "kafka":
        yield request.param, f"kafka://{request.getfixturevalue('kafka_server').bootstrap}"
    else:
        yield request.param, ":memory:" if request.param == "memory" else str(tmp_path / "data")


def run(kind, coroutine):
    with asyncio.Runner(loop_factory=None if kind in {"server", "kafka"} else VirtualLoop) as runner:
        runner.run(asyncio.wait_for(coroutine, 50))


def first_of(system, topic):
    """What an engine says of the first message of a topic once it is stored; the partition is by chance."""
    if system == "kafka":
        return {"messaging.system": system, "messaging.kafka.offset": 0, "messaging.client.id": "headrace"}
    return {"messaging.system": system, "headrace.stream": topic, "headrace.sequence": 1}


def facts_of(system, topic, group):
    """What it says where that message is delivered to a group for the first time."""
    if system == "kafka":
        return first_of(system, topic) | {"headrace.kafka.epoch": 1}
    return first_of(system, topic) | {"headrace.consumer": f"{group}@{topic}", "headrace.num_delivered": 1}


def test_a_trace_goes_from_topic_to_topic(place):
    kind, url = place
    own = new_id()  # others may be at the same server
    orders, bills, group = f"orders-{own}", f"bills-{own}", f"post-{own}"
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    sending = [tracing.send(tracer_provider=provider), Compress(min_size=0), Base64Encode()]
    receiving = [tracing.receive(tracer_provider=provider), Base64Decode(), Decompress()]
    seen = []

    async def tell():
        async with connect(url) as broker:
            billed = Topic(broker, bills, middleware=sending)

            async def bill(body: bytes, delivery: Delivery) -> None:
                await billed.send(body, id=f"bill-{delivery.message.id}")

            def post(body: bytes, delivery: Delivery) -> None:  # a plain function: in a thread
                seen.append((body, baggage.get_baggage("shop"), dict(delivery.attributes())))

            token = context.attach(baggage.set_baggage("shop", "7"))
            await Topic(broker, orders, middleware=sending).send(b"order " * 50, id="1")
            context.detach(token)
            await run_until_idle(Worker(broker, orders, bill, group=group, middleware=receiving))
            await run_until_idle(Worker(broker, bills, post, group=group, middleware=receiving))

    run(kind, tell())
    spans = exporter.get_finished_spans()
    story = [f"{deed} {topic}" for topic in (orders, bills) for deed in ("send", "process")]
    assert sorted(span.name for span in spans) == sorted(story)
    first, *rest = sorted(spans, key=lambda span: story.index(span.name))
    assert first.parent is None
    for before, after in zip([first, *rest], rest, strict=False):
        assert (after.parent.trace_id, after.parent.span_id) == (before.context.trace_id, before.context.span_id)
    ((body, shop, facts),) = seen
    assert (body, shop) == (b"order " * 50, "7")
    assert rest[-1].attributes.items() >= facts.items()
    facts.pop("messaging.destination.partition.id", None)
    assert facts == facts_of(SYSTEMS[kind], bills, group)
    assert first.attributes.items() >= first_of(SYSTEMS[kind], orders).items()
