"""A trace from the sender through Kafka into the handler, and on into what the handler sends; one span per attempt.

It needs an SDK (``pip install 'headrace[otel]' opentelemetry-sdk``). Run it against a Kafka: ``python
examples/kafka_trace.py``. See settings.py for what the environment may say.
"""

import asyncio

import settings
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from headrace import RetryPolicy, Topic, Worker
from headrace.core.delivery import Delivery
from headrace.flow.middleware import tracing
from headrace.kafka import KafkaBroker
from headrace.testing import run_until_idle

spans = InMemorySpanExporter()  # in real life: OTLP, and a BatchSpanProcessor
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))


async def main() -> None:
    """Send one message, fail once, answer on another topic; then print the tree."""
    given = settings.read()
    async with KafkaBroker(given.brokers) as broker, asyncio.timeout(given.timeout):
        orders = Topic(broker, f"{given.topic}.traced", middleware=[tracing.send(tracer_provider=provider)])
        bills = Topic(broker, f"{given.topic}.bills", middleware=[tracing.send(tracer_provider=provider)])

        async def handle(delivery: Delivery) -> None:
            if delivery.attempt == 1:
                raise ConnectionError("no answer")
            await bills.send(delivery.message.body)

        await orders.send("one", key="alice")
        worker = Worker(
            broker,
            orders.name,
            handle,
            group=given.group,
            retry=RetryPolicy(initial=0.1),
            middleware=[tracing.receive(tracer_provider=provider)],
        )
        await run_until_idle(worker)


asyncio.run(main())
names = {span.context.span_id: span.name for span in spans.get_finished_spans()}
for span in spans.get_finished_spans():
    facts = dict(span.attributes or {})
    place = f"{facts.get('messaging.destination.partition.id')}@{facts.get('messaging.kafka.offset')}"
    parent = names.get(span.parent.span_id) if span.parent else None
    print(f"{span.name:40} {span.status.status_code.name:6} {place:8} child of {parent}")
