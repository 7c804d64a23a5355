"""The Python clients of NATS, each asked the same; nats-py and natsio are their newest for Python 3.11.

nats-jetstream 0.3 is missing: what it imports (nats.client, of nats-core) is not on the registry, only its name is.
natsio 0.2 is the last for Python 3.11, and knows no JetStream.
"""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec

from benchmarks.tools import Meter
from headrace import jetstream, nats
from headrace.core.message import Message
from headrace.flow.worker import Worker
from headrace.streams import OrderedConsumerConfig, PullOptions, StreamBroker

KINDS = (
    "publish_pipelined", "publish_sync", "consume_ack", "fetch_ack", "ordered_read", "core_publish", "core_pubsub",
)  # fmt: skip
SEAM = ("seam_publish_batch", "seam_worker")
BATCH = 1_000
PATIENCE = 60


@dataclass(frozen=True)
class Sample:
    """Wall and CPU seconds of the client's process."""

    seconds: float
    cpu: float


@dataclass(frozen=True)
class Run:
    """What one measurement is of; the stream is there, and holds `count` messages where it is read."""

    kind: str
    url: str
    count: int
    window: int
    body: bytes
    certificate: str | None = None
    stream: str = "S"
    consumer: str = "c"
    subject: str = "s.a"

    def tls(self):
        return ssl.create_default_context(cafile=self.certificate) if self.certificate else None


@dataclass
class PythonClient:
    """On a loop of its own per measurement."""

    loop: Callable[[], asyncio.AbstractEventLoop] | None = None
    suffix: str = ""
    meter: Meter = field(default_factory=Meter)

    def measure(self, run):
        with asyncio.Runner(loop_factory=self.loop) as runner:
            runner.run(getattr(self, run.kind)(run))
        return Sample(self.meter.wall, self.meter.cpu)


class Headrace(PythonClient):
    """Ours."""

    kinds = KINDS + SEAM

    @property
    def name(self):
        return f"headrace{self.suffix}"

    def opened(self, run, **options):
        connection = nats.ConnectionOptions(tls=run.tls())
        options = jetstream.JetStreamOptions(connection=connection, timeout=PATIENCE, **options)
        return jetstream.connect(run.url, options=options)

    def connected(self, run):
        return nats.Connection(run.url, nats.ConnectionOptions(tls=run.tls()))

    async def publish_pipelined(self, run):
        async with self.opened(run, max_pending=run.window) as js:
            with self.meter:
                futures = [await js.publish_async(run.subject, run.body) for _ in range(run.count)]
                for future in futures:
                    await future

    async def publish_sync(self, run):
        async with self.opened(run) as js:
            with self.meter:
                for _ in range(run.count):
                    await js.publish(run.subject, run.body)

    async def consume_ack(self, run):
        async with self.opened(run) as js:
            consumer = await js.consumer(run.stream, run.consumer)
            with self.meter:
                options = PullOptions(max_messages=run.window, stop_after=run.count)
                async with consumer.messages(options) as messages:
                    async for msg in messages:
                        await msg.ack()
                await js.connection.flush(PATIENCE)

    async def fetch_ack(self, run):
        async with self.opened(run) as js:
            consumer, got = await js.consumer(run.stream, run.consumer), 0
            with self.meter:
                while got < run.count:
                    for msg in await consumer.fetch(min(run.window, run.count - got)):
                        await msg.ack()
                        got += 1
                await js.connection.flush(PATIENCE)

    async def ordered_read(self, run):
        async with self.opened(run) as js:
            consumer = await js.ordered_consumer(run.stream, OrderedConsumerConfig())
            with self.meter:
                options = PullOptions(max_messages=run.window, stop_after=run.count)
                async with consumer.messages(options) as messages:
                    async for _ in messages:
                        pass

    async def core_publish(self, run):
        async with self.connected(run) as connection:
            with self.meter:
                for _ in range(run.count):
                    connection.publish("core.a", run.body)
                    if connection.full:
                        await connection.room()
                await connection.flush(PATIENCE)

    async def core_pubsub(self, run):
        async with self.connected(run) as connection:
            left, done = [run.count], asyncio.Event()

            def callback(subject, reply, header, data):
                left[0] -= 1
                if not left[0]:
                    done.set()

            connection.subscribe("core.a", callback)
            with self.meter:
                for number in range(run.count):
                    connection.publish("core.a", run.body)
                    if number % BATCH == 0:
                        await connection.room()
                        await asyncio.sleep(0)
                await asyncio.wait_for(done.wait(), PATIENCE)

    async def seam_publish_batch(self, run):
        async with self.opened(run) as js:
            broker = StreamBroker(js)
            made = [Message(topic=run.subject, body=run.body) for _ in range(run.count)]
            batches = [made[start : start + BATCH] for start in range(0, run.count, BATCH)]
            with self.meter:
                for batch in batches:
                    await broker.publish_batch(batch)

    async def seam_worker(self, run):
        async with self.opened(run) as js:
            left, done = [run.count], asyncio.Event()

            async def handler(message: Message):
                left[0] -= 1
                if not left[0]:
                    done.set()

            worker = Worker(StreamBroker(js), run.subject, handler, group=run.consumer)
            with self.meter:
                running = asyncio.ensure_future(worker.run())
                await asyncio.wait_for(done.wait(), PATIENCE)
                await worker.shutdown()
                await running


