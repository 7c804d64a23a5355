"""Cancelled anywhere: `CancelledError` passes through, no slot, inbox, task or message is lost, none acknowledged."""

import asyncio
import random
from contextlib import suppress

import pytest

from headrace.core.errors import BrokerTimeoutError, HeadraceError
from headrace.nats import Connection
from headrace.streams import OrderedConsumerConfig, StreamConfig, StreamMessage
from headrace.testing.nats import NatsServer, Proxy
from tests.faults.nats.scene import PATIENCE, PULL, SUBJECT, eventually, hasty, made, message, on_a_loop, opened

TURNS = range(25)  # after so many rounds of the loop; later than the last one it is done, or waits for the server
WINDOW = 4


async def cancelled(coroutine, turns):
    """Run it for so many rounds of the loop, then cancel it; its result, or None where it was cancelled."""
    task = asyncio.create_task(coroutine)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(PATIENCE):
        await asyncio.wait([task])
    if task.cancelled():
        return None
    error = task.exception()
    assert error is None or isinstance(error, HeadraceError), error
    return None if error else task.result()


async def usable(js, stream):
    """All slots are free, nothing waits for a reply, and it does what it did before."""
    await js.publish_async_complete(timeout=PATIENCE)
    assert js.publish_async_pending == 0
    futures = [await js.publish_async("s.after", b"x") for _ in range(WINDOW * 2)]
    assert len({(await future).sequence for future in futures}) == WINDOW * 2
    assert (await stream.info(subject_filter="s.after")).state.subjects == {"s.after": WINDOW * 2}
    await eventually(lambda: not js.connection.replies.waiting)


async def publish(js):
    await js.publish(SUBJECT, b"x")


async def publish_many(js):
    await js.publish_many([message(number) for number in range(20)])


async def publish_stalled(js):
    """More than the window holds: it waits for room."""
    futures = [await js.publish_async(SUBJECT, b"x") for _ in range(WINDOW * 3)]
    for future in futures:
        await future


async def publish_atomic(js):
    await js.publish_atomic([StreamMessage("atomic.a", b"x") for _ in range(5)])


async def complete(js):
    for _ in range(WINDOW):
        await js.publish_async(SUBJECT, b"x")
    await js.publish_async_complete()


async def manage(js):
    await js.stream("S")
    await js.account_info()


async def flush(js):
    await js.connection.flush()


@pytest.mark.parametrize("call", [publish, publish_many, publish_stalled, complete, manage, flush])
@on_a_loop
async def test_calls(call):
    with NatsServer() as server:
        async with opened(server, max_pending=WINDOW) as js:
            stream = await made(js)
            for turns in TURNS:
                await cancelled(call(js), turns)
            await usable(js, stream)


@on_a_loop
async def test_an_atomic_batch_is_stored_whole_or_not():
    with NatsServer() as server:
        async with opened(server, max_pending=WINDOW) as js:
            stream = await made(js)
            atomic = await js.create_stream(StreamConfig(name="A", subjects=["atomic.>"], allow_atomic=True))
            for turns in TURNS:
                await cancelled(publish_atomic(js), turns)
                assert (await atomic.info()).state.messages % 5 == 0
            await usable(js, stream)


@on_a_loop
async def test_a_cancelled_future_keeps_its_slot_until_its_answer():
    with NatsServer() as server, Proxy(server.port) as proxy:
        async with opened(proxy, max_pending=WINDOW) as js:
            stream = await made(js)
            proxy.freeze()
            futures = [await js.publish_async(SUBJECT, b"x") for _ in range(WINDOW)]
            waiting = [asyncio.create_task(awaited(future)) for future in futures]
            stalled = asyncio.create_task(js.publish_async(SUBJECT, b"not sent"))
            await asyncio.sleep(0.02)
            for task in [*waiting, stalled]:
                task.cancel()
            await asyncio.wait([*waiting, stalled])
            assert all(task.cancelled() for task in [*waiting, stalled])
            assert js.publish_async_pending == WINDOW
            proxy.thaw()
            await usable(js, stream)


async def awaited(future):
    return await future


@on_a_loop
async def test_a_request_that_nobody_waits_for_is_forgotten():
    """Cancelled, or too late: no answer ever comes on this link, and nothing is kept for it."""
    with NatsServer() as server, Proxy(server.port) as proxy:
        async with opened(proxy, timeout=0.05) as js, opened(server) as direct:
            await made(direct)
            waiting, request = js.connection.replies.waiting, js.connection.request
            proxy.freeze()
            for turns in TURNS:
                await cancelled(request("nobody", timeout=PATIENCE), turns)
                await cancelled(manage(js), turns)
                assert not waiting
            for late in (request("nobody", timeout=0.05), manage(js), js.publish(SUBJECT, b"x")):
                with pytest.raises(BrokerTimeoutError):
                    await late
                assert not waiting
            proxy.cut()


