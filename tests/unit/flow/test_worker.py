"""A worker over the scripted engine, on virtual time."""

import asyncio
import contextvars
import os
import signal
from collections import Counter

import pytest

from headrace.core.broker import Groups, KeyOrder, SubscribeOptions
from headrace.core.delivery import Delivery, Nak, Reject
from headrace.core.errors import (
    ClosedError,
    CodecError,
    ConfigError,
    Fault,
    HandlerError,
    PublishError,
    RejectError,
    RetryLaterError,
    UnsupportedError,
    UsageError,
)
from headrace.core.message import Message
from headrace.flow import BLOCK, DROP, STOP, DeadLetter, FailureStage, Ordering, RetryPolicy, Topic, Worker
from headrace.testing.idle import run_until_idle
from headrace.testing.recording import RecordingHandler
from headrace.testing.virtual import virtual_time
from tests.unit.flow.scripted import ScriptedBroker

NO_JITTER = RetryPolicy(jitter=0)


async def fill(broker, *bodies, topic="orders", key=None):
    for body in bodies:
        await Topic(broker, topic).send(body, key=key(body) if callable(key) else key)


def now() -> float:
    return asyncio.get_running_loop().time()


async def nothing(delivery: Delivery) -> None:
    pass


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


# -- ends ---------------------------------------------------------------------------------------------------------


async def stages_of(broker, error, **options):
    events = []
    handler = RecordingHandler(fail=lambda *_: error)
    worker = Worker(broker, "orders", handler, group="g", on_failure=events.append, **options)
    try:
        await run_until_idle(worker)
    finally:
        pass
    return [(event.stage.value, event.will_retry) for event in events], handler


@virtual_time
async def test_dead_letter_after_its_attempts():
    broker = ScriptedBroker()
    await fill(broker, b"x", key="k")
    stages, handler = await stages_of(
        broker, ValueError("boom\r\n"), retry=RetryPolicy(max_attempts=2), on_exhausted=DeadLetter()
    )
    assert stages == [("retry", True), ("retry", False), ("exhausted", False), ("dead_letter", False)]
    (letter,) = broker.stored["dead.orders"]
    original = handler.messages[0]
    assert letter.id == f"orders.{original.id}.g.dead"
    assert (letter.body, letter.key) == (original.body, original.key)
    assert letter.headers.get("Headrace-Dead-Attempts") == "2"
    assert letter.headers.get("Headrace-Dead-Reason") == "boom\\r\\n"
    assert "dead.orders" in broker.declared
    assert broker.subscriptions[0].log[0] == "Ack x"


@virtual_time
async def test_rejected_does_not_wait_for_attempts():
    broker = ScriptedBroker()
    await fill(broker, b"x")
    stages, handler = await stages_of(
        broker, RejectError("never"), retry=RetryPolicy(max_attempts=9), on_exhausted=DROP
    )
    assert stages == [("retry", False), ("exhausted", False), ("drop", False)]
    assert len(handler.deliveries) == 1
    assert broker.subscriptions[0].settled == [("x", Reject("RejectError: never"))]


@virtual_time
async def test_rejected_without_an_end_stops_the_worker_and_keeps_the_message():
    broker = ScriptedBroker()
    await fill(broker, b"x")
    with pytest.raises(RejectError):
        await stages_of(broker, RejectError("never"))
    assert "Release x" in broker.subscriptions[0].log


@virtual_time
async def test_undecodable_skips_the_attempts():
    broker = ScriptedBroker()
    await fill(broker, b"\xff")

    async def handler(text: str) -> None:
        raise AssertionError(text)

    with pytest.raises(CodecError):
        await Worker(broker, "orders", handler, group="g").run()


@virtual_time
async def test_stop_names_the_message():
    broker = ScriptedBroker()
    await fill(broker, b"x")
    with pytest.raises(HandlerError, match=r"orders .* at orders@1, attempt 1: ValueError: boom") as caught:
        await stages_of(broker, ValueError("boom"), retry=RetryPolicy(max_attempts=1), on_exhausted=STOP)
    assert isinstance(caught.value.__cause__, ValueError)
    assert broker.subscriptions[0].log.count("Release x") == 1


@virtual_time
async def test_block_goes_on():
    broker, events = ScriptedBroker(), []
    await fill(broker, b"x", key="k")
    handler = RecordingHandler(fail=lambda _, run: ValueError("no") if run < 4 else None)
    retry = RetryPolicy(max_attempts=2, jitter=0)
    worker = Worker(broker, "orders", handler, group="g", on_failure=events.append, retry=retry, on_exhausted=BLOCK)
    await run_until_idle(worker)
    stages = [(event.stage.value, event.will_retry) for event in events]
    assert stages == [("retry", True), ("retry", True), ("exhausted", True), ("retry", True)]


