"""A worker with a thousand messages in flight is told to stop: nothing lost; a clean stop repeats nothing."""

import asyncio
import random

import pytest

from headrace.core.broker import SubscribeOptions
from headrace.core.delivery import Delivery
from headrace.flow import Worker
from headrace.testing.idle import run_until_idle
from headrace.testing.virtual import VirtualLoop
from tests.faults.messages.shop import GROUP, TOPIC, Ledger, opened, orders

COUNT, IN_FLIGHT, LONGEST = 1_500, 1_000, 0.5
GRACE = 0.25


def worker_of(broker, ledger, chance):
    async def handle(delivery: Delivery):
        ledger.begin(delivery)
        done = False
        try:
            await asyncio.sleep(chance.uniform(0.0, LONGEST))
            done = True
        finally:
            ledger.end(delivery, done=done)

    subscribe = SubscribeOptions(max_in_flight=IN_FLIGHT)
    return Worker(broker, TOPIC, handle, group=GROUP, concurrency=300, subscribe=subscribe)


async def stopped(seed, *, patience):
    """Stop at some moment, then let another worker do the rest; how many the first one held, and what came twice."""
    chance, ledger, loop = random.Random(seed), Ledger(), asyncio.get_running_loop()
    async with opened() as broker:
        await broker.publish_batch(orders(COUNT, 700))
        worker = worker_of(broker, ledger, chance)
        running = asyncio.create_task(worker.run())
        await asyncio.sleep(chance.uniform(0.05, 0.6))
        held, began, late = worker.stats.held, loop.time(), False
        try:
            await worker.shutdown(patience)
        except TimeoutError:
            late = True
        assert loop.time() - began <= patience + GRACE
        await asyncio.gather(running, return_exceptions=True)
        done = dict(ledger.done)
        await run_until_idle(worker_of(broker, ledger, chance))
    assert ledger.done.keys() == set(range(COUNT)), "lost"
    assert not ledger.wrong, ledger.wrong[:5]
    assert all(ledger.done[number] == 1 for number in done), "done, and came again"
    again = sum(ledger.begun[number] > 1 for number in ledger.begun)
    assert late or not again, f"a clean stop, and {again} came twice"
    return held, late, again


def runs(seeds, *, patience):
    held, late, again = [], 0, 0
    for seed in seeds:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            in_flight, was_late, twice = runner.run(stopped(seed, patience=patience))
        held.append(in_flight)
        late += was_late
        again += twice
    print(f"\n{len(held)} runs, {min(held)}..{max(held)} in flight, {late} late, {again} begun twice")
    assert max(held) > IN_FLIGHT // 2
    return late, again


def test_shutdown_in_flight_few():
    assert runs(range(3), patience=1.0) == (0, 0)
    assert runs(range(3), patience=0.1)[0] > 0


@pytest.mark.chaos
def test_shutdown_in_flight():
    assert runs(range(50), patience=1.0) == (0, 0)
    assert runs(range(50), patience=0.1)[0] > 0
