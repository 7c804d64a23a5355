"""Links that are cut inside a frame, go half open, or swallow an answer: nothing torn, lost or stored twice."""

import asyncio
import hashlib
import random
import time

import pytest

from headrace.core.errors import BrokerError, Fault, PublishInterruptedError
from headrace.nats import Connection
from headrace.streams import ConsumerConfig
from headrace.testing.nats import Direction, NatsServer, Proxy
from tests.faults.nats.scene import (
    PATIENCE,
    READERS,
    SUBJECT,
    eventually,
    hasty,
    made,
    on_a_loop,
    opened,
    parked,
    reading,
    stored,
)

ALERT = {"ping_interval": 0.2, "max_pings_out": 2}


def body(number):
    """Says itself whether it is whole."""
    text = b"%d " % number + b"x" * (number % 700)
    return hashlib.sha256(text).hexdigest().encode() + b" " + text


def whole(data):
    digest, _, text = data.partition(b" ")
    return hashlib.sha256(text).hexdigest().encode() == digest


@on_a_loop
async def test_cut_mid_frame_of_a_core_subscription():
    """After every single byte of a frame: what arrives is whole, and the subscription goes on."""
    frame = len(b"MSG a 1 100\r\n") + 102
    with NatsServer(jetstream=False) as server, Proxy(server.port) as proxy:
        async with Connection(proxy.url, hasty()) as connection, Connection(server.url) as direct:
            got = []
            connection.subscribe("a", lambda subject, reply, header, data: got.append(data))
            await connection.flush(PATIENCE)
            for count in range(0, frame + 1, 3):
                links = proxy.links
                proxy.cut_after(count)
                direct.publish("a", b"%0100d" % count)
                await direct.flush(PATIENCE)
                await eventually(lambda before=links: proxy.links > before)
                await eventually(lambda: connection.connected)
                await connection.flush(PATIENCE)
                direct.publish("a", b"go on")
                await direct.flush(PATIENCE)
                await eventually(lambda: got and got.pop() == b"go on")
                assert got in ([], [b"%0100d" % count])
                got.clear()


async def torn(kind, cuts):
    """Cuts after any number of bytes, either way, while publishing and reading; what is stored, what was read."""
    chance, count = random.Random(kind), 40 * cuts
    with NatsServer() as server, Proxy(server.port) as proxy:
        async with opened(proxy) as js, opened(server) as direct:
            stream = await made(direct)
            async with reading(js, kind) as reader:
                await parked(direct, kind)
                futures = []
                for number in range(count):
                    if number % 40 == 0:
                        if futures:
                            await asyncio.wait_for(waited(futures[-1]), PATIENCE)
                        proxy.cut_after(chance.randrange(6_000), chance.choice(list(Direction)))
                    futures.append(await js.publish_async(SUBJECT, body(number), msg_id=f"{number}"))
                    await asyncio.sleep(0)
                for future in futures:
                    await asyncio.wait_for(waited(future), PATIENCE)
                await reader.until(count)
            return count, await stored(stream), reader.bodies, proxy.links


async def waited(future):
    return await future


def judged(kind, count, everything, read):
    assert all(map(whole, everything + read))
    assert sorted(everything) == sorted(map(body, range(count)))
    assert set(read) == set(everything)
    if kind == "ordered":
        assert read == everything


@pytest.mark.parametrize("kind", READERS)
def test_cut_mid_frame_and_resend_with_msg_id_no_duplicates(kind):
    count, everything, read, links = asyncio.run(torn(kind, 8))
    judged(kind, count, everything, read)
    assert links > 4


