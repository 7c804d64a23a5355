"""A consumer, or its whole stream, deleted while it is read: the reader ends, or an ordered one is made anew."""

import asyncio

import pytest

from headrace.streams import (
    ConsumerDeletedError,
    ConsumerNotFoundError,
    OrderedConsumerConfig,
    StreamNotFoundError,
)
from headrace.testing.nats import NatsServer
from tests.faults.nats.scene import PATIENCE, PULL, SUBJECT, eventually, made, on_a_loop, opened, parked, reading

GONE = (ConsumerDeletedError, ConsumerNotFoundError, StreamNotFoundError)


async def delete_consumer(js):
    await js.delete_consumer("S", "c")


async def delete_stream(js):
    await js.delete_stream("S")


@pytest.mark.parametrize("delete", [delete_consumer, delete_stream])
@pytest.mark.parametrize("parks", [True, False])
@on_a_loop
async def test_deleted_under_messages(delete, parks):
    with NatsServer() as server:
        async with opened(server) as js:
            await made(js)
            consumer = await js.consumer("S", "c")
            async with asyncio.timeout(PATIENCE), consumer.messages(PULL) as messages:
                if parks:
                    waiting = asyncio.create_task(messages.next())
                    await parked(js, "messages")
                    await delete(js)
                else:
                    await delete(js)
                    waiting = asyncio.create_task(messages.next())
                with pytest.raises(GONE):
                    await waiting
                with pytest.raises(GONE):
                    await messages.wait_closed()


@pytest.mark.parametrize("delete", [delete_consumer, delete_stream])
@on_a_loop
async def test_deleted_under_consume(delete):
    with NatsServer() as server:
        async with opened(server) as js:
            await made(js)
            consumer = await js.consumer("S", "c")
            async with asyncio.timeout(PATIENCE), consumer.consume(lambda _: None, PULL) as context:
                await parked(js, "consume")
                await delete(js)
                with pytest.raises(GONE):
                    await context.wait_closed()


@pytest.mark.parametrize("delete", [delete_consumer, delete_stream])
@on_a_loop
async def test_deleted_under_fetch_and_next(delete):
    with NatsServer() as server:
        async with opened(server) as js:
            await made(js)
            consumer = await js.consumer("S", "c")

            async def collected():
                return await consumer.fetch(10, max_wait=30)

            waiting = [asyncio.create_task(collected()), asyncio.create_task(consumer.next())]
            await eventually(lambda: two_wait(consumer))
            await delete(js)
            async with asyncio.timeout(PATIENCE):
                for task in waiting:
                    with pytest.raises(GONE):
                        await task


async def two_wait(consumer):
    return (await consumer.info()).num_waiting == 2


@on_a_loop
async def test_an_ordered_reader_outlives_its_consumer():
    """Deleted at the first, a middle and the last message: no gap, nothing twice."""
    with NatsServer() as server:
        async with opened(server) as js:
            stream = await made(js)
            async with reading(js, "ordered") as reader:
                for number in range(30):
                    await js.publish(SUBJECT, b"%d" % number)
                    if number in (0, 15, 29):
                        await reader.until(number + 1)
                        names = [name async for name in stream.consumer_names() if name != "c"]
                        assert len(names) == 1
                        await stream.delete_consumer(names[0])
                await js.publish(SUBJECT, b"30")
                await reader.until(31)
                assert reader.bodies == [b"%d" % number for number in range(31)]


@on_a_loop
async def test_an_ordered_reader_ends_with_its_stream():
    with NatsServer() as server:
        async with opened(server) as js:
            await made(js)
            consumer = await js.ordered_consumer("S", OrderedConsumerConfig())
            async with asyncio.timeout(PATIENCE), consumer.messages(PULL) as messages:
                waiting = asyncio.create_task(messages.next())
                await parked(js, "ordered")
                await js.delete_stream("S")
                with pytest.raises(StreamNotFoundError):
                    await waiting


@on_a_loop
async def test_deleted_while_the_link_was_down():
    """Nobody could say so at the time: it is found out after the reconnect."""
    with NatsServer() as server:
        async with opened(server) as js, opened(server) as other:
            await made(js)
            consumer = await js.consumer("S", "c")
            async with asyncio.timeout(PATIENCE), consumer.messages(PULL) as messages:
                waiting = asyncio.create_task(messages.next())
                await parked(js, "messages")
                server.kill()
                server.start()
                await eventually(lambda: other.connection.stats.reconnects)
                await other.delete_consumer("S", "c")
                with pytest.raises(GONE):
                    await waiting
