"""Reading across a killed server, a cut and a half-open link, a change of leader: it goes on, and loses nothing."""

import asyncio
import time
from contextlib import asynccontextmanager

import pytest

from headrace.core.broker import SubscribeOptions
from headrace.core.delivery import ACK
from headrace.core.errors import ClosedError, ConnectionLostError
from headrace.core.message import Message
from headrace.jetstream.jetstream import connect
from headrace.jetstream.options import JetStreamOptions
from headrace.nats.options import ConnectionOptions
from headrace.streams.broker import StreamBroker
from headrace.streams.config import ConsumerConfig, OrderedConsumerConfig, StreamConfig
from headrace.streams.errors import NoHeartbeatError, StreamError
from headrace.streams.options import PullOptions, StreamMessage
from headrace.streams.session import SessionOptions
from headrace.testing.nats import Direction, NatsCluster, NatsServer, Proxy
from tests.integration.jetstream.consuming import FAST, PATIENCE, durable, run, somebody_waits, stream_of, until

HEARTBEAT = 1.0
KINDS = ("messages", "consume", "fetch", "ordered", "subscription", "private")


@pytest.fixture
def server(tmp_path):
    with NatsServer(tmp_path) as running:
        yield running


class Sight:
    """What a reader has seen, and when its first sight after a fault was."""

    def __init__(self):
        self.seen = []
        self.errors = []

    def error(self, _, error):
        self.errors.append(error)

    async def has(self, wanted):
        async def holds():
            return wanted <= set(self.seen)

        await until(holds, "all of them seen")


@asynccontextmanager
async def reader(kind, js, stream, sight):
    """Reads for ever, in one of the ways."""
    options = PullOptions(heartbeat=HEARTBEAT)
    if kind in {"subscription", "private"}:
        group = "g" if kind == "subscription" else None
        subscribed = StreamBroker(js).subscribe(f"{stream.name}.x", SubscribeOptions(group=group, lease=2.0))
        async with subscribed as subscription, _running(_pull(subscription, sight)):
            yield
        return
    if kind == "ordered":
        consumer = await stream.ordered_consumer(OrderedConsumerConfig())
    else:
        consumer = await durable(stream, ack_wait=2.0)
    if kind == "consume":
        async with consumer.consume(lambda msg: _handle(msg, sight), options, error_handler=sight.error):
            yield
    elif kind == "fetch":
        async with _running(_fetch(consumer, sight)):
            yield
    else:
        messages = consumer.messages(options, error_handler=sight.error)
        async with messages, _running(_iterate(messages, sight)):
            yield


@asynccontextmanager
async def _running(coroutine):
    task = asyncio.create_task(coroutine)
    try:
        yield
    finally:
        task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(outcome, asyncio.CancelledError | None), outcome


async def _handle(msg, sight):
    sight.seen.append(int(msg.data))
    await msg.ack()


async def _iterate(messages, sight):
    while True:
        try:
            async for msg in messages:
                await _handle(msg, sight)
        except NoHeartbeatError as error:
            sight.errors.append(error)


async def _fetch(consumer, sight):
    while True:
        try:
            async for msg in consumer.fetch(10, max_wait=4, heartbeat=HEARTBEAT):
                await _handle(msg, sight)
        except (StreamError, ConnectionLostError) as error:
            sight.errors.append(error)
            await asyncio.sleep(0.05)


async def _pull(subscription, sight):
    while True:
        for delivery in await subscription.pull(10, 5.0):
            sight.seen.append(int(delivery.message.body))
            delivery.ack()