@virtual_time
async def test_a_dead_letter_that_cannot_be_published_is_repeated_without_the_handler():
    broker, events = ScriptedBroker(), []
    await fill(broker, b"x", key="k")
    broker.refuse = [PublishError("down", fault=Fault.UNAVAILABLE), OSError("odd"), PublishError("?")]
    handler = RecordingHandler(fail=lambda *_: RejectError("no"))
    worker = Worker(broker, "orders", handler, group="g", on_exhausted=DeadLetter(), on_failure=events.append)
    await run_until_idle(worker)
    assert len(handler.deliveries) == 1
    assert len(broker.stored["dead.orders"]) == 1
    last = [event.will_retry for event in events if event.stage is FailureStage.DEAD_LETTER]
    assert last == [True, True, True, False]


@virtual_time
async def test_a_dead_letter_refused_for_good_stops_the_worker():
    broker = ScriptedBroker()
    await fill(broker, b"x")
    broker.refuse = [PublishError("too large", fault=Fault.REJECTED)]
    with pytest.raises(PublishError, match="too large"):
        await stages_of(broker, RejectError("no"), on_exhausted=DeadLetter())
    assert "Release x" in broker.subscriptions[0].log


@virtual_time
async def test_a_letter_that_would_go_back_stops_the_worker():
    broker = ScriptedBroker()
    await broker.publish(Message(topic="b", body=b"x", headers=_source("a")))
    worker = Worker(
        broker, "b", RecordingHandler(fail=lambda *_: RejectError("no")), group="g", on_exhausted=DeadLetter("a")
    )
    with pytest.raises(ConfigError, match="would go back"):
        await worker.run()


def _source(topic):
    from headrace.core.headers import Headers

    return Headers([("Headrace-Dead-Source", topic), ("Headrace-Dead-Id", "1")])


@virtual_time
async def test_max_deliveries_ends_without_a_run():
    broker = ScriptedBroker()
    await fill(broker, b"x")
    handler = RecordingHandler()
    retry = RetryPolicy(max_deliveries=3)
    async with Worker(broker, "orders", handler, group="g", retry=retry, on_exhausted=DeadLetter()) as worker:
        subscription = broker.subscriptions[0]
        await asyncio.sleep(1)
        subscription.available.append(Delivery(Message(topic="orders", body=b"y"), 4, None, subscription, 1))
        subscription._more.set()
        await asyncio.sleep(1)
        assert worker.stats.dead_lettered == 1
    assert handler.bodies == [b"x"]
    assert [letter.body for letter in broker.stored["dead.orders"]] == [b"y"]


@virtual_time
async def test_withdrawn_frees_the_key_and_releases_what_waits():
    broker = ScriptedBroker()
    handler = RecordingHandler()
    await fill(broker, b"1", b"2", key="k")
    await fill(broker, b"3", key="other")
    broker.lost.add(broker.stored["orders"][0].id)
    async with Worker(broker, "orders", handler, group="g") as worker:
        await asyncio.sleep(1)
        assert worker.stats.withdrawn == 1
        assert worker.stats.held == 0
    assert broker.subscriptions[0].log[:2] == ["Release 2", "Ack 3"]
    assert handler.bodies == [b"3", b"2"]  # released, and handed out again


@virtual_time
async def test_a_parked_key_that_is_withdrawn_is_freed_by_the_sweep():
    broker = ScriptedBroker()
    handler = RecordingHandler(fail=lambda _, run: RetryLaterError(1_000) if run == 1 else None)
    await fill(broker, b"1", b"2", key="k")
    async with Worker(broker, "orders", handler, group="g") as worker:
        await asyncio.sleep(2)
        broker.lost.add(broker.stored["orders"][0].id)
        await asyncio.sleep(2)
        assert worker.stats.withdrawn == 1
        assert handler.bodies == [b"1", b"2"]


@virtual_time
async def test_sweep_keeps_leases_and_ends_long_runs():
    broker = ScriptedBroker()

    async def handler(delivery: Delivery) -> None:
        await asyncio.sleep(95 if delivery.message.body == b"long" else 0)

    await fill(broker, b"long")
    await run_until_idle(Worker(broker, "orders", handler, group="g"))
    assert broker.subscriptions[0].keeps == 9
    events = []
    broker = ScriptedBroker()
    await fill(broker, b"long")
    retry = RetryPolicy(max_attempts=1)
    await run_until_idle(
        Worker(
            broker,
            "orders",
            handler,
            group="g",
            handler_timeout=20,
            retry=retry,
            on_exhausted=DROP,
            on_failure=events.append,
        )
    )
    assert isinstance(events[0].error, TimeoutError)
    assert events[0].time.year == 2000