@pytest.mark.chaos
@pytest.mark.parametrize("kind", READERS)
def test_cut_mid_frame_many_times(kind, rounds):
    for _ in range(max(1, rounds // 20)):
        count, everything, read, links = asyncio.run(torn(kind, 10))
        judged(kind, count, everything, read)
        print(f"{kind}: {links - 1} cuts, {count} messages, {len(read) - count} read again")


@pytest.mark.parametrize("way", [None, *Direction])
@pytest.mark.parametrize("kind", READERS)
@on_a_loop
async def test_half_open(kind, way):
    """The link is there, and nothing comes: unanswered pings end it, the next one carries on."""
    with NatsServer() as server, Proxy(server.port) as proxy:
        async with opened(proxy, **ALERT) as js, opened(server) as direct:
            await made(direct)
            async with reading(js, kind) as reader:
                await parked(direct, kind)
                proxy.freeze(*([way] if way else []))
                await direct.publish(SUBJECT, b"0")
                future = await js.publish_async(SUBJECT, b"1", msg_id="1")
                await reader.until(2)
                await future
                assert proxy.links >= 2
                assert sorted(set(reader.bodies)) == [b"0", b"1"]


@on_a_loop
async def test_a_frozen_server_is_left_for_one_that_answers():
    with NatsServer(jetstream=False) as one, NatsServer(jetstream=False) as two:
        options = hasty(randomize=False, connect_timeout=0.3, **ALERT)
        async with Connection([one.url, two.url], options) as connection:
            one.pause()
            await eventually(lambda: connection.connected and connection.server_info.port == two.port)
            await connection.flush(PATIENCE)
            one.resume()


@on_a_loop
async def test_ack_lost_with_an_id():
    """Stored, and the answer never came: sent again under its id, answered duplicate, stored once."""
    with NatsServer() as server, Proxy(server.port) as proxy:
        async with opened(proxy) as js, opened(server) as direct:
            stream = await made(direct)
            proxy.freeze(Direction.TO_CLIENT)
            future = await js.publish_async(SUBJECT, b"once", msg_id="1")
            sync = asyncio.create_task(js.publish(SUBJECT, b"too", msg_id="2"))
            await eventually(lambda: count_of(stream, 2))
            assert not future.done()
            proxy.cut()
            acks = [await future, await sync]
            assert [(ack.sequence, ack.duplicate) for ack in acks] == [(1, True), (2, True)]
            assert await stored(stream) == [b"once", b"too"]


@on_a_loop
async def test_ack_lost_without_an_id():
    """Nobody can know: the publish ends as interrupted, and is not sent again."""
    with NatsServer() as server, Proxy(server.port) as proxy:
        async with opened(proxy) as js, opened(server) as direct:
            stream = await made(direct)
            proxy.freeze(Direction.TO_CLIENT)
            future = await js.publish_async(SUBJECT, b"once")
            await eventually(lambda: count_of(stream, 1))
            proxy.cut()
            with pytest.raises(PublishInterruptedError) as caught:
                await future
            assert caught.value.fault is Fault.UNKNOWN
            await js.publish(SUBJECT, b"next")
            assert await stored(stream) == [b"once", b"next"]
            assert js.publish_async_pending == 0


async def count_of(stream, count):
    return (await stream.info()).state.messages == count


@on_a_loop
async def test_ack_of_a_message_lost():
    """The server never saw it: it hands the message out again, not before its ack wait."""
    with NatsServer() as server, Proxy(server.port) as proxy:
        async with opened(proxy) as js, opened(server) as direct:
            stream = await made(direct)
            await stream.create_consumer(ConsumerConfig(durable="short", ack_wait=0.5))
            await direct.publish(SUBJECT, b"x")
            begun = time.monotonic()
            consumer = await js.consumer("S", "short")
            msg = await consumer.next()
            proxy.freeze(Direction.TO_SERVER)
            await msg.ack()
            await asyncio.sleep(0.05)  # it is in the proxy
            proxy.cut()
            again = await consumer.next()
            assert time.monotonic() - begun >= 0.5
            assert (again.data, again.metadata.num_delivered) == (b"x", 2)
            await again.double_ack()
            assert (await consumer.info()).num_ack_pending == 0


@on_a_loop
async def test_double_ack_lost_leaves_the_message_unsettled():
    with NatsServer() as server, Proxy(server.port) as proxy:
        async with opened(proxy) as js, opened(server) as direct:
            await made(direct)
            await direct.publish(SUBJECT, b"x")
            msg = await (await js.consumer("S", "c")).next()
            proxy.freeze(Direction.TO_SERVER)
            confirming = asyncio.create_task(msg.double_ack())
            await asyncio.sleep(0.05)
            assert not confirming.done()
            proxy.cut()
            with pytest.raises(BrokerError):
                await confirming
            assert not msg.settled
            await eventually(lambda: js.connection.connected)
            await msg.double_ack()
            assert msg.settled


@on_a_loop
async def test_a_slow_link_changes_nothing():
    with NatsServer() as server, Proxy(server.port) as proxy:
        proxy.delay = 0.03
        async with opened(proxy) as js:
            stream = await made(js)
            async with reading(js, "messages") as reader:
                futures = [await js.publish_async(SUBJECT, b"%d" % number) for number in range(200)]
                assert [(await future).sequence for future in futures] == list(range(1, 201))
                await reader.until(200)
            assert reader.bodies == await stored(stream)
            assert reader.errors == []
