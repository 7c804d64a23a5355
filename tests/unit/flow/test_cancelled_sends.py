"""A send that is cancelled at any await: stored or not, never twice under one id, nothing left over (3.4, 3.5.2)."""

import asyncio
from contextlib import suppress

import pytest

from headrace.connect import connect
from headrace.flow import Topic
from headrace.flow.middleware import Base64Encode, Compress
from headrace.testing.virtual import virtual_time
from tests.unit.flow.tools import steps

PLACES = 24


async def is_alone():
    """Whether nothing of ours goes on; the engine may be at its housekeeping for a moment."""
    for _ in range(100):
        if len(asyncio.all_tasks()) == 1:
            return True
        await asyncio.sleep(0.01)
    return False


async def cancelled_at(place, coroutine, again):
    task = asyncio.create_task(coroutine)
    await steps(place)
    task.cancel()
    if again:
        await steps(1)
        task.cancel()
    with suppress(asyncio.CancelledError):
        await task
        return True
    return False


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("middleware", [(), (Compress(), Base64Encode())])
@virtual_time
async def test_a_cancelled_send_may_be_sent_again(middleware, again):
    async with connect(":memory:") as broker:
        topic = Topic(broker, "orders", middleware=middleware)
        finished = [
            await cancelled_at(place, topic.send(b"%d" % place * 300, id=f"id-{place}"), again)
            for place in range(PLACES)
        ]
        assert await is_alone()
        receipts = [await topic.send(b"%d" % place * 300, id=f"id-{place}") for place in range(PLACES)]
        assert all(receipt.duplicate for receipt, done in zip(receipts, finished, strict=True) if done)
        stored = await (await broker.streams.stream("orders")).read()
        assert len(stored) == PLACES, "each once"
        assert {False} <= set(finished), "none was cancelled"


@virtual_time
async def test_a_cancelled_batch_may_be_sent_again():
    async with connect(":memory:") as broker:
        topic = Topic(broker, "orders")
        for place in range(PLACES):
            batch = [topic.message(b"x", id=f"{place}-{number}", key="k") for number in range(5)]
            await cancelled_at(place, topic.publish_batch(batch), again=False)
            await topic.publish_batch(batch)
        assert await is_alone()
        stored = await (await broker.streams.stream("orders")).read()
        ids = [message.headers.get("Nats-Msg-Id") for message in stored]
        assert ids == [f"{place}-{number}@orders" for place in range(PLACES) for number in range(5)], "once, in order"


@virtual_time
async def test_a_cancelled_writer():
    async with connect(":memory:") as broker:
        topic = Topic(broker, "orders")

        async def writes(writer, wait):
            async with writer:
                writer.write(b"x")
                await asyncio.sleep(wait)

        discarded = topic.writer()
        await cancelled_at(3, writes(discarded, 100), again=False)
        assert (discarded.closed, discarded.message) == (True, None)
        for place in range(PLACES):
            writer = topic.writer(id=f"{place}")
            done = await cancelled_at(place, writes(writer, 0), again=False)
            assert writer.closed or not place, "not even begun at 0"
            if writer.message is not None:
                receipt = await broker.publish(writer.message)
                assert receipt.duplicate or not done
        assert await is_alone()
        stored = await (await broker.streams.stream("orders")).read()
        ids = [message.headers.get("Nats-Msg-Id") for message in stored]
        assert len(set(ids)) == len(ids) > 1
