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


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.sampled_from([None, b"a", b"b", b"c", b"d", b"e"])),
            st.tuples(st.just("take"), st.none()),
            st.tuples(st.just("done"), st.integers(0, 9)),
        ),
        max_size=150,
    ),
    st.integers(1, 4),
)
def test_whoever_is_ready_is_soon_taken(steps, runners):
    """First come, first served: behind those that were ready before it, whatever key they have, and nobody else."""
    queues = KeyedQueues(1_000, Ordering.KEY, lambda: None)
    waiting, behind, running, tokens = [], {}, [], iter(range(1_000))
    for step, given_ in steps:
        if step == "add":
            delivery = Delivery(Message(topic="t", body=b""), 1, given_, None, next(tokens))
            queues.add([delivery])
            if given_ is not None and given_ in behind:
                behind[given_].append(delivery)
                continue
            waiting.append(delivery)
            if given_ is not None:
                behind[given_] = []
        elif step == "take" and len(running) < runners:
            taken = queues.take()
            assert taken is (waiting.pop(0) if waiting else None)
            running += [taken] if taken else []
        elif step == "done" and running:
            delivery = running.pop(given_ % len(running))
            queues.done(delivery)
            followers = behind.get(delivery.order_key)
            if followers:
                waiting.append(followers.pop(0))
            elif followers is not None:
                del behind[delivery.order_key]
    assert queues.has_ready is bool(waiting)
    assert queues.held == len(running) + len(waiting) + sum(map(len, behind.values()))
    assert queues.fullest()[1] == max(map(len, behind.values()), default=0)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 200), st.integers(1, 8), st.integers(1, 4))
def test_at_most_16_of_a_key_in_a_row_while_others_are_ready(hot, others, runners):
    queues = KeyedQueues(1_000, Ordering.KEY, lambda: None)
    queues.add(deliveries_of([b"hot"] * hot + [b"%d" % (n % others) for n in range(hot * others)]))
    running, in_a_row, last = [], 0, None
    while queues.held:
        delivery = queues.take() if len(running) < runners else None
        if delivery is None:
            queues.done(running.pop(0))
            continue
        running.append(delivery)
        others_ready = queues.has_ready
        in_a_row = in_a_row + 1 if delivery.order_key == last else 1
        last = delivery.order_key
        assert in_a_row <= 16 or not others_ready


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
