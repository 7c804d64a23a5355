"""A worker over the scripted engine, on virtual time."""

import asyncio
import contextvars
from collections import Counter

import pytest

from headrace.core.broker import SubscribeOptions
from headrace.core.delivery import Delivery, Nak, Reject
from headrace.core.errors import (
    RetryLaterError,
)
from headrace.core.message import Message
from headrace.flow import DROP, Ordering, RetryPolicy, Worker
from headrace.testing.idle import run_until_idle
from headrace.testing.recording import RecordingHandler
from headrace.testing.virtual import virtual_time
from tests.unit.flow.scripted import ScriptedBroker, ScriptedSubscription
from tests.unit.flow.tools import NO_JITTER, fill, nothing, now


@virtual_time
async def test_a_key_in_retry_holds_back_its_own_messages_only():
    broker, ended = ScriptedBroker(), []

    async def handler(delivery: Delivery) -> None:
        if delivery.message.body == b"a1" and delivery.attempt < 3:
            raise ValueError("not yet")
        ended.append((delivery.message.body, now()))

    await fill(broker, b"a1", b"a2", b"b1", key=lambda body: body[:1])
    worker = Worker(broker, "orders", handler, group="g", retry=NO_JITTER)
    await run_until_idle(worker)
    assert ended == [(b"b1", 0.0), (b"a1", 3.0), (b"a2", 3.0)]
    assert not any(isinstance(outcome, Nak) for _, outcome in broker.subscriptions[0].settled)
    assert (worker.stats.retried, worker.stats.acked, worker.stats.started) == (2, 3, 5)


@virtual_time
async def test_a_key_is_never_run_twice_at_once_and_in_order():
    broker, running, seen = ScriptedBroker(), Counter(), {}

    async def handler(message: Message) -> None:
        running[message.key] += 1
        assert running[message.key] == 1
        seen.setdefault(message.key, []).append(int(message.body))
        await asyncio.sleep((int(message.body) * 7 % 5) / 100)
        running[message.key] -= 1

    await fill(broker, *(b"%d" % number for number in range(600)), key=lambda body: b"%d" % (int(body) % 17))
    worker = Worker(broker, "orders", handler, group="g", concurrency=8)
    await run_until_idle(worker)
    assert len(seen) == 17
    assert all(values == sorted(values) for values in seen.values())
    assert broker.subscriptions[0].most_out <= 256


@virtual_time
async def test_never_more_than_concurrency_nor_max_in_flight():
    broker, running, most = ScriptedBroker(), 0, 0

    async def handler(delivery: Delivery) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(1)
        running -= 1

    await fill(broker, *(b"%d" % number for number in range(50)))
    options = SubscribeOptions(max_in_flight=8)
    await run_until_idle(Worker(broker, "orders", handler, group="g", concurrency=4, subscribe=options))
    assert most == 4
    assert broker.subscriptions[0].most_out <= 8
    assert now() >= 13


@virtual_time
async def test_total_order_runs_one_at_a_time():
    broker, seen = ScriptedBroker(), []

    async def handler(delivery: Delivery) -> None:
        seen.append(delivery.message.body)
        await asyncio.sleep(1)

    await fill(broker, b"1", b"2", b"3", key=lambda body: body)
    await run_until_idle(Worker(broker, "orders", handler, group="g", ordering=Ordering.TOTAL))
    assert seen == [b"1", b"2", b"3"]
    assert now() >= 3


@virtual_time
async def test_no_order_hands_the_wait_to_the_broker():
    broker = ScriptedBroker()
    handler = RecordingHandler(fail=lambda delivery, _: ValueError("no") if delivery.attempt < 2 else None)
    await fill(broker, b"x", key="k")
    await run_until_idle(Worker(broker, "orders", handler, group="g", ordering=Ordering.NONE, retry=NO_JITTER))
    assert broker.subscriptions[0].settled[0] == ("x", Nak(1.0))
    assert [delivery.attempt for delivery in handler.deliveries] == [1, 2]


@virtual_time
async def test_no_order_repeats_in_place_where_the_broker_cannot_wait():
    broker = ScriptedBroker(delayed_nak=False)
    handler = RecordingHandler(fail=lambda _, run: ValueError("no") if run < 3 else None)
    await fill(broker, b"x")
    await run_until_idle(Worker(broker, "orders", handler, group="g", ordering=Ordering.NONE, retry=NO_JITTER))
    assert broker.subscriptions[0].log[0] == "Ack x"
    assert now() >= 3


@virtual_time
async def test_handler_nak_parks_in_place():
    broker, times = ScriptedBroker(), []

    async def handler(delivery: Delivery) -> None:
        times.append((delivery.message.body, now()))
        if delivery.message.body == b"1" and delivery.attempt == 1:
            delivery.nak(5)

    await fill(broker, b"1", b"2", key="k")
    await run_until_idle(Worker(broker, "orders", handler, group="g"))
    assert times == [(b"1", 0.0), (b"1", 5.0), (b"2", 5.0)]
    assert broker.subscriptions[0].log[:2] == ["Ack 1", "Ack 2"]