async def fetch(js, consumer):
    return await consumer.fetch(5, max_wait=2)


async def fetch_no_wait(js, consumer):
    return await consumer.fetch_no_wait(5)


async def iterated_fetch(js, consumer):
    async with consumer.fetch(5, max_wait=2) as batch:
        return [await anext(batch)]


async def next_one(js, consumer):
    return [await consumer.next(max_wait=2)]


async def messages(js, consumer):
    async with consumer.messages(PULL) as context:
        return [await context.next()]


@pytest.mark.parametrize("call", [fetch, fetch_no_wait, iterated_fetch, next_one, messages])
@on_a_loop
async def test_reading_loses_no_message(call):
    """What a cancelled reader had is handed out again at once; in the end each message was seen, and no pull waits."""
    with NatsServer() as server:
        async with opened(server) as js:
            stream = await made(js)
            consumer, count, seen = await js.consumer("S", "c"), 60, set()
            await js.publish_many([message(number) for number in range(count)])
            for turns in TURNS:
                for msg in await cancelled(call(js, consumer), turns) or ():
                    seen.add(msg.data)
                    await msg.ack()
            while len(seen) < count:
                for msg in await consumer.fetch(count, max_wait=3):
                    seen.add(msg.data)
                    await msg.double_ack()
            await eventually(lambda: at_rest(consumer))
            await usable(js, stream)


async def at_rest(consumer):
    info = await consumer.info()
    return info.num_waiting == 0 and info.num_ack_pending == 0


@on_a_loop
async def test_a_cancelled_next_of_one_iterator_leaves_the_message_to_the_following():
    chance = random.Random(3)
    with NatsServer() as server:
        async with opened(server) as js:
            await made(js)
            consumer, got = await js.consumer("S", "c"), []
            async with consumer.messages(PULL) as context:
                for number in range(100):
                    task = asyncio.create_task(context.next())
                    publishing = asyncio.create_task(js.publish(SUBJECT, b"%d" % number))
                    for _ in range(chance.randrange(40)):
                        await asyncio.sleep(0)
                    task.cancel()
                    await asyncio.wait([task])
                    await publishing
                    if not task.cancelled():
                        got.append(task.result())
                while len(got) < 100:
                    got.append(await context.next(timeout=PATIENCE))
                for msg in got:
                    await msg.ack()
            assert [msg.data for msg in got] == [b"%d" % number for number in range(100)]
            assert {msg.metadata.num_delivered for msg in got} == {1}


@on_a_loop
async def test_a_cancelled_ordered_reader_goes_on_where_it_was():
    with NatsServer() as server:
        async with opened(server) as js:
            await made(js)
            await js.publish_many([message(number) for number in range(60)])
            consumer, got = await js.ordered_consumer("S", OrderedConsumerConfig()), []
            for turns in TURNS:
                got += await cancelled(next_one(js, consumer), turns * 2) or []
            while len(got) < 60:
                got.append(await consumer.next())
            assert [msg.data for msg in got] == [b"%d" % number for number in range(60)]


@on_a_loop
async def test_a_cancelled_handler_hands_its_message_back():
    """Once no pull of its own can take it: it would count one more delivery."""
    with NatsServer() as server:
        async with opened(server) as js:
            await made(js)
            consumer = await js.consumer("S", "c")
            for _ in range(20):
                await js.publish(SUBJECT, b"x")
                begun = asyncio.Event()

                async def handler(msg, begun=begun):
                    begun.set()
                    raise asyncio.CancelledError

                context = consumer.consume(handler, PULL)
                await asyncio.wait_for(begun.wait(), PATIENCE)
                async with asyncio.timeout(PATIENCE):
                    with suppress(asyncio.CancelledError):
                        await context.wait_closed()
                msg = await consumer.next()
                assert msg.metadata.num_delivered == 2
                await msg.double_ack()


@on_a_loop
async def test_connecting():
    with NatsServer(jetstream=False) as server:
        for turns in TURNS:
            connection = Connection(server.url, hasty())
            await cancelled(connection.connect(), turns)
            await connection.aclose()


@on_a_loop
async def test_closing():
    """A cancelled close is ended by the next one."""
    with NatsServer() as server:
        async with opened(server) as js:
            await made(js)
        for turns in TURNS:
            connection = Connection(server.url, hasty())
            await connection.connect()
            connection.subscribe("a", lambda *_: None)
            call = connection.drain if turns % 2 else connection.aclose
            await cancelled(call(), turns // 2)
            await connection.aclose()
            assert connection.closed
