"""A loop that is blocked, a handler that is slow: no heartbeat is missed that was sent, and nothing piles up."""

import asyncio
import time

import pytest

from headrace.streams import ConsumerConfig, OrderedConsumerConfig, PullOptions
from headrace.testing.nats import NatsServer
from tests.faults.nats.scene import ACK_WAIT, SUBJECT, eventually, made, message, on_a_loop, opened, parked

STRICT = PullOptions(max_messages=10, heartbeat=0.5, expires=30)


async def blocked(seconds):
    """A server whose reader's loop does nothing at all for a while; the errors of the reader."""
    errors = []
    with NatsServer() as server:
        async with opened(server) as js:
            await made(js)
            consumer = await js.consumer("S", "c")
            async with consumer.messages(STRICT, error_handler=lambda _, error: errors.append(error)) as messages:
                waiting = asyncio.create_task(messages.next())
                await parked(js, "messages")
                for _ in range(2):
                    time.sleep(seconds)
                    await asyncio.sleep(0.05)
                assert not waiting.done()
                await js.publish(SUBJECT, b"x")
                msg = await waiting
                await msg.ack()
                assert msg.metadata.num_delivered == 1
        return errors


def test_loop_blocked():
    """For three heartbeats: they wait in the socket, and are read before anything is called missing."""
    assert asyncio.run(blocked(1.5)) == []


@pytest.mark.chaos
def test_loop_blocked_for_long():
    assert asyncio.run(blocked(10)) == []


@on_a_loop
async def test_loop_blocked_under_an_ordered_reader():
    errors = []
    with NatsServer() as server:
        async with opened(server) as js:
            await made(js)
            consumer = await js.ordered_consumer("S", OrderedConsumerConfig())
            async with consumer.messages(STRICT, error_handler=lambda _, error: errors.append(error)) as messages:
                got, names = [], set()
                for number in range(4):
                    await js.publish(SUBJECT, b"%d" % number)
                    got.append((await messages.next()).data)
                    names.add(consumer.name)
                    time.sleep(1.2)
            assert got == [b"0", b"1", b"2", b"3"]
            assert errors == []
            assert len(names) == 1, "it was made anew without need"


@on_a_loop
async def test_a_slow_handler_misses_no_heartbeat_and_holds_no_more_than_it_may():
    errors, held = [], []
    with NatsServer() as server:
        async with opened(server) as js:
            stream = await made(js)
            await stream.create_consumer(ConsumerConfig(durable="slow", ack_wait=30))
            await js.publish_many([message(number) for number in range(60)])
            consumer, done = await js.consumer("S", "slow"), []

            async def handler(msg):
                if not done:
                    await asyncio.sleep(2)  # four heartbeats
                    held.append((await consumer.info()).num_ack_pending)  # before any ack: those a server counts later
                done.append(msg.data)
                await msg.ack()

            async with consumer.consume(handler, STRICT, error_handler=lambda _, error: errors.append(error)):
                await eventually(lambda: len(done) == 60)
    assert errors == []
    assert held == [10]
    assert len(set(done)) == 60


@on_a_loop
async def test_a_message_that_waited_too_long_in_the_buffer_is_not_handed_out():
    """Its lease ran out behind a slow handler: the server hands it out again, and nobody sees it twice."""
    with NatsServer() as server:
        async with opened(server) as js:
            await made(js)
            await js.publish_many([message(number) for number in range(10)])
            consumer, done = await js.consumer("S", "c"), []
            async with consumer.messages(STRICT) as messages:
                while len(set(done)) < 10:
                    msg = await messages.next()
                    done.append(msg.data)
                    if len(done) == 1:
                        await asyncio.sleep(ACK_WAIT + 0.5)
                    await msg.ack()
                assert messages.stats.expired_in_buffer >= 9
            assert len(done) - len(set(done)) <= 1  # the first, whose own ack was late
