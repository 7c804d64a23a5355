"""The readers once more, on a real engine: what the scripted one cannot get wrong."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from headrace.connect import connect
from headrace.core.broker import SubscribeOptions
from headrace.core.errors import ClosedError, RejectError
from headrace.core.message import Message
from headrace.embedded import open as open_embedded
from headrace.flow import Worker
from headrace.streams.broker import StreamBroker
from headrace.streams.config import ConsumerConfig, DeliverPolicy, OrderedConsumerConfig, PullOptions, StreamConfig
from headrace.streams.errors import ConsumerDeletedError, OrderedConsumerBusyError
from headrace.streams.fetch import FetchReason
from headrace.testing.recording import RecordingHandler
from headrace.testing.virtual import virtual_time


@asynccontextmanager
async def stream_of(count):
    async with open_embedded(":memory:") as streams:
        stream = await streams.create_stream(StreamConfig(name="S", subjects=("s.>",)))
        for number in range(count):
            await streams.publish("s.x", b"%d" % (number + 1))
        yield streams, stream


def bodies(messages):
    return [int(msg.data) for msg in messages]


@virtual_time
async def test_fetch_and_ack():
    async with stream_of(5) as (_, stream):
        consumer = await stream.create_consumer(ConsumerConfig(durable="c"))
        batch = consumer.fetch(3)
        got = await batch
        assert bodies(got) == [1, 2, 3]
        assert batch.reason is FetchReason.FILLED
        for msg in got:
            await msg.ack()
        assert bodies(await consumer.fetch(9, max_wait=1)) == [4, 5]
        assert bodies(await consumer.fetch_no_wait(9)) == []
        await asyncio.sleep(31)
        again = await consumer.fetch_no_wait(9)
        assert bodies(again) == [4, 5]
        assert [msg.metadata.num_delivered for msg in again] == [2, 2]


@virtual_time
async def test_fetch_bytes():
    async with stream_of(3) as (_, stream):
        consumer = await stream.create_consumer(ConsumerConfig(durable="c"))
        probe = await consumer.next()
        await probe.nak()
        size = len(probe.subject) + len(probe.reply) + len(probe.data)
        batch = consumer.fetch_bytes(2 * size + size // 2, max_wait=1)
        assert len(await batch) == 2
        assert batch.reason is FetchReason.MAX_BYTES


@virtual_time
async def test_stopping_gives_back_in_order():
    async with stream_of(6) as (_, stream):
        consumer = await stream.create_consumer(ConsumerConfig(durable="c"))
        async with consumer.messages() as messages:
            first = await messages.next()
            await first.ack()
        assert bodies(await consumer.fetch_no_wait(9)) == [2, 3, 4, 5, 6]


@virtual_time
async def test_drain_and_stop_after():
    async with stream_of(6) as (_, stream):
        consumer = await stream.create_consumer(ConsumerConfig(durable="c"))
        messages = consumer.messages(PullOptions(stop_after=2))
        got = [msg async for msg in messages]
        assert bodies(got) == [1, 2]
        for msg in got:
            await msg.ack()
        await messages.wait_closed()
        messages = consumer.messages(PullOptions(max_messages=2))
        rest = [await messages.next()]
        await messages.drain()
        rest += [msg async for msg in messages]
        assert bodies(rest) == [3, 4]
        assert (await consumer.info()).num_waiting == 0


@virtual_time
async def test_consume_retries_what_fails():
    async with stream_of(3) as (_, stream):
        consumer = await stream.create_consumer(ConsumerConfig(durable="c"))
        seen = []

        async def handler(msg):
            seen.append((int(msg.data), msg.metadata.num_delivered))
            if seen[-1] == (1, 1):
                raise ValueError("once")
            if seen[-1][0] == 2:
                raise RejectError("never")
            await msg.double_ack()

        async with consumer.consume(handler, error_handler=lambda *_: None):
            await asyncio.sleep(10)
        assert seen == [(1, 1), (2, 1), (3, 1), (1, 2)]
        info = await consumer.info()
        assert (info.num_pending, info.num_ack_pending) == (0, 0)


@virtual_time
async def test_a_deleted_consumer_ends_its_readers():
    async with stream_of(0) as (_, stream):
        consumer = await stream.create_consumer(ConsumerConfig(durable="c"))
        messages = consumer.messages(error_handler=lambda *_: None)
        waiter = asyncio.create_task(messages.next())
        await asyncio.sleep(1)
        await stream.delete_consumer("c")
        with pytest.raises(ConsumerDeletedError):
            await waiter


@virtual_time
async def test_a_cancelled_next_loses_nothing():
    async with stream_of(0) as (streams, stream):
        consumer = await stream.create_consumer(ConsumerConfig(durable="c"))
        async with consumer.messages() as messages:
            for number in range(1, 20):
                waiter = asyncio.create_task(messages.next())
                await asyncio.sleep(0)
                await streams.publish("s.x", b"%d" % number)
                for _ in range(number % 5):
                    await asyncio.sleep(0)
                waiter.cancel()
                results = await asyncio.gather(waiter, return_exceptions=True)
                msg = results[0] if not isinstance(results[0], BaseException) else await messages.next(timeout=5)
                assert int(msg.data) == number
                await msg.ack()


@virtual_time
async def test_ordered_reading():
    async with stream_of(6) as (streams, stream):
        consumer = await stream.ordered_consumer(OrderedConsumerConfig())
        assert bodies(await consumer.fetch(2)) == [1, 2]
        messages = consumer.messages()
        with pytest.raises(OrderedConsumerBusyError):
            consumer.messages()
        assert int((await messages.next()).data) == 3
        await stream.delete_consumer(consumer.name)
        assert int((await messages.next()).data) == 4
        messages.stop()
        await messages.wait_closed()
        assert bodies(await consumer.fetch(2)) == [5, 6]
        waiter = asyncio.create_task(consumer.next(max_wait=60))
        await asyncio.sleep(1)
        await streams.publish("s.x", b"7")
        assert int((await waiter).data) == 7


@virtual_time
async def test_ordered_new_and_last_per_subject():
    async with stream_of(2) as (streams, stream):
        await streams.publish("s.y", b"3")
        last = await stream.ordered_consumer(OrderedConsumerConfig(deliver_policy=DeliverPolicy.LAST_PER_SUBJECT))
        assert bodies(await last.fetch(9, max_wait=1)) == [2, 3]
        new = await stream.ordered_consumer(OrderedConsumerConfig(deliver_policy=DeliverPolicy.NEW))
        assert bodies(await new.fetch(1, max_wait=1)) == []
        await streams.publish("s.y", b"4")
        assert bodies(await new.fetch(1, max_wait=1)) == [4]


@virtual_time
async def test_same_id_two_topics_stored_twice():
    async with connect(":memory:") as broker:
        receipts = [await broker.publish(Message(topic=topic, body=b"x", id="42")) for topic in ("a.x", "a.y", "a.x")]
        assert len({receipt.position.source for receipt in receipts}) == 1, "one stream, and one window, for both"
        assert [receipt.duplicate for receipt in receipts] == [False, False, True]
        assert receipts[2].position == receipts[0].position
        batch = [Message(topic=topic, body=b"y", id="43") for topic in ("a.x", "a.y", "a.y")]
        assert [receipt.duplicate for receipt in await broker.publish_batch(batch)] == [False, False, True]
        async with broker.subscribe("a.>", SubscribeOptions(group="g")) as subscription:
            got = await subscription.pull(10, 1.0)
            assert [(each.message.topic, each.message.id) for each in got] == [
                ("a.x", "42"), ("a.y", "42"), ("a.x", "43"), ("a.y", "43"),
            ]  # fmt: skip
            for each in got:
                each.ack()


@virtual_time
async def test_readers_end_with_their_engine():
    async with stream_of(1) as (streams, stream):
        consumer = await stream.create_consumer(ConsumerConfig(durable="c"))
        ordered = (await stream.ordered_consumer(OrderedConsumerConfig())).messages()
        assert (await ordered.next()).data == b"1"
        waiting = [asyncio.create_task(consumer.messages().next()), asyncio.create_task(ordered.next())]
        context = consumer.consume(lambda _: None)
        worker = asyncio.create_task(Worker(StreamBroker(streams), "s.x", RecordingHandler(), group="g").run())
        await asyncio.sleep(1)
        waiting[0].cancel()  # it had taken the only message
        waiting[0] = asyncio.create_task(consumer.messages().next())
        await asyncio.sleep(1)
        await streams.aclose()
        for ends in (*waiting, context.wait_closed(), worker):
            with pytest.raises(ClosedError):
                await ends
    assert asyncio.get_running_loop().time() < 10
