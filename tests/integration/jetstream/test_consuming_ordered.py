"""Ordered reading of a real server: everything once and in order, whatever becomes of the server's consumers."""

import asyncio

import pytest

from headrace.core.errors import HeadraceError
from headrace.streams.config import DeliverPolicy, OrderedConsumerConfig
from headrace.streams.errors import (
    ConsumerNotFoundError,
    OrderedConsumerBusyError,
    OrderedConsumerResetError,
    StreamNotFoundError,
)
from headrace.streams.options import PullOptions
from headrace.streams.session import SessionOptions
from headrace.testing.nats import NatsServer, Proxy
from tests.integration.jetstream.consuming import PATIENCE, bodies, fill, run, somebody_waits, stream_of, until


@pytest.fixture(scope="module")
def server():
    with NatsServer() as running:
        yield running


async def take(messages, count):
    return [int((await messages.next(timeout=PATIENCE)).data) for _ in range(count)]


@pytest.mark.parametrize("at", [0, 20, 39])
def test_ordered_survives_delete(server, at):
    async def story():
        async with stream_of(server.url, 40) as (js, stream):
            ordered = await stream.ordered_consumer(OrderedConsumerConfig())
            async with ordered.messages(PullOptions(max_messages=8)) as messages:
                got = await take(messages, at)
                if at:
                    await stream.delete_consumer(ordered.name)
                got += await take(messages, 40 - at)
                waiting = asyncio.create_task(messages.next())
                await somebody_waits(ordered)
                name = ordered.name
                await stream.delete_consumer(name)
                await fill(js, stream, 1, 40)
                got.append(int((await asyncio.wait_for(waiting, PATIENCE)).data))
                assert ordered.name != name
            assert got == list(range(41))

    run(story())


@pytest.mark.parametrize("tail", [False, True])
def test_a_lost_message_is_seen(server, tail):
    """Another client pulls one away: by the next message, or by the heartbeat where it was the last."""

    async def story():
        async with stream_of(server.url, 3) as (js, stream):
            ordered = await stream.ordered_consumer(OrderedConsumerConfig())
            async with ordered.messages(PullOptions(max_messages=2, threshold_messages=2, heartbeat=0.5)) as messages:
                assert await take(messages, 3) == [0, 1, 2]
                name = ordered.name
                await somebody_waits(ordered)
                thief = await stream.consumer(name)

                async def stolen(number):
                    """Its pull and ours are both open; who is first is the server's business."""
                    pulling = asyncio.create_task(_one(thief))
                    await asyncio.sleep(0.05)
                    await fill(js, stream, 1, number)
                    return bool(await pulling)

                number = 3
                while not await stolen(number):
                    number += 1
                number += 1
                if not tail:
                    await fill(js, stream, 1, number)
                    number += 1
                assert await take(messages, number - 3) == list(range(3, number))

                async def moved():
                    return ordered.name != name

                await until(moved, "it was made anew")

    run(story())


async def _one(consumer):
    return await consumer.fetch(1, max_wait=0.5)


def test_reads_of_any_kind_follow_each_other(server):
    async def story():
        async with stream_of(server.url, 20) as (_, stream):
            ordered = await stream.ordered_consumer(OrderedConsumerConfig())
            assert bodies(await ordered.fetch(4)) == [0, 1, 2, 3]
            name = ordered.name
            assert bodies(await ordered.fetch(4)) == [4, 5, 6, 7]
            assert ordered.name == name  # a healthy one is kept
            async with ordered.messages(PullOptions(max_messages=4)) as messages:
                with pytest.raises(OrderedConsumerBusyError):
                    await ordered.fetch(1)
                assert await take(messages, 3) == [8, 9, 10]
            assert (await ordered.next()).data == b"11"
            seen = []
            await ordered.consume(lambda msg: seen.append(int(msg.data)), PullOptions(stop_after=4)).wait_closed()
            assert seen == [12, 13, 14, 15]
            assert bodies(await ordered.fetch_no_wait(9)) == [16, 17, 18, 19]
            assert await ordered.fetch(1, max_wait=0.2) == []

    run(story())