@virtual_time
async def test_retry_later_waits_as_asked():
    broker = ScriptedBroker()
    handler = RecordingHandler(fail=lambda _, run: RetryLaterError(42) if run == 1 else None)
    await fill(broker, b"x")
    await run_until_idle(Worker(broker, "orders", handler, group="g"))
    assert 42 <= now() < 43


@virtual_time
async def test_context_isolated():
    broker, variable, seen = ScriptedBroker(), contextvars.ContextVar("variable", default=0), []

    async def handler(delivery: Delivery) -> None:
        seen.append(variable.get())
        variable.set(1)
        if delivery.message.body != b"0":
            await asyncio.sleep(0.01)
            assert variable.get() == 1

    await fill(broker, b"0", b"1", b"2")
    await run_until_idle(Worker(broker, "orders", handler, group="g", concurrency=1))
    assert seen == [0, 0, 0]


@virtual_time
async def test_task_tools_work_inside_a_handler():
    broker, seen = ScriptedBroker(), []

    async def handler(delivery: Delivery) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.sleep(10)
        async with asyncio.TaskGroup() as group:
            one = group.create_task(asyncio.sleep(1, "done"))
        seen.append(one.result())

    await fill(broker, b"x", b"y")
    await run_until_idle(Worker(broker, "orders", handler, group="g", concurrency=1))
    assert seen == ["done", "done"]


@pytest.mark.parametrize("when", ["before", "suspended", "inside"])
@virtual_time
async def test_a_cancellation_nobody_asked_for_fails_that_message_only(when):
    broker, seen = ScriptedBroker(), []

    async def handler(delivery: Delivery) -> None:
        if delivery.message.body == b"bad" and delivery.attempt == 1:
            if when == "before":
                raise asyncio.CancelledError
            asyncio.current_task().cancel()
            if when == "suspended":
                await asyncio.sleep(1)
        seen.append(delivery.message.body)
        await asyncio.sleep(0.01)

    await fill(broker, b"bad", b"good", b"better")
    await run_until_idle(Worker(broker, "orders", handler, group="g", concurrency=1, retry=NO_JITTER))
    assert set(seen) == {b"bad", b"better", b"good"}
    assert broker.subscriptions[0].log[:-2] == ["Ack good", "Ack better", "Ack bad"]


@virtual_time
async def test_an_early_settle_is_left_alone():
    broker = ScriptedBroker()

    async def handler(delivery: Delivery) -> None:
        if delivery.message.body == b"rejected":
            delivery.reject("no")
            return
        delivery.ack()
        raise ValueError("too late")

    await fill(broker, b"acked", b"rejected")
    worker = Worker(broker, "orders", handler, group="g")
    await run_until_idle(worker)
    assert [outcome for _, outcome in broker.subscriptions[0].settled][1] == Reject("no")
    assert (worker.stats.acked, worker.stats.rejected, worker.stats.late_errors) == (1, 1, 1)


@virtual_time
async def test_acks_of_a_burst_are_told_together(monkeypatch):
    """In order, each to the engine that handed it out; never more than 64 before the loop turns."""
    broker, told, turns = ScriptedBroker(), [], 0

    async def count_turns():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    settle_acked = ScriptedSubscription.settle_acked

    def tell(subscription, deliveries):
        told.append((subscription.topics, [int(delivery.message.body) for delivery in deliveries], turns))
        settle_acked(subscription, deliveries)

    monkeypatch.setattr(ScriptedSubscription, "settle_acked", tell)
    await fill(broker, *(b"%d" % number for number in range(150)))
    await fill(broker, *(b"%d" % number for number in range(10)), topic="other")
    worker = Worker(broker, ["orders", "other"], nothing, group="g", concurrency=1)
    turning = asyncio.create_task(count_turns())
    await run_until_idle(worker)
    turning.cancel()
    assert worker.stats.acked == 160
    assert [number for topics, numbers, _ in told for number in numbers if topics == ("orders",)] == [*range(150)]
    assert [number for topics, numbers, _ in told for number in numbers if topics == ("other",)] == [*range(10)]
    by_turn = Counter()
    for _, numbers, turn in told:
        by_turn[turn] += len(numbers)
    assert max(by_turn.values()) == 64


@virtual_time
async def test_what_fails_lets_the_loop_turn_too():
    """Failures that wait for nothing are runs like any others: others do not wait for a whole queue of them."""
    broker, runs, most, turning = ScriptedBroker(), 0, 0, True

    async def handler(_: Delivery) -> None:
        nonlocal runs
        runs += 1
        raise ValueError("no")

    async def watch():
        nonlocal runs, most
        while turning:
            most, runs = max(most, runs), 0
            await asyncio.sleep(0)

    await fill(broker, *(b"%d" % number for number in range(200)))
    retry = RetryPolicy(max_attempts=1)
    worker = Worker(broker, "orders", handler, group="g", concurrency=1, retry=retry, on_exhausted=DROP)
    watching = asyncio.create_task(watch())
    await run_until_idle(worker)
    turning = False
    await watching
    assert worker.stats.dropped == 200
    assert 0 < most <= 64
