"""The Python clients of Kafka, each asked the same. What is read is measured from the first record to the last."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from benchmarks import pyrallel
from benchmarks.clients import Sample
from benchmarks.tools import Meter
from headrace.core.delivery import Delivery
from headrace.core.message import Message
from headrace.flow.keyed import Ordering
from headrace.flow.middleware import tracing
from headrace.flow.worker import Worker
from headrace.kafka import KafkaBroker, Producer

BATCH = 1_000
OUTSTANDING = 5_000
PATIENCE = 120
FETCHING = {  # what headrace sets for reading, for those over the same driver
    "fetch.queue.backoff.ms": 10, "fetch.wait.max.ms": 100, "queued.max.messages.kbytes": 16_384, "check.crcs": True,
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """What one measurement is of. The topic is there, and full where it is read."""

    kind: str
    address: str
    topic: str
    group: str
    count: int
    keys: int
    body: bytes

    def key(self, number):
        return b"key-%d" % (number % self.keys)


class Arrivals:
    """Wall and CPU from the first record to the last."""

    def __init__(self, count):
        self.left = count
        self.done = asyncio.Event()
        self.sample = None

    def one(self):
        if self.sample is None:
            self.sample = time.perf_counter(), time.process_time()
        self.left -= 1
        if not self.left:
            self.sample = Sample(time.perf_counter() - self.sample[0], time.process_time() - self.sample[1])
            self.done.set()


def recording():
    """A tracer provider that makes every span, and gives it to nobody."""
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SpanProcessor())  # the interface itself: does nothing
    return provider


@dataclass
class Headrace:
    """Ours."""

    name: str = "headrace"
    meter: Meter = field(default_factory=Meter)

    def measure(self, run):
        return asyncio.run(getattr(self, run.kind.partition(" ")[0])(run)) or Sample(self.meter.wall, self.meter.cpu)

    async def consume(self, run):
        arrivals = Arrivals(run.count)
        suspends = "suspends" in run.kind

        async def handler(delivery: Delivery):
            if suspends:
                await asyncio.sleep(0)
            arrivals.one()

        async with KafkaBroker(run.address) as broker:
            worker = Worker(broker, run.topic, handler, group=run.group)
            running = asyncio.create_task(worker.run())
            await asyncio.wait_for(arrivals.done.wait(), PATIENCE)
            await worker.shutdown()
            await running
        return arrivals.sample

    async def produce_many(self, run):
        messages = [Message(topic=run.topic, key=run.key(n), body=run.body) for n in range(run.count)]
        async with Producer(KafkaBroker(run.address), max_outstanding=OUTSTANDING) as producer:
            await producer.produce(messages[0])
            with self.meter:
                for first in range(0, run.count, 10 * BATCH):
                    await producer.produce_many(messages[first : first + 10 * BATCH])

    async def produce_async(self, run, **options):
        messages = [Message(topic=run.topic, key=run.key(n), body=run.body) for n in range(run.count)]
        async with Producer(KafkaBroker(run.address), max_outstanding=OUTSTANDING, **options) as producer:
            await producer.produce(messages[0])
            with self.meter:
                futures = [await producer.produce_async(message) for message in messages]
                for future in futures:
                    await future

    async def produce_traced(self, run):
        provider = recording() if "recorded" in run.kind else None
        await self.produce_async(run, middleware=[tracing.send(tracer_provider=provider)])

    async def produce_one(self, run):
        async with Producer(KafkaBroker(run.address)) as producer:
            message = Message(topic=run.topic, key=b"k", body=run.body)
            await producer.produce(message)
            with self.meter:
                for _ in range(run.count):
                    await producer.produce(message)

    async def produce_total(self, run):
        await self.produce_async(replace(run), ordering=Ordering.TOTAL)


class Confluent:
    """The driver under ours, used as its own examples do: no order of keys, no retries, the fastest there is."""

    name = "confluent"

    def measure(self, run):
        meter = getattr(self, run.kind.partition(" ")[0])(run)
        return meter if isinstance(meter, Sample) else Sample(meter.wall, meter.cpu)

    def producer(self, run):
        from confluent_kafka import Producer as Raw

        settings = {
            "bootstrap.servers": run.address, "enable.idempotence": True, "acks": "all", "linger.ms": 5,
            "queue.buffering.max.messages": 1_000_000, "queue.buffering.max.kbytes": 1_048_576,
        }  # fmt: skip
        raw = Raw(settings)
        raw.produce(run.topic, run.body, b"k")
        raw.flush()
        return raw

    def consume(self, run):
        from confluent_kafka import Consumer

        settings = {
            "bootstrap.servers": run.address, "group.id": run.group, "auto.offset.reset": "earliest",
        }  # fmt: skip
        consumer = Consumer(settings | FETCHING)
        consumer.subscribe([run.topic])
        got, began = 0, None
        while got < run.count:
            records = consumer.consume(500, 1.0)
            if records and began is None:
                began = time.perf_counter(), time.process_time()
            for record in records:
                record.value()
                record.key()
            got += len(records)
        sample = Sample(time.perf_counter() - began[0], time.process_time() - began[1])
        consumer.close()
        return sample

    def produce_many(self, run):
        raw, results = self.producer(run), []
        with Meter() as meter:
            for n in range(run.count):
                raw.produce(run.topic, run.body, run.key(n), on_delivery=lambda error, record: results.append(error))
                if n % BATCH == 0:
                    raw.poll(0)
            raw.flush()
        return meter

    def produce_one(self, run):
        raw = self.producer(run)
        with Meter() as meter:
            for _ in range(run.count):
                raw.produce(run.topic, run.body, b"k")
                raw.flush()
        return meter


class ConfluentAsync:
    """The driver's own asyncio producer."""

    name = "AIOProducer"

    def measure(self, run):
        return asyncio.run(self.produce_async(run))

    async def produce_async(self, run):
        from confluent_kafka.aio import AIOProducer

        producer = AIOProducer(
            {"bootstrap.servers": run.address, "enable.idempotence": True, "acks": "all", "linger.ms": 5}
        )
        try:
            await (await producer.produce(run.topic, value=run.body, key=b"k"))
            with Meter() as meter:
                futures = []
                for n in range(run.count):
                    futures.append(await producer.produce(run.topic, value=run.body, key=run.key(n)))
                    if len(futures) >= OUTSTANDING:
                        await asyncio.gather(*futures)
                        futures.clear()
                await producer.flush()
                await asyncio.gather(*futures)
        finally:
            await producer.close()
        return Sample(meter.wall, meter.cpu)


