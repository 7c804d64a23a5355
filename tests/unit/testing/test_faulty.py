"""Faulty fails the calls it is told to, and nothing is lost over it."""

import pytest

from headrace.core.errors import BrokerError, PublishError, RejectError
from headrace.flow import DeadLetter, Topic, Worker
from headrace.testing.faulty import Faulty
from headrace.testing.idle import run_until_idle
from headrace.testing.recording import RecordingHandler
from headrace.testing.virtual import virtual_time
from tests.unit.flow.scripted import ScriptedBroker


@virtual_time
async def test_the_nth_call_fails():
    inner = ScriptedBroker()
    broker = Faulty(inner)
    topic = Topic(broker, "orders")
    broker.fail("publish", 2)
    await topic.send(b"1")
    with pytest.raises(PublishError):
        await topic.send(b"2")
    await topic.send(b"3")
    broker.fail("publish_batch", 1)
    assert isinstance((await topic.send_many([b"4"]))[0], PublishError)
    assert [message.body for message in inner.stored["orders"]] == [b"1", b"3"]


@pytest.mark.parametrize("method", ["declare", "subscribe", "pull", "stop", "flush"])
@virtual_time
async def test_a_failing_call_ends_the_worker_and_loses_nothing(method):
    inner = ScriptedBroker()
    broker = Faulty(inner)
    await Topic(broker, "orders").send(b"x")
    broker.fail(method, 1)
    with pytest.raises(BrokerError):
        await run_until_idle(Worker(broker, "orders", RecordingHandler(), group="g", on_exhausted=DeadLetter()))
    for subscription in inner.subscriptions:
        assert subscription.out == 0


@virtual_time
async def test_a_letter_that_failed_is_published_later():
    inner = ScriptedBroker()
    broker = Faulty(inner)
    await Topic(broker, "orders").send(b"x")
    broker.fail("publish", 1, 2)
    handler = RecordingHandler(fail=lambda *_: RejectError("no"))
    await run_until_idle(Worker(broker, "orders", handler, group="g", on_exhausted=DeadLetter()))
    assert len(handler.deliveries) == 1
    assert len(inner.stored["dead.orders"]) == 1
