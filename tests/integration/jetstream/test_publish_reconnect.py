"""Publishes across a lost link: what is safe is written again, first and in order; nothing hangs, nothing doubles."""

import asyncio

import pytest

from headrace import jetstream
from headrace.core.broker import Expect
from headrace.core.errors import Fault, PublishError, PublishInterruptedError, PublishTimeoutError
from headrace.jetstream.options import JetStreamOptions
from headrace.nats.options import ConnectionOptions
from headrace.streams.config import StreamConfig, StreamMessage, StreamPublishOptions
from headrace.streams.info import PubAck
from headrace.testing.nats import Direction, NatsServer, Proxy

PATIENCE = 20.0


@pytest.fixture
def server():
    with NatsServer() as running:
        yield running


@pytest.fixture
def proxy(server):
    with Proxy(server.port) as running:
        yield running


def story(proxy, tell, *, timeout=PATIENCE, max_pending=4_000, config=None, **connection):
    options = JetStreamOptions(
        timeout=timeout,
        max_pending=max_pending,
        on_publish_error=lambda message, error: None,
        connection=ConnectionOptions(reconnect_wait=0.02, reconnect_max_wait=0.1, **connection),
    )

    async def run():
        async with jetstream.connect(proxy.url, options=options) as js:
            await js.create_stream(StreamConfig(name="S", subjects=["s", "s.>"], **(config or {})))
            await tell(js)

    asyncio.run(asyncio.wait_for(run(), 50))


async def until(true):
    async with asyncio.timeout(PATIENCE):
        while not true():
            await asyncio.sleep(0.01)


async def stored(js):
    stream, bodies = await js.stream("S"), []
    while found := await stream.read(start=len(bodies) + 1, limit=10_000):
        bodies += [message.data for message in found]
    return bodies


def connection_of(js):
    return js._publisher.connection


async def lose(js, proxy):
    """Cut the link and wait until the client knows."""
    proxy.cut()
    await until(lambda: connection_of(js).stats.reconnects or not connection_of(js).connected)


def test_unanswered_ones_with_an_id_are_written_again_first_and_in_order(proxy):
    async def tell(js):
        proxy.freeze(Direction.TO_SERVER)  # it goes to the socket, and no further
        old = [await js.publish_async("s", b"%d" % number, msg_id=f"id{number}") for number in range(20)]
        many = asyncio.create_task(js.publish_many([StreamMessage("s", b"m%d" % n, msg_id=f"m{n}") for n in range(20)]))
        single = asyncio.create_task(js.publish("s", b"single", msg_id="single"))
        await until(lambda: connection_of(js).flushed >= 41)
        proxy.down()
        await lose(js, proxy)
        new = [await js.publish_async("s", b"new%d" % number) for number in range(5)]
        proxy.up()
        acks = [await future for future in (*old, *new)]
        assert not any(ack.duplicate for ack in acks)
        assert [type(result) for result in await many] == [PubAck] * 20
        assert (await single).duplicate is False
        wanted = [b"%d" % n for n in range(20)] + [b"m%d" % n for n in range(20)]
        assert await stored(js) == [*wanted, b"single", *(b"new%d" % n for n in range(5))]

    story(proxy, tell)


def test_what_was_stored_before_is_a_duplicate(proxy):
    async def tell(js):
        proxy.freeze(Direction.TO_CLIENT)  # the answers do not arrive
        futures = [await js.publish_async("s", b"%d" % number, msg_id=f"id{number}") for number in range(10)]
        await until(lambda: proxy.passed[Direction.TO_SERVER] > 500 and connection_of(js).flushed)
        await asyncio.sleep(0.1)
        await lose(js, proxy)
        acks = [await future for future in futures]
        assert [ack.sequence for ack in acks] == list(range(1, 11))
        assert [ack.duplicate for ack in acks] == [True] * 10
        assert len(await stored(js)) == 10

    story(proxy, tell)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"msg_id": "a", "options": StreamPublishOptions(expect=Expect(last=0))},
        {"msg_id": "a", "options": StreamPublishOptions(expect=Expect(last_for_topic=0))},
    ],
)
def test_others_fail_at_once_with_an_unknown_outcome(proxy, given):
    async def tell(js):
        proxy.freeze()
        future = await js.publish_async("s", b"1", **given)
        single = asyncio.create_task(js.publish("s", b"1", **given))
        many = asyncio.create_task(js.publish_many([StreamMessage("s")]))
        await until(lambda: connection_of(js).flushed >= 3)
        proxy.down()
        await lose(js, proxy)
        for waiting in (single, future):
            with pytest.raises(PublishInterruptedError) as caught:
                await waiting
            assert caught.value.fault is Fault.UNKNOWN
            assert caught.value.__cause__ is not None
        (error,) = await many
        assert type(error) is PublishInterruptedError
        assert js.publish_async_pending == 0
        proxy.up()
        assert (await js.publish("s", b"2")).stream == "S"

    story(proxy, tell)


