"""Closing while the driver's thread waits for brokers that are away; and who closes twice."""

import asyncio
import time

import pytest
from confluent_kafka import KafkaError as DriverError
from confluent_kafka import KafkaException

from headrace.core.errors import BrokerTimeoutError
from headrace.kafka.codes import Code
from headrace.kafka.consuming import opening
from tests.unit.kafka.consuming_script import Record, Script, failed, joined, options, pulled
from tests.unit.kafka.test_consuming_revoke import SOON, in_loop, until


def away(*_, cached=False, **__):
    """What asks the brokers fails, and not for good."""
    if cached:
        return -1001, -1001
    time.sleep(0.01)
    raise KafkaException(DriverError(Code.LOCAL_TRANSPORT))


async def at_work(script, **given):
    """A member that has finished four records, none of it committed."""
    subscription = joined(script, options(commit_interval=60, **given))
    await subscription.poller.start()
    script.give(0)
    script.arrive(*(Record(offset) for offset in range(4)))
    for delivery in await pulled(subscription, 4):
        assert delivery.start()
        delivery.ack()
    return subscription


def assigned_meanwhile(script):
    script.committed = away
    script.give(1)


def out_of_range_meanwhile(script):
    script.get_watermark_offsets = away
    script.arrive(failed(Code.OFFSET_OUT_OF_RANGE, offset=4))


@pytest.mark.parametrize("meanwhile", [assigned_meanwhile, out_of_range_meanwhile])
@in_loop
async def test_a_close_does_not_wait_for_an_answer_that_does_not_come(meanwhile):
    """Where reading goes on is of no use any more; what is finished is still committed."""
    script = Script(2)
    subscription = await at_work(script, on_out_of_range="earliest")
    meanwhile(script)
    await asyncio.sleep(0.2)
    began = time.monotonic()
    await subscription.aclose()
    assert time.monotonic() - began < SOON
    assert script.closed
    assert script.stored["orders", 0] == (4, "")


@in_loop
async def test_a_close_while_it_begins_ends_it():
    script = Script()
    script.committed = away
    subscription = joined(script, options())
    beginning = asyncio.create_task(subscription.poller.start())
    await asyncio.sleep(0.1)
    began = time.monotonic()
    await subscription.aclose()
    await asyncio.gather(beginning, return_exceptions=True)
    assert time.monotonic() - began < SOON
    await until(lambda: script.closed)


@in_loop
async def test_a_flush_that_the_thread_cannot_come_to_ends(monkeypatch):
    monkeypatch.setattr(opening, "_CONFIRM", 0.1)
    script = Script(2)
    subscription = await at_work(script, session_timeout=0.2, max_poll_interval=40)
    assigned_meanwhile(script)
    await asyncio.sleep(0.2)
    with pytest.raises(BrokerTimeoutError, match="did not answer"):
        await subscription.flush()
    await subscription.aclose()


@in_loop
async def test_who_closes_as_well_returns_when_it_has_left(monkeypatch):
    monkeypatch.setattr(opening, "_CONFIRM", 0.3)
    script = Script()
    subscription = await at_work(script, session_timeout=1)
    script.silent = True
    subscription.stays[0].epoch.tracker.begin(4)
    subscription.stays[0].epoch.tracker.finish(4)
    first = asyncio.create_task(subscription.aclose())
    await asyncio.sleep(0.05)
    await subscription.aclose()
    assert script.closed
    assert not script.thread.is_alive()
    with pytest.raises(BrokerTimeoutError):
        await first


@in_loop
async def test_a_revoke_is_heard_before_reading_goes_on_elsewhere():
    """To take a partition away from the driver by ourselves would answer it: another had it while its messages ran."""
    script = Script(2)
    subscription = joined(script, options(on_out_of_range="earliest", drain_timeout=20))
    await subscription.poller.start()
    script.give(0, 1)
    await until(lambda: len(subscription.stays) == 2)
    script.arrive(Record(0))
    (running,) = await pulled(subscription, 1)
    assert running.start()

    def asked(place, timeout=None, cached=False):
        if not cached:
            script.take_away(0, 1)
        return (-1001, -1001) if cached else (40, 60)

    script.get_watermark_offsets = asked
    script.arrive(failed(Code.OFFSET_OUT_OF_RANGE, offset=3, partition=1))
    await asyncio.sleep(0.3)
    assert set(script.assigned) == {("orders", 0), ("orders", 1)}, "it was taken away while a message ran"
    running.ack()
    await until(lambda: not script.assigned)
    await subscription.aclose()
