"""KeyedQueues: random keys, suspensions and parks against what must always hold."""

import asyncio
import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.delivery import Delivery
from headrace.core.message import Message
from headrace.flow.keyed import KeyedQueues, Ordering
from headrace.testing.virtual import virtual_time


def deliveries_of(keys):
    return [Delivery(Message(topic="t", body=b"%d" % n), 1, key, None, n) for n, key in enumerate(keys)]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([None, b"a", b"b", b"c"]), max_size=60), st.integers(1, 5), st.integers(0, 1_000))
def test_order_per_key_no_overlap_and_all_done(keys, runners, seed):
    virtual_time(_check)(keys, runners, random.Random(seed))


async def _check(keys, runners, chance):
    queues = KeyedQueues(10, Ordering.KEY, lambda: None)
    running, ended, parked = Counter(), [], set()

    async def run():
        while not queues.closed:
            delivery = queues.take()
            if delivery is None:
                await queues.wait_for_work()
                continue
            key = delivery.order_key
            running[key] += 1
            assert key is None or running[key] == 1
            if chance.random() < 0.5:
                queues.suspended()
                await asyncio.sleep(chance.random())
            running[key] -= 1
            if delivery.token not in parked and chance.random() < 0.2:
                parked.add(delivery.token)
                queues.park(delivery, chance.random() * 5)
            else:
                ended.append(delivery)
                queues.done(delivery)

    tasks = [asyncio.create_task(run()) for _ in range(runners)]
    waiting = deliveries_of(keys)
    while waiting:
        free = queues.capacity - queues.held
        if not free:
            await queues.wait_for_room(queues.capacity - 1)
            continue
        queues.add(waiting[:free])
        del waiting[:free]
        assert queues.held <= queues.capacity
    while queues.held:
        await queues.wait_for_room(0)
    queues.shut()
    await asyncio.gather(*tasks)
    assert len(ended) == len(keys)
    for key in {key for key in keys if key is not None}:
        tokens = [delivery.token for delivery in ended if delivery.order_key == key]
        assert tokens == sorted(tokens)
    assert queues.left() == []


def test_a_hot_key_does_not_starve_the_others():
    queues = KeyedQueues(1_000, Ordering.KEY, lambda: None)
    queues.add(deliveries_of([b"hot"] * 500 + [b"%d" % n for n in range(20)]))
    seen = []
    for _ in range(60):
        delivery = queues.take()
        seen.append(delivery.order_key)
        queues.done(delivery)
    assert len(set(seen)) == 21


def test_what_is_left_is_all_but_what_is_behind_a_running_one():
    queues = KeyedQueues(100, Ordering.KEY, lambda: None)
    one, two, three, four = deliveries_of([b"a", b"a", b"b", b"b"])
    queues.add([one, two, three, four])
    assert queues.take() is one
    queues.shut()
    assert queues.take() is None
    assert queues.left() == [three, four]
    queues.done(one)
    assert queues.left() == [two]
