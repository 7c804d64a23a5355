"""How a message that fails ends, and what ends a worker."""

import asyncio
from collections import Counter

import pytest

from headrace.core.broker import SubscribeOptions
from headrace.core.delivery import Delivery, Reject
from headrace.core.errors import (
    ClosedError,
    CodecError,
    ConfigError,
    Fault,
    HandlerError,
    PublishError,
    RejectError,
    RetryLaterError,
)
from headrace.core.message import Message
from headrace.flow import BLOCK, DROP, STOP, DeadLetter, FailureStage, RetryPolicy, Worker
from headrace.testing.idle import run_until_idle
from headrace.testing.recording import RecordingHandler
from headrace.testing.virtual import virtual_time
from tests.unit.flow.scripted import ScriptedBroker
from tests.unit.flow.tools import fill, nothing


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
async def test_full_is_counted_once_per_episode(caplog):
    broker = ScriptedBroker()
    handler = RecordingHandler(fail=lambda _, run: RetryLaterError(50) if run == 1 else None)
    await fill(broker, *(b"%d" % number for number in range(20)), key="hot")
    options = SubscribeOptions(max_in_flight=4)
    worker = Worker(broker, "orders", handler, group="g", concurrency=1, subscribe=options)
    await run_until_idle(worker)
    assert worker.stats.full == 1
    assert len(handler.deliveries) == 21
    (said,) = [line for line in caplog.records if "places are taken" in line.message]
    assert said.levelname == "ERROR"
    assert "RetryLaterError" in said.getMessage()


@virtual_time
async def test_full_is_said_once_a_minute(caplog):
    """Few keys and a slow handler are full all the time: that is no error, and no line for each second of it."""
    broker = ScriptedBroker()
    await fill(broker, *(b"%d" % number for number in range(200)), key="hot")

    async def slow(delivery: Delivery) -> None:
        await asyncio.sleep(1)

    options = SubscribeOptions(max_in_flight=4)
    worker = Worker(broker, "orders", slow, group="g", concurrency=2, subscribe=options)
    await run_until_idle(worker)
    said = [(line.levelname, line.getMessage()) for line in caplog.records if "places are taken" in line.message]
    assert worker.stats.full > 40
    assert 3 <= len(said) <= 5
    assert said[0][0] == "WARNING"
    assert "(running)" in said[0][1]
    assert "1 times so far: 3 wait behind orders" in said[0][1]


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
