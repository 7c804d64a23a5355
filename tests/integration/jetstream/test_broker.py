"""connect("nats://…"): the broker over a real server, from the hello world to its errors."""

import asyncio
import logging

import pytest

from headrace import Message, Topic, Worker, connect
from headrace.core.broker import Expect, PublishOptions, SubscribeOptions
from headrace.core.errors import ClosedError, ConfigError, ConnectionLostError, Fault, PublishError
from headrace.jetstream.broker import JetStreamBroker
from headrace.jetstream.jetstream import JetStream
from headrace.jetstream.options import JetStreamOptions
from headrace.nats.options import ConnectionOptions
from headrace.streams.errors import NoStreamResponseError, WrongLastSequenceError
from headrace.testing.nats import NatsServer, free_port

PATIENCE = 20
SECRET = "s3cret"


@pytest.fixture(scope="module")
def server():
    with NatsServer() as running:
        yield running


def story(url, tell, **options):
    async def run():
        async with connect(url, **{"options": JetStreamOptions(timeout=PATIENCE), **options}) as broker:
            await tell(broker)

    asyncio.run(asyncio.wait_for(run(), 50))


def test_hello_world(server):
    """The one of the README, with another URL."""
    billed = asyncio.Event()
    seen = []

    async def bill(order: dict[str, int]) -> None:
        seen.append(order)
        billed.set()

    async def tell(broker):
        await Topic(broker, "hello").send({"id": 1}, key="1")
        async with Worker(broker, "hello", bill, group="billing"):
            await asyncio.wait_for(billed.wait(), PATIENCE)
        assert seen == [{"id": 1}]

    story(server.url, tell)


def test_what_connect_gives(server):
    async def tell(broker):
        assert isinstance(broker, JetStreamBroker)
        assert isinstance(broker.streams, JetStream)
        assert broker.capabilities.max_body == broker.streams.max_payload - 64 * 1024
        assert broker.clock is not None

    story(server.url, tell)


def test_several_servers_of_which_one_is_there(server):
    async def tell(broker):
        receipt = await broker.publish(Message(topic="several", body=b"x"))
        assert (receipt.position.source, receipt.position.value) == ("several", 1)

    story(f"nats://127.0.0.1:{free_port()},127.0.0.1:{server.port}", tell)


def test_closing_the_broker_closes_the_connection(server):
    async def run():
        broker = await connect(server.url)
        async with broker.subscribe("closing", SubscribeOptions(group="g")):
            pass
        await broker.aclose()
        await broker.aclose()
        assert broker.streams.connection.closed
        with pytest.raises(ClosedError):
            await broker.publish(Message(topic="closing", body=b"x"))
        with pytest.raises(ClosedError):
            await broker.streams.publish("closing")

    asyncio.run(asyncio.wait_for(run(), 50))


@pytest.mark.parametrize("create", [True, False])
def test_a_topic_that_nothing_covers(server, create):
    topic = f"uncovered{create}".lower()

    async def tell(broker):
        if create:
            results = await broker.publish_batch([Message(topic=f"{topic}.a", body=b"%d" % n) for n in range(3)])
            assert [result.position.value for result in results] == [1, 2, 3]
            await broker.streams.delete_stream(topic)  # it knows the topic, and is wrong
            results = await broker.publish_batch([Message(topic=f"{topic}.a", body=b"%d" % n) for n in range(3)])
            assert [result.position.value for result in results] == [1, 2, 3]
            await broker.streams.delete_stream(topic)
            assert (await broker.publish(Message(topic=f"{topic}.a", body=b"x"))).position.value == 1
        else:
            with pytest.raises(NoStreamResponseError) as caught:
                await broker.publish(Message(topic=topic, body=b"x", id="m"))
            assert caught.value.message_id == "m"
            (result,) = await broker.publish_batch([Message(topic=topic, body=b"x", id="m")])
            assert (type(result), result.message_id) == (NoStreamResponseError, "m")

    story(server.url, tell, create=create)


def test_a_message_comes_back_as_it_was(server):
    message = Message(topic="round.trip", body=b"\0\xff\r\n", key=b"\0 %\xff", id="id ü@x", time_ns=1)

    async def tell(broker):
        await broker.publish(message)
        assert (await broker.publish(message)).duplicate
        async with broker.subscribe("round.trip", SubscribeOptions(group="g")) as subscription:
            (delivery,) = await subscription.pull(5, PATIENCE)
            assert delivery.message == message
            delivery.ack()
            await subscription.flush()

    story(server.url, tell)


def test_options_of_a_publish(server):
    async def tell(broker):
        await broker.publish(Message(topic="options", body=b"1"), PublishOptions(expect=Expect(last=0)))
        with pytest.raises(WrongLastSequenceError) as caught:
            await broker.publish(Message(topic="options", body=b"2", id="m"), PublishOptions(expect=Expect(last=0)))
        assert (caught.value.fault, caught.value.message_id) == (Fault.REJECTED, "m")
        await broker.publish(Message(topic="options", body=b"3"), PublishOptions(ttl=3600, timeout=PATIENCE))
        stored = await (await broker.streams.stream("options")).get_msg(2)
        assert (stored.data, stored.headers.get("Nats-TTL")) == (b"3", "3600s")

    story(server.url, tell)


def test_nobody_there():
    with pytest.raises(ConnectionLostError):
        story(f"nats://127.0.0.1:{free_port()}", None)


def test_a_publish_while_the_server_is_away():
    """It goes when the server is back; what has not gone in time is an error that says so."""

    async def tell(broker):
        await broker.declare("away")
        server.kill()
        while broker.streams.connection.connected:
            await asyncio.sleep(0.01)
        sending = asyncio.create_task(broker.publish(Message(topic="away", body=b"x")))
        with pytest.raises(PublishError):
            await broker.publish(Message(topic="away", body=b"y"), PublishOptions(timeout=0.1))
        server.start()
        assert (await sending).position.value == 1

    with NatsServer() as server:
        options = JetStreamOptions(timeout=PATIENCE, connection=ConnectionOptions(reconnect_wait=0.02))
        story(server.url, tell, options=options)


def test_credentials_are_used_and_never_shown(caplog):
    async def good(broker):
        assert SECRET not in repr(broker)
        assert SECRET not in repr(broker.streams)
        assert SECRET not in repr(broker.streams.connection)
        await broker.publish(Message(topic="secret", body=b"x"))

    config = f"authorization {{ user: alice, password: {SECRET} }}"
    with NatsServer(config=config) as server, caplog.at_level(logging.DEBUG):
        story(f"nats://alice:{SECRET}@127.0.0.1:{server.port}", good)
        with pytest.raises(ConnectionLostError) as caught:
            story(f"nats://bob:{SECRET}@127.0.0.1:{server.port}", good)
        told = "".join((str(caught.value), repr(caught.value), *getattr(caught.value, "__notes__", ())))
        assert SECRET not in told
    assert SECRET not in caplog.text


@pytest.mark.parametrize("given", ["nats", "file"])
def test_options_of_another_engine(server, given, tmp_path):
    from headrace.embedded import EmbeddedOptions

    with pytest.raises(ConfigError):
        if given == "nats":
            connect(server.url, options=EmbeddedOptions())
        else:
            connect(tmp_path, options=JetStreamOptions())
