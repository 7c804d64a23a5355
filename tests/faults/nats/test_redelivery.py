"""Redelivery is never early: a nak's delay, an ack wait. How late it is, is printed."""

import asyncio
import time

import pytest

from headrace.streams import ConsumerConfig, PullOptions
from headrace.testing.nats import NatsServer
from tests.faults.nats.scene import SUBJECT, made, message, on_a_loop, opened

DELAY = 0.3


def told(name, lateness):
    lateness.sort()
    p99 = lateness[min(len(lateness) - 1, len(lateness) * 99 // 100)]
    worst = lateness[-1] * 1e3
    print(f"{name}: {len(lateness)} redeliveries, none early, p99 {p99 * 1e3:.1f} ms late, worst {worst:.1f} ms")


async def redelivered(count, config, first):
    """Seconds from `first(msg)`, which gives the earliest moment of the server's clock start, to the redelivery."""
    with NatsServer() as server:
        async with opened(server) as js:
            stream = await made(js)
            await js.publish_many([message(number) for number in range(count)])
            consumer, begun, taken = await stream.create_consumer(config), {}, {}
            asked = time.monotonic()
            async with consumer.messages(PullOptions(max_messages=count)) as messages:
                while len(taken) < count:
                    msg = await messages.next()
                    now = time.monotonic()
                    if msg.data in begun:
                        assert msg.metadata.num_delivered == 2
                        taken[msg.data] = now - begun[msg.data]
                        await msg.ack()
                    else:
                        begun[msg.data] = await first(msg, asked)
            assert (await consumer.info()).num_ack_pending == 0
            return list(taken.values())


async def nak_later(msg, _):
    now = time.monotonic()
    await msg.nak(delay=DELAY)
    return now


async def leave(msg, asked):
    return asked  # the server's clock runs from its sending: not before it was asked


@pytest.mark.parametrize("count", [1, 200])
@on_a_loop
async def test_nak_delay_is_never_early(count):
    took = await redelivered(count, ConsumerConfig(durable="r", ack_wait=30), nak_later)
    assert min(took) >= DELAY
    told("nak(0.3)", [each - DELAY for each in took])


@pytest.mark.parametrize("count", [1, 200])
@on_a_loop
async def test_ack_wait_is_never_early(count):
    took = await redelivered(count, ConsumerConfig(durable="r", ack_wait=0.5), leave)
    assert min(took) >= 0.5
    told("ack_wait 0.5", [each - 0.5 for each in took])


@on_a_loop
async def test_backoff_is_never_early():
    waits = [0.2, 0.4, 0.8]
    with NatsServer() as server:
        async with opened(server) as js:
            stream = await made(js)
            await js.publish(SUBJECT, b"x")
            consumer = await stream.create_consumer(ConsumerConfig(durable="r", backoff=waits, max_deliver=4))
            asked, late = time.monotonic(), []
            for delivery in range(1, 5):
                msg = await consumer.next()
                assert msg.metadata.num_delivered == delivery
                late.append(time.monotonic() - asked - sum(waits[: delivery - 1]))
            await msg.ack()
    assert min(late) >= 0
    told("backoff", late[1:])


@on_a_loop
async def test_in_progress_puts_off_the_redelivery():
    with NatsServer() as server:
        async with opened(server) as js:
            stream = await made(js)
            await js.publish(SUBJECT, b"x")
            consumer = await stream.create_consumer(ConsumerConfig(durable="r", ack_wait=0.5))
            msg = await consumer.next()
            again = asyncio.create_task(consumer.next())
            for _ in range(12):  # twice its ack wait
                await asyncio.sleep(0.08)
                last = time.monotonic()
                await msg.in_progress()
            redelivered = await again
            assert time.monotonic() - last >= 0.5
            assert redelivered.metadata.num_delivered == 2
            await redelivered.ack()