class NatsPy(PythonClient):
    """The client of the makers of NATS."""

    kinds = KINDS

    @property
    def name(self):
        return f"nats-py{self.suffix}"

    async def connected(self, run):
        import nats as nats_py

        return await nats_py.connect(
            run.url.replace("nats://", "tls://") if run.certificate else run.url, tls=run.tls()
        )

    async def publish_pipelined(self, run):
        connection = await self.connected(run)
        js = connection.jetstream(publish_async_max_pending=run.window)
        with self.meter:
            futures = [await js.publish_async(run.subject, run.body) for _ in range(run.count)]
            for future in futures:
                await future
        await connection.close()

    async def publish_sync(self, run):
        connection = await self.connected(run)
        js = connection.jetstream()
        with self.meter:
            for _ in range(run.count):
                await js.publish(run.subject, run.body)
        await connection.close()

    async def fetch_ack(self, run):
        connection = await self.connected(run)
        subscription = await connection.jetstream().pull_subscribe_bind(run.consumer, run.stream)
        got = 0
        with self.meter:
            while got < run.count:
                for msg in await subscription.fetch(min(run.window, run.count - got)):
                    await msg.ack()
                    got += 1
            await connection.flush(PATIENCE)
        await connection.close()

    consume_ack = fetch_ack  # it has nothing continuous

    async def ordered_read(self, run):
        connection = await self.connected(run)
        subscription = await connection.jetstream().subscribe(run.subject, stream=run.stream, ordered_consumer=True)
        with self.meter:
            for _ in range(run.count):
                await subscription.next_msg(PATIENCE)
        await connection.close()

    async def core_publish(self, run):
        connection = await self.connected(run)
        with self.meter:
            for _ in range(run.count):
                await connection.publish("core.a", run.body)
            await connection.flush(PATIENCE)
        await connection.close()

    async def core_pubsub(self, run):
        connection = await self.connected(run)
        left, done = [run.count], asyncio.Event()

        async def callback(_):
            left[0] -= 1
            if not left[0]:
                done.set()

        await connection.subscribe("core.a", cb=callback, pending_msgs_limit=-1, pending_bytes_limit=-1)
        with self.meter:
            for number in range(run.count):
                await connection.publish("core.a", run.body)
                if number % BATCH == 0:
                    await asyncio.sleep(0)
            await asyncio.wait_for(done.wait(), PATIENCE)
        await connection.close()


class NatsIo(PythonClient):
    """Core NATS only; it takes no part in core_pubsub, where its parser loses its place in what comes fast."""

    kinds = ("core_publish",)

    @property
    def name(self):
        return f"natsio{self.suffix}"

    def connected(self, run):
        from natsio.client import ClientConfig, NATSCore

        async def ignored(_):
            """It cannot read all that a server says; what it sends arrives."""

        return NATSCore(ClientConfig(servers=[run.url]), ignored)

    async def core_publish(self, run):
        async with self.connected(run) as connection:
            with self.meter:
                for _ in range(run.count):
                    await connection.publish("core.a", run.body)
                await connection.flush()


def python_clients():
    """All that are installed, ours on uvloop as well; what is missing is said aloud."""
    found, loops = [], [(None, "")]
    if find_spec("uvloop"):
        import uvloop

        loops.append((uvloop.new_event_loop, " (uvloop)"))
    for loop, suffix in loops:
        found.append(Headrace(loop, suffix))
        if find_spec("nats"):
            found.append(NatsPy(loop, suffix))
    if find_spec("natsio"):
        found.append(NatsIo())
    missing = [name for name in ("uvloop", "nats", "natsio") if not find_spec(name)]
    if missing:
        print(f"SKIPPED: {', '.join(missing)} not installed (make bench installs the extra `bench`)")
    return found