def test_new_misses_nothing(server):
    """What is published between a loss and the making anew is new too."""

    async def story():
        async with stream_of(server.url, 5) as (js, stream):
            ordered = await stream.ordered_consumer(OrderedConsumerConfig(deliver_policy=DeliverPolicy.NEW))
            async with ordered.messages() as messages:
                waiting = asyncio.create_task(messages.next())
                await asyncio.sleep(0.1)
                await somebody_waits(ordered)
                await asyncio.gather(stream.delete_consumer(ordered.name), fill(js, stream, 3, 5))
                got = [int((await asyncio.wait_for(waiting, PATIENCE)).data), *(await take(messages, 2))]
            assert got == [5, 6, 7]

    run(story())


def test_last_per_subject_is_a_snapshot_across_a_reset(server):
    async def story():
        async with stream_of(server.url) as (js, stream):
            for number in range(30):
                await js.publish(f"{stream.name}.{number % 10}", b"%d" % number)
            ordered = await stream.ordered_consumer(
                OrderedConsumerConfig(deliver_policy=DeliverPolicy.LAST_PER_SUBJECT)
            )
            async with ordered.messages(PullOptions(max_messages=2)) as messages:
                got = await take(messages, 4)
                await stream.delete_consumer(ordered.name)
                got += await take(messages, 6)
                await fill(js, stream, 1, 99)
                got += await take(messages, 1)
            assert got == [*range(20, 30), 99]

    run(story())


def test_the_stream_deleted_is_the_end(server):
    async def story():
        async with stream_of(server.url) as (js, stream):
            ordered = await stream.ordered_consumer(OrderedConsumerConfig())
            async with ordered.messages() as messages:
                waiting = asyncio.create_task(messages.next())
                await asyncio.sleep(0.1)
                await somebody_waits(ordered)
                await js.delete_stream(stream.name)
                with pytest.raises(StreamNotFoundError):
                    await asyncio.wait_for(waiting, PATIENCE)

    run(story())


def test_attempts_end_where_they_are_bounded(server):
    async def story():
        with Proxy(server.port) as proxy:
            async with stream_of(proxy.url, 3) as (_, stream):
                ordered = await stream.ordered_consumer(OrderedConsumerConfig(max_reset_attempts=2))
                told = []
                async with ordered.messages(error_handler=lambda context, error: told.append(error)) as messages:
                    assert await take(messages, 3) == [0, 1, 2]
                    inner = ordered.inner

                    async def refuse(config):
                        raise ConsumerNotFoundError("no")

                    ordered._create = refuse
                    await stream.delete_consumer(inner.name)
                    with pytest.raises(OrderedConsumerResetError):
                        await messages.next(timeout=PATIENCE)
                assert [type(error) for error in told] == [OrderedConsumerResetError] * 2

    run(story())


def test_a_cut_link_loses_nothing_of_any_kind_of_read(server):
    async def story():
        with Proxy(server.port) as proxy:
            async with stream_of(server.url) as (js, stream), stream_of(proxy.url) as (cut, _):
                ordered = await (await cut.stream(stream.name)).ordered_consumer(OrderedConsumerConfig())
                publishing = asyncio.create_task(fill(js, stream, 400))
                got = []
                while len(got) < 400:
                    try:
                        options = PullOptions(max_messages=16, stop_after=min(50, 400 - len(got)))
                        async with ordered.messages(options) as messages:
                            async for msg in messages:
                                got.append(int(msg.data))
                                if len(got) % 60 == 0:
                                    proxy.cut()
                        if len(got) < 400:
                            got += bodies(await ordered.fetch(min(10, 400 - len(got)), max_wait=2))
                    except HeadraceError as error:
                        print(f"{error!r}")
                await publishing
                assert got == list(range(400))

    run(story())


def test_settling_only_marks(server):
    async def story():
        async with stream_of(server.url, 1) as (_, stream):
            ordered = await stream.ordered_consumer(OrderedConsumerConfig())
            session = ordered.session(SessionOptions(max_messages=2, prefetch=1))
            (msg,) = await session.pull(1, PATIENCE)
            await msg.in_progress()
            await msg.double_ack()
            assert msg.settled
            assert msg.metadata.sequence.stream == 1
            await session.aclose()

    run(story())