@pytest.mark.parametrize("kind", KINDS)
def test_kill9_with_parked_pull(server, kind):
    async def story():
        sight = Sight()
        async with stream_of(server.url) as (js, stream):
            topic = f"{stream.name}.x"
            async with reader(kind, js, stream, sight):
                await js.publish_many([StreamMessage(topic, b"%d" % number) for number in range(50)])
                await sight.has(set(range(50)))
                server.kill()
                await asyncio.sleep(0.2)
                server.start()
                await until(lambda: _publish(js, topic, 50), "the server is back")
                back = time.monotonic()
                await sight.has(set(range(51)))
                print(f"{kind}: goes on {time.monotonic() - back:.3f} s after the server is back, {sight.errors}")
                await js.publish_many([StreamMessage(topic, b"%d" % number) for number in range(51, 100)])
                await sight.has(set(range(100)))
            if kind == "ordered":
                assert sight.seen == list(range(100))

    run(story())


async def _publish(js, topic, number):
    try:
        await js.publish(topic, b"%d" % number, msg_id=f"n{number}")
    except (StreamError, ConnectionLostError):
        return False
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_link(server, kind):
    async def story():
        sight = Sight()
        with Proxy(server.port) as proxy:
            async with stream_of(server.url) as (js, stream), stream_of(proxy.url) as (cut, _):
                topic = f"{stream.name}.x"
                async with reader(kind, cut, await cut.stream(stream.name), sight):
                    for number in range(0, 60, 20):
                        publishing = asyncio.create_task(
                            js.publish_many([StreamMessage(topic, b"%d" % each) for each in range(number, number + 20)])
                        )
                        await asyncio.sleep(0.002)
                        proxy.cut()
                        await publishing
                    await sight.has(set(range(60)))
                if kind == "ordered":
                    assert sight.seen == list(range(60))

    run(story())


def test_a_half_open_link_is_found_by_the_heartbeat_and_by_pings(server):
    async def story():
        with Proxy(server.port) as proxy:
            own = ConnectionOptions(ping_interval=0.5, max_pings_out=1, reconnect_wait=0.02, reconnect_max_wait=0.1)
            options = JetStreamOptions(timeout=PATIENCE, connection=own)
            async with stream_of(server.url) as (js, stream), connect(proxy.url, options=options) as half:
                sight = Sight()
                async with reader("messages", half, await half.stream(stream.name), sight):
                    consumer = await stream.consumer("c")
                    await somebody_waits(consumer)
                    proxy.freeze()
                    await js.publish(f"{stream.name}.x", b"0")
                    await asyncio.sleep(0.5)
                    proxy.cut()
                    proxy.thaw()
                    await sight.has({0})

    run(story())


def test_a_fetch_pulls_again_for_what_is_left_of_its_time(server):
    async def story():
        with Proxy(server.port) as proxy:
            async with stream_of(server.url) as (js, stream), stream_of(proxy.url) as (cut, _):
                await durable(stream)
                consumer = await cut.consumer(stream.name, "c")
                fetching = asyncio.create_task(_collect(consumer.fetch(2, max_wait=PATIENCE)))
                await somebody_waits(consumer)
                await js.publish(f"{stream.name}.x", b"0")
                await asyncio.sleep(0.1)
                proxy.cut()
                await asyncio.sleep(0.1)
                await js.publish(f"{stream.name}.x", b"1")
                assert [msg.data for msg in await fetching] == [b"0", b"1"]
                assert (await consumer.info()).num_waiting == 0

    run(story())


async def _collect(batch):
    return await batch


