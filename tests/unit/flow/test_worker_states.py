"""A worker's life: shutdown, cancellation, signals, checks at construction."""

import asyncio
import contextvars
import os
import signal

import pytest

from headrace.core.broker import Groups, KeyOrder, SubscribeOptions
from headrace.core.delivery import Delivery
from headrace.core.errors import (
    ClosedError,
    ConfigError,
    RejectError,
    RetryLaterError,
    UnsupportedError,
    UsageError,
)
from headrace.flow import BLOCK, DROP, DeadLetter, Ordering, RetryPolicy, Worker
from headrace.testing.idle import run_until_idle
from headrace.testing.recording import RecordingHandler
from headrace.testing.virtual import virtual_time
from tests.unit.flow.scripted import ScriptedBroker
from tests.unit.flow.tools import fill, nothing, now


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


async def enter(worker):
    async with worker:
        return "entered"


CALLS = {"run": lambda worker: worker.run(), "shutdown": lambda worker: worker.shutdown(), "enter": enter}


@pytest.mark.parametrize(
    ("first", "second", "ends"),
    [
        ("nothing", "shutdown", None),
        ("nothing", "enter", "entered"),
        ("running", "run", UsageError),
        ("running", "enter", UsageError),
        ("running", "shutdown", None),
        ("entered", "run", UsageError),
        ("entered", "enter", UsageError),
        ("entered", "shutdown", None),
        ("shut down", "run", None),
        ("shut down", "enter", ClosedError),
        ("shut down", "shutdown", None),
        ("ended", "run", ClosedError),
        ("ended", "enter", ClosedError),
        ("ended", "shutdown", None),
        ("left", "run", ClosedError),
        ("left", "enter", ClosedError),
        ("left", "shutdown", None),
    ],
)
@virtual_time
async def test_every_pair_of_calls(first, second, ends):
    worker = Worker(ScriptedBroker(), "orders", nothing, group="g")
    running = None
    if first in ("running", "ended"):
        running = asyncio.create_task(worker.run())
        await asyncio.sleep(1)
    if first in ("entered", "left"):
        await worker.__aenter__()
    if first in ("shut down", "ended"):
        await worker.shutdown()
    if first == "left":
        await worker.__aexit__(None, None, None)
    call = CALLS[second](worker)
    if isinstance(ends, type):
        with pytest.raises(ends):
            await call
    else:
        assert await call == ends
    await worker.shutdown()
    if first == "entered":
        await worker.__aexit__(None, None, None)
    if running is not None:
        assert await running is None


def test_no_signals_outside_the_main_thread():
    import threading

    before, seen = signal.getsignal(signal.SIGTERM), []

    async def main():
        broker = ScriptedBroker()
        await fill(broker, b"x")
        running = asyncio.create_task(Worker(broker, "orders", nothing, group="g").run())
        await asyncio.sleep(1)
        seen.append(signal.getsignal(signal.SIGTERM))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    thread = threading.Thread(target=virtual_time(main))
    thread.start()
    thread.join()
    assert seen == [before]


@virtual_time
async def test_a_hung_run_is_reported_once(caplog):
    broker = ScriptedBroker()
    await fill(broker, b"x")
    await run_until_idle(Worker(broker, "orders", RecordingHandler(then=lambda _: asyncio.sleep(299)), group="g"))
    said = [record for record in caplog.records if "runs for" in record.getMessage()]
    assert len(said) == 1
    assert "60 s" in said[0].getMessage()
    assert (now(), broker.subscriptions[0].keeps) == (299, 29)


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