@virtual_time
async def test_full_is_counted_once_per_episode():
    broker = ScriptedBroker()
    handler = RecordingHandler(fail=lambda _, run: RetryLaterError(50) if run == 1 else None)
    await fill(broker, *(b"%d" % number for number in range(20)), key="hot")
    options = SubscribeOptions(max_in_flight=4)
    worker = Worker(broker, "orders", handler, group="g", concurrency=1, subscribe=options)
    await run_until_idle(worker)
    assert worker.stats.full == 1
    assert len(handler.deliveries) == 21


@virtual_time
async def test_several_topics_share_the_places():
    broker = ScriptedBroker()
    await fill(broker, *(b"a",) * 20)
    await fill(broker, *(b"b",) * 20, topic="other")
    handler = RecordingHandler(then=lambda _: asyncio.sleep(1))
    options = SubscribeOptions(max_in_flight=8)
    worker = Worker(broker, ["orders", "other"], handler, group="g", concurrency=4, subscribe=options)
    await run_until_idle(worker)
    assert Counter(handler.bodies) == {b"a": 20, b"b": 20}
    assert broker.subscriptions[0].pulls[0] == 4  # half: the other one may ask for the rest


@virtual_time
async def test_a_final_error_of_pull_ends_it():
    broker = ScriptedBroker()
    worker = Worker(broker, "orders", nothing, group="g")
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(1)
    broker.subscriptions[0].fail(ClosedError("gone"))
    with pytest.raises(ClosedError, match="gone"):
        await running


@virtual_time
async def test_keyboard_interrupt_in_a_handler_ends_it():
    broker = ScriptedBroker()
    await fill(broker, b"x")
    worker = Worker(broker, "orders", RecordingHandler(fail=lambda *_: SystemExit(3)), group="g")
    task = asyncio.create_task(_swallow(worker))
    assert isinstance(await task, SystemExit)
    assert "Release x" in broker.subscriptions[0].log


async def _swallow(worker):
    try:
        async with worker:
            await asyncio.sleep(100)
    except BaseException as error:
        return error


# -- life ---------------------------------------------------------------------------------------------------------


@virtual_time
async def test_shutdown_in_time():
    broker, ended = ScriptedBroker(), []

    async def handler(delivery: Delivery) -> None:
        await asyncio.sleep(10)
        ended.append(delivery.message.body)

    await fill(broker, b"a1", b"b1", b"a2", b"b2", key=lambda body: body[:1])
    worker = Worker(broker, "orders", handler, group="g", concurrency=1)
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(5)
    await worker.shutdown()
    await running
    assert ended == [b"a1"]
    # b's never started: back at once and in order; a2 only once a1 had settled
    assert broker.subscriptions[0].log == ["stop", "Release b1", "Release b2", "Ack a1", "Release a2", "flush"]
    assert now() == 10
    assert worker.stats.held == 0
    with pytest.raises(ClosedError):
        await worker.run()
    await worker.shutdown()


@virtual_time
async def test_shutdown_late_cancels():
    broker = ScriptedBroker()
    await fill(broker, b"x")
    worker = Worker(broker, "orders", RecordingHandler(then=lambda _: asyncio.sleep(1_000)), group="g")
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(1)
    long = asyncio.create_task(worker.shutdown(100))
    with pytest.raises(TimeoutError):
        await worker.shutdown(5)
    await long
    with pytest.raises(TimeoutError):
        await running
    assert now() == 6
    assert broker.subscriptions[0].log == ["stop", "Release x", "flush"]


@virtual_time
async def test_a_handler_that_swallows_its_cancellation_is_abandoned():
    broker, free = ScriptedBroker(), asyncio.Event()

    async def handler(delivery: Delivery) -> None:
        while not free.is_set():
            try:
                await free.wait()
            except asyncio.CancelledError:
                continue

    await fill(broker, b"x")
    worker = Worker(broker, "orders", handler, group="g")
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(1)
    with pytest.raises(TimeoutError):
        await worker.shutdown(1)
    with pytest.raises(TimeoutError):
        await running
    assert broker.subscriptions[0].log == ["stop", "flush"]
    assert now() == 3
    free.set()
    await asyncio.sleep(0.1)
    assert broker.subscriptions[0].settled == []


