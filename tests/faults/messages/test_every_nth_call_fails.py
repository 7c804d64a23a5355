"""Each call of each method of the broker fails, one at a time: nothing lost, keys in order, one letter each."""

import asyncio
from contextlib import nullcontext

import pytest

from headrace.core.delivery import Delivery
from headrace.core.errors import BrokerError, HeadraceError, PublishError, RejectError
from headrace.flow import DeadLetter, RetryPolicy, Topic, Worker
from headrace.testing.faulty import Faulty
from headrace.testing.idle import run_until_idle
from headrace.testing.virtual import VirtualLoop
from tests.faults.messages.shop import GROUP, TOPIC, Ledger, opened, orders

COUNT = 30
METHODS = ["declare", "publish", "publish_batch", "subscribe", "pull", "flush", "stop", "backlog", "keep", "aclose"]


async def send_all(broker):
    """As a service does it: what was not taken is sent again."""
    topic, waiting = Topic(broker, TOPIC), orders(COUNT, 4)
    for message in waiting[: COUNT // 2]:
        while True:
            try:
                await topic.send(message)
                break
            except PublishError:
                continue
    batch = waiting[COUNT // 2 :]
    while batch:
        results = await topic.send_many(batch)
        batch = [message for message, result in zip(batch, results, strict=True) if isinstance(result, PublishError)]


async def work(broker, ledger):
    """Workers one after the other until one ends well; how many there were."""

    async def handle(delivery: Delivery):
        ledger.begin(delivery)
        number, done = int(delivery.message.body), False
        try:
            await asyncio.sleep(0.1 if number % 5 else 20.0)  # long enough that leases have to be kept
            if number % 10 == 7:
                raise RejectError("never")
            if number % 10 == 3 and delivery.attempt == 1:
                raise ValueError("once more")
            done = True
        finally:
            ledger.end(delivery, done=done or number % 10 == 7)

    for count in range(1, 20):
        worker = Worker(
            broker, TOPIC, handle, group=GROUP, concurrency=6, on_exhausted=DeadLetter(),
            retry=RetryPolicy(initial=1.0, jitter=0),
        )  # fmt: skip
        try:
            await run_until_idle(worker)
            return count
        except BrokerError:
            continue
    raise AssertionError("no worker ends well")


async def scenario(method, nth):
    """Whether the n-th call of it failed; everything else is asserted."""
    ledger = Ledger()
    async with opened() as inner:
        broker = Faulty(inner)
        broker.fail(method, nth)
        await send_all(broker)
        workers = await work(broker, ledger)
        assert ledger.done.keys() == set(range(COUNT)), f"lost: {sorted(set(range(COUNT)) - ledger.done.keys())}"
        assert not ledger.wrong, ledger.wrong
        letters = await letters_of(inner)
        assert sorted(letters) == sorted(b"%d" % number for number in range(7, COUNT, 10)), letters
        stored = await (await inner.streams.stream(TOPIC)).read(limit=1_000)
        assert [each.data for each in stored] == [b"%d" % number for number in range(COUNT)]
        with pytest.raises(BrokerError) if (method, nth) == ("aclose", 1) else nullcontext():
            await broker.aclose()
        return broker.calls[method] >= nth, workers


async def letters_of(broker):
    try:
        stream = await broker.streams.stream("dead")
    except HeadraceError:
        return []
    return [each.data for each in await stream.read(limit=1_000)]


def every_call(method, step=1):
    fired = restarted = 0
    for nth in range(1, 1_000, step):
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            hit, workers = runner.run(scenario(method, nth))
        if not hit:
            break
        fired += 1
        restarted += workers > 1
    print(f"\n{method}: {fired} calls failed, {restarted} ended a worker")
    return fired


@pytest.mark.parametrize("method", METHODS)
def test_every_nth_call_fails(method):
    assert every_call(method) > 0
