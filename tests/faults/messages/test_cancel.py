"""Cancelled at every await, once and twice: nothing is lost, nothing is stored twice, everything goes on."""

import asyncio

import pytest

from headrace.connect import connect
from headrace.core.broker import SubscribeOptions
from headrace.core.delivery import Delivery
from headrace.core.errors import ClosedError, HeadraceError
from headrace.embedded import EmbeddedOptions
from headrace.flow import Topic, Worker
from headrace.testing.idle import run_until_idle
from headrace.testing.virtual import virtual_time
from tests.faults.messages.cancelling import CancelAt, at_every_await
from tests.faults.messages.shop import GROUP, TOPIC, Ledger, opened, orders

both = pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])


def test_the_helper_cancels_where_it_says():
    seen = []

    async def steps():
        for number in range(1, 6):
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                seen.append(number)
        return "end"

    async def run():
        cancelled = CancelAt(steps(), 2, 4)
        assert (await cancelled, cancelled.suspensions, cancelled.cancels) == ("end", 5, 2)

    asyncio.run(run())
    assert seen == [2, 4]


@both
@virtual_time
async def test_cancel_pull(twice):
    async def scenario(cancel):
        async with opened() as broker, broker.subscribe(TOPIC, SubscribeOptions(group=GROUP)) as subscription:
            await broker.publish_batch(orders(5, 5))
            got = list(await cancel(subscription.pull(3, 1.0)) or ())
            while len(got) < 5:
                found = await subscription.pull(5, 100.0)
                assert found, f"lost: only {len(got)} came"
                got += found
            assert sorted(int(each.message.body) for each in got) == list(range(5))
            assert {each.attempt for each in got} == {1}, "handed out before"
            for each in got:
                assert each.start()
                each.ack()
            await subscription.flush()
            assert await subscription.pull(1, 0.1) == []

    assert await at_every_await(scenario, twice=twice) >= 1


@both
@virtual_time
async def test_cancel_waiting_pull(twice):
    """The same while it waits for messages that come later."""

    async def scenario(cancel):
        async with opened() as broker, broker.subscribe(TOPIC, SubscribeOptions(group=GROUP)) as subscription:
            pulling = asyncio.create_task(cancel(subscription.pull(3, 10.0)))
            await asyncio.sleep(1)
            await broker.publish_batch(orders(4, 4))
            got = list(await pulling or ())
            while len(got) < 4:
                found = await subscription.pull(5, 100.0)
                assert found, f"lost: only {len(got)} came"
                got += found
            assert sorted(int(each.message.body) for each in got) == list(range(4))

    assert await at_every_await(scenario, twice=twice) >= 1


@both
@virtual_time
async def test_cancel_send(twice):
    async def scenario(cancel):
        async with opened() as broker:
            topic, (first, second, third) = Topic(broker, TOPIC), orders(3, 1)
            await topic.send(first)
            receipt = await cancel(topic.send(second))
            again = await topic.send(second)
            assert again.duplicate or receipt is None
            await topic.send(third)
            bodies = [each.data for each in await (await broker.streams.stream(TOPIC)).read()]
            assert bodies == [b"0", b"1", b"2"]

    assert await at_every_await(scenario, twice=twice) >= 1


@both
def test_cancel_close(tmp_path, twice):
    count = 0

    async def scenario(cancel):
        nonlocal count
        count += 1
        where = tmp_path / str(count)
        broker = await connect(where, options=EmbeddedOptions(reserve_bytes=0))
        await broker.declare(TOPIC)
        subscribing = broker.subscribe(TOPIC, SubscribeOptions(group=GROUP))
        subscription = await subscribing.__aenter__()
        await broker.publish_batch(orders(4, 4))
        got = await subscription.pull(2, 1.0)
        for each in got:
            each.start()
            each.ack()
        late = asyncio.ensure_future(broker.publish(orders(5, 1)[4]))
        await asyncio.sleep(0)
        await cancel(broker.aclose())
        await broker.aclose()
        with pytest.raises(ClosedError):
            await broker.publish(orders(1, 1)[0])
        stored = 4
        try:
            await late
            stored += 1
        except HeadraceError:
            pass
        async with opened(where) as again:
            ledger = await handled_by(again)
            assert ledger.done.keys() | {int(each.message.body) for each in got} >= set(range(stored))
            assert not ledger.wrong

    assert asyncio.run(at_every_await(scenario, twice=twice)) >= 1


@both
@virtual_time
async def test_cancel_run(twice):
    async def scenario(cancel):
        async with opened() as broker:
            ledger = Ledger()
            await broker.publish_batch(orders(40, 7))
            await cancel(working(broker, ledger))
            done = set(ledger.done)
            await handled_by(broker, ledger)
            assert ledger.done.keys() == set(range(40)), "lost"
            assert not ledger.wrong
            assert [number for number in done if ledger.done[number] > 1] == [], "what was done came again"

    assert await at_every_await(scenario, twice=twice) >= 1


async def working(broker, ledger):
    """A worker that is told to stop after a while."""
    worker = handler_of(broker, ledger)
    stopping = asyncio.create_task(stop_later(worker))
    try:
        await worker.run()
    finally:
        stopping.cancel()


async def stop_later(worker):
    await asyncio.sleep(0.35)
    await worker.shutdown()


def handler_of(broker, ledger):
    async def handle(delivery: Delivery):
        ledger.begin(delivery)
        done = False
        try:
            await asyncio.sleep(0.1)
            done = True
        finally:
            ledger.end(delivery, done=done)

    return Worker(broker, TOPIC, handle, group=GROUP, concurrency=8)


async def handled_by(broker, ledger=None):
    ledger = ledger or Ledger()
    await run_until_idle(handler_of(broker, ledger))
    return ledger