@virtual_time
async def test_shutdown_releases_parked_ones_and_from_inside_is_refused():
    broker, errors = ScriptedBroker(), []

    async def handler(delivery: Delivery) -> None:
        if delivery.message.body == b"parked":
            raise RetryLaterError(100)
        try:
            await worker.shutdown()
        except UsageError as error:
            errors.append(error)

    await fill(broker, b"parked", b"inside")
    worker = Worker(broker, "orders", handler, group="g")
    async with worker:
        await asyncio.sleep(1)
    assert len(errors) == 1
    assert broker.subscriptions[0].log == ["Ack inside", "stop", "Release parked", "flush"]


@pytest.mark.parametrize("cancels", [1, 2, 3])
@virtual_time
async def test_cancelled_run_hands_back(cancels):
    broker = ScriptedBroker()
    await fill(broker, b"1", b"2", key="k")
    worker = Worker(broker, "orders", RecordingHandler(then=lambda _: asyncio.sleep(1_000)), group="g")
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(1)
    for _ in range(cancels):
        running.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await running
    assert sorted(broker.subscriptions[0].log) == ["Release 1", "Release 2", "flush", "stop"]


@virtual_time
async def test_states():
    broker = ScriptedBroker()
    worker = Worker(broker, "orders", nothing, group="g")
    await worker.shutdown()
    await worker.run()
    worker = Worker(broker, "orders", nothing, group="g")
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(1)
    with pytest.raises(UsageError):
        await worker.run()
    with pytest.raises(UsageError):
        async with worker:
            pass
    await asyncio.gather(worker.shutdown(), worker.shutdown())
    assert await running is None


@virtual_time
async def test_an_error_of_the_worker_cancels_the_block():
    broker = ScriptedBroker()
    await fill(broker, b"x")
    with pytest.raises(RejectError):
        async with Worker(broker, "orders", RecordingHandler(fail=lambda *_: RejectError("no")), group="g"):
            await asyncio.sleep(1_000)
    assert asyncio.current_task().cancelling() == 0
    assert now() < 1


@virtual_time
async def test_signals_stop_all_workers_of_the_loop_and_are_put_back():
    broker = ScriptedBroker()
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    workers = [Worker(broker, "orders", nothing, group=f"g{number}") for number in range(2)]
    running = [asyncio.create_task(worker.run()) for worker in workers]
    await asyncio.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.gather(*running) == [None, None]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_sync_handlers_run_in_threads():
    import threading

    names, variable = [], contextvars.ContextVar("variable", default=0)

    def handler(body: bytes) -> None:
        names.append((threading.current_thread().name.startswith("headrace-handler"), variable.get()))
        variable.set(1)

    async def main() -> None:
        broker = ScriptedBroker()
        await fill(broker, b"1", b"2", b"3")
        await run_until_idle(Worker(broker, "orders", handler, group="g", concurrency=2))

    virtual_time(main)()
    assert names == [(True, 0)] * 3
    asyncio.run(main())


@pytest.mark.parametrize(
    ("capabilities", "options", "error"),
    [
        ({}, {"concurrency": 0}, ConfigError),
        ({}, {"topics": []}, ConfigError),
        ({}, {"topics": ["a", "a"]}, ConfigError),
        ({}, {"retry": RetryPolicy(max_attempts=3)}, ConfigError),
        ({}, {"retry": RetryPolicy(max_deliveries=3)}, ConfigError),
        ({}, {"on_exhausted": BLOCK, "ordering": Ordering.NONE}, ConfigError),
        ({}, {"on_exhausted": DeadLetter("orders")}, ConfigError),
        ({}, {"topics": ["dead.>", "orders"], "on_exhausted": DeadLetter()}, ConfigError),
        ({}, {"subscribe": SubscribeOptions(group="other")}, ConfigError),
        ({}, {"subscribe": SubscribeOptions(max_in_flight=2)}, ConfigError),
        ({}, {"handler": lambda: None}, ConfigError),
        ({}, {"handler": lambda _: None, "handler_timeout": 5}, ConfigError),
        ({}, {"handler_timeout": -1}, ConfigError),
        ({"wildcards": False}, {"topics": "a.*"}, UnsupportedError),
        ({"key_order": KeyOrder.NONE}, {}, UnsupportedError),
        ({"groups": Groups.NONE}, {}, UnsupportedError),
        ({"broadcast": False}, {"group": None}, UnsupportedError),
        ({"extend": False}, {"subscribe": SubscribeOptions(lease=3)}, UnsupportedError),
        ({"counts": False}, {"retry": RetryPolicy(max_deliveries=3), "on_exhausted": DROP}, UnsupportedError),
    ],
)
@virtual_time
async def test_all_is_checked_at_construction(capabilities, options, error):
    given = {"topics": "orders", "handler": nothing, "group": "g", **options}
    with pytest.raises(error):
        Worker(ScriptedBroker(**capabilities), given.pop("topics"), given.pop("handler"), **given)