class AioKafka:
    """aiokafka, as its documentation shows it."""

    name = "aiokafka"

    def measure(self, run):
        return asyncio.run(getattr(self, run.kind.partition(" ")[0])(run))

    async def consume(self, run):
        from aiokafka import AIOKafkaConsumer

        arrivals = Arrivals(run.count)
        consumer = AIOKafkaConsumer(
            run.topic, bootstrap_servers=run.address, group_id=run.group, auto_offset_reset="earliest"
        )
        await consumer.start()
        try:
            async for _ in consumer:
                if "suspends" in run.kind:
                    await asyncio.sleep(0)
                arrivals.one()
                if arrivals.done.is_set():
                    break
        finally:
            await consumer.stop()
        return arrivals.sample

    async def _produced(self, run, send: Callable):
        from aiokafka import AIOKafkaProducer

        producer = AIOKafkaProducer(bootstrap_servers=run.address, enable_idempotence=True, acks="all", linger_ms=5)
        await producer.start()
        try:
            await producer.send_and_wait(run.topic, run.body, key=b"k")
            with Meter() as meter:
                await send(producer)
        finally:
            await producer.stop()
        return Sample(meter.wall, meter.cpu)

    async def produce_async(self, run):
        async def send(producer):
            futures = []
            for n in range(run.count):
                futures.append(await producer.send(run.topic, run.body, key=run.key(n)))
                if len(futures) >= OUTSTANDING:
                    await asyncio.gather(*futures)
                    futures.clear()
            await asyncio.gather(*futures)

        return await self._produced(run, send)

    async def produce_one(self, run):
        async def send(producer):
            for _ in range(run.count):
                await producer.send_and_wait(run.topic, run.body, key=b"k")

        return await self._produced(run, send)


class FastStream:
    """FastStream over confluent-kafka, with the driver's settings for fetching that the others over it have."""

    name = "FastStream"

    def measure(self, run):
        return asyncio.run(self.consume(run))

    async def consume(self, run):
        import logging

        from faststream.confluent import KafkaBroker as Broker

        logging.getLogger("faststream").setLevel(logging.ERROR)
        arrivals = Arrivals(run.count)
        broker = Broker(run.address, logger=None, config=FETCHING)

        @broker.subscriber(run.topic, group_id=run.group, auto_offset_reset="earliest", polling_interval=0.01)
        async def handler(body: bytes):
            if "suspends" in run.kind:
                await asyncio.sleep(0)
            arrivals.one()

        await broker.start()
        await asyncio.wait_for(arrivals.done.wait(), PATIENCE)
        await broker.stop()
        return arrivals.sample


@dataclass
class Pyrallel:
    """pyrallel-consumer, the nearest peer, in a process of its own; what it has no time for counts at the same rate."""

    name: str = "pyrallel"
    more: tuple[str, ...] = ()

    def measure(self, run):
        got = pyrallel.read(run, *self.more)
        if got["handled"] < run.count:
            print(f"\n{self.name}: {got['handled']:,} of {run.count:,} in {got['seconds']:.0f} s, so many are measured")
        share = run.count / got["handled"]
        return Sample(got["seconds"] * share, got["cpu"] * share)


READERS = (Headrace(), Confluent(), AioKafka(), FastStream())
CLIENTS = {
    "consume": (*READERS, Pyrallel(), Pyrallel("pyrallel tuned", ("tuned",))),
    "consume suspends once": READERS,
    "consume unique keys": READERS,
    "produce_many": (Headrace(), Confluent()),
    "produce_async": (Headrace(), ConfluentAsync(), AioKafka()),
    "produce_traced": (Headrace(),),
    "produce_traced recorded": (Headrace(),),
    "produce_one": (Headrace(), Confluent(), AioKafka()),
    "produce_total": (Headrace(),),
}