def test_outcomes_on_a_lost_link_are_not_confirmed(server):
    async def story():
        with Proxy(server.port) as proxy:
            async with stream_of(server.url, 3) as (_, stream), stream_of(proxy.url) as (cut, _):
                await durable(stream, ack_wait=600)
                session = (await cut.consumer(stream.name, "c")).session(SessionOptions(max_messages=3, prefetch=2))
                got = []
                while len(got) < 3:
                    got += await session.pull(3 - len(got), PATIENCE)
                session.settle(got[0], ACK)
                await session.flush()

                async def back():
                    return cut.connection.stats.reconnects > seen and cut.connection.connected

                for number, lost in ((1, True), (2, False)):
                    seen = cut.connection.stats.reconnects
                    if lost:
                        proxy.freeze(Direction.TO_SERVER)
                    session.settle(got[number], ACK)
                    if not lost:
                        await cut.connection.flush()
                    await asyncio.sleep(0.05)
                    proxy.cut()
                    proxy.thaw()
                    await until(back, "there is a new link")
                    if lost:
                        with pytest.raises(ConnectionLostError, match="outcomes"):
                            await session.flush()
                        await session.confirm(got[number])
                    await session.flush()
                assert (await stream.consumer("c")).cached_info.num_ack_pending == 0
                await session.aclose()

    run(story())


def test_each_reconnect_has_an_inbox_of_its_own(server):
    async def story():
        with Proxy(server.port) as proxy:
            async with stream_of(server.url) as (_, stream), stream_of(proxy.url) as (cut, _):
                await durable(stream)
                consumer = await cut.consumer(stream.name, "c")
                session = consumer.session(SessionOptions(max_messages=3, prefetch=2))
                pulling = asyncio.create_task(session.pull(1, PATIENCE))
                inboxes = set()
                for _ in range(3):
                    await somebody_waits(consumer)
                    inboxes.add(session._inbox._replies)
                    proxy.cut()

                    async def fresh():
                        return session._inbox._replies not in inboxes and cut.connection.connected

                    await until(fresh, "a new inbox")

                async def one_waits():
                    return (await consumer.info()).num_waiting == 1

                await until(one_waits, "the old pulls died with their links")
                await session.aclose()
                assert await pulling == []
                assert len(inboxes) == 3

    run(story())


def test_no_server_left_ends_the_readers(server):
    async def story():
        lost = ConnectionOptions(reconnect=False)
        async with connect(server.url, options=JetStreamOptions(connection=lost)) as js:
            stream = await js.create_stream(StreamConfig(name="S"))
            consumer = await durable(stream)
            waiting = asyncio.create_task(consumer.messages().next())
            await somebody_waits(consumer)
            server.kill()
            with pytest.raises(ClosedError):
                await asyncio.wait_for(waiting, PATIENCE)

    run(story())


@pytest.mark.timeout(150)
def test_a_change_of_leader_and_three_replicas():
    """Pulls go on at the new leader; what was flushed before is known there."""
    with NatsCluster() as cluster:

        async def story():
            options = JetStreamOptions(timeout=PATIENCE, connection=FAST)
            async with connect(cluster.urls, options=options) as js:
                stream = await js.create_stream(StreamConfig(name="S", subjects=["s.>"], replicas=3))
                consumer = await stream.create_consumer(ConsumerConfig(durable="c", ack_wait=60))
                sight = Sight()
                broker = StreamBroker(js)
                options = PullOptions(heartbeat=HEARTBEAT)
                async with consumer.consume(lambda msg: _handle(msg, sight), options, error_handler=sight.error):
                    await js.publish_many([StreamMessage("s.x", b"%d" % number) for number in range(20)])
                    await sight.has(set(range(20)))
                    await asyncio.to_thread(cluster.step_down, "S", "c")
                    await until(lambda: _publish(js, "s.x", 20), "the stream has a leader")
                    await sight.has(set(range(21)))
                    print(f"after the change of leader: {sight.errors}")
                async with broker.subscribe("s.y", SubscribeOptions(group="g")) as subscription:
                    for rounds in range(5):
                        for number in range(100):
                            await broker.publish(Message(topic="s.y", body=b"%d" % number))
                        got = 0
                        while got < 100:
                            for delivery in await subscription.pull(100, PATIENCE):
                                delivery.ack()
                                got += 1
                        await subscription.flush()
                        info = await subscription.consumer.info()
                        assert (rounds, info.num_ack_pending) == (rounds, 0)

        asyncio.run(asyncio.wait_for(story(), 120))