def test_an_expected_id_is_no_reason_not_to_write_again(proxy):
    async def tell(js):
        await js.publish("s", msg_id="first")
        proxy.freeze(Direction.TO_CLIENT)
        options = StreamPublishOptions(expect=Expect(last_id="first"))
        future = await js.publish_async("s", msg_id="second", options=options)
        await asyncio.sleep(0.1)
        await lose(js, proxy)
        assert (await future).sequence == 2

    story(proxy, tell)


def test_what_was_not_sent_goes_later(proxy):
    """Without an id too: it never left."""

    async def tell(js):
        proxy.down()
        await lose(js, proxy)
        futures = [await js.publish_async("s", b"%d" % number) for number in range(10)]
        many = asyncio.create_task(js.publish_many([StreamMessage("s", b"many")] * 3))
        await asyncio.sleep(0.05)
        proxy.up()
        assert [(await future).sequence for future in futures] == list(range(1, 11))
        assert [ack.sequence for ack in await many] == [11, 12, 13]

    story(proxy, tell)


def test_what_was_not_sent_in_time_is_taken_back(proxy):
    async def tell(js):
        proxy.down()
        await lose(js, proxy)
        future = await js.publish_async("s", b"late")
        many = asyncio.create_task(js.publish_many([StreamMessage("s", b"late")] * 3))
        with pytest.raises(PublishTimeoutError, match="not sent") as caught:
            await future
        assert caught.value.fault is Fault.UNAVAILABLE  # certainly not stored
        assert [(type(result), result.fault) for result in await many] == [(PublishTimeoutError, Fault.UNAVAILABLE)] * 3
        proxy.up()
        await until(lambda: connection_of(js).connected)
        await js.publish("s", b"after")
        assert await stored(js) == [b"after"]

    story(proxy, tell, timeout=1.0)


def test_what_is_written_again_ends_with_its_time(proxy):
    async def tell(js):
        proxy.freeze()
        future = await js.publish_async("s", msg_id="a")
        await until(lambda: connection_of(js).flushed >= 1)
        proxy.down()
        await lose(js, proxy)
        with pytest.raises(PublishTimeoutError, match="may be stored") as caught:
            await future
        assert caught.value.fault is Fault.UNKNOWN
        proxy.up()
        await until(lambda: connection_of(js).connected)
        assert (await js.publish("s")).sequence == 1

    story(proxy, tell, timeout=1.0)


def test_a_full_buffer_fails_the_message_and_takes_no_slot(proxy):
    async def tell(js):
        proxy.down()
        await lose(js, proxy)
        body = b"x" * 6_000
        first = await js.publish_async("s", body)
        for publish in (js.publish, js.publish_async):
            with pytest.raises(PublishError, match="buffer") as caught:
                await publish("s", body)
            assert caught.value.fault is Fault.UNAVAILABLE
        results = await js.publish_many([StreamMessage("s", body)] * 3)
        assert [(type(each), each.fault) for each in results] == [(PublishError, Fault.UNAVAILABLE)] * 3
        assert js.publish_async_pending == 1
        proxy.up()
        assert (await first).sequence == 1

    story(proxy, tell, reconnect_buffer=10_000)


def test_closed_for_good(proxy):
    async def tell(js):
        proxy.freeze()
        futures = [await js.publish_async("s", msg_id=f"{number}") for number in range(5)]
        stalled = asyncio.create_task(js.publish_async("s"))
        await until(lambda: connection_of(js).flushed >= 5)
        proxy.down()
        proxy.cut()
        for future in futures:
            with pytest.raises(PublishInterruptedError):
                await future
        with pytest.raises(Exception, match="closed"):
            await stalled

    story(proxy, tell, max_pending=5, max_reconnects=2)


def test_a_server_that_starts_again(server, proxy):
    """Streams need a moment after a start: nobody answers, and it is tried again."""

    async def tell(js):
        options = StreamPublishOptions(retry_attempts=500, retry_wait=0.02)
        first = [await js.publish_async("s", b"%d" % n, msg_id=f"{n}", options=options) for n in range(300)]
        server.kill()
        await until(lambda: not connection_of(js).connected)
        later = [await js.publish_async("s", b"%d" % n, msg_id=f"{n}", options=options) for n in range(300, 320)]
        server.start()
        sequences = {(await future).sequence for future in (*first, *later)}
        assert len(sequences) == 320
        assert sorted(await stored(js), key=int) == [b"%d" % number for number in range(320)]

    story(proxy, tell)


def test_many_across_cuts_without_doubles(proxy):
    async def tell(js):
        async def cuts():
            for _ in range(5):
                await asyncio.sleep(0.05)
                proxy.cut()

        cutting = asyncio.create_task(cuts())
        messages = []
        while not cutting.done():
            batch = [StreamMessage("s", b"%d" % n, msg_id=f"{n}") for n in range(len(messages), len(messages) + 500)]
            results = await js.publish_many(batch)
            assert [result for result in results if not isinstance(result, PubAck)] == []
            messages += batch
        await js.publish("s", b"last", msg_id="last")  # the link of after the last cut is there
        assert await stored(js) == [*(message.data for message in messages), b"last"]

    story(proxy, tell)
