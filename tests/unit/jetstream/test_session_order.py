"""The count of an ordered reader, and the bell that wakes whoever waits for a session."""

import asyncio

import pytest

from headrace.jetstream.consumers.bell import Bell
from headrace.jetstream.consumers.order import Order
from headrace.streams.errors import ConsumerDeletedError
from headrace.testing.virtual import virtual_time


def reply(order):
    return b"$JS.ACK.S.C.1.100.%d.1795290198135344835.0" % order


def test_messages_in_a_row():
    order = Order(4, "S.C")
    assert [order.gap_before(reply(number)) for number in (5, 6, 7)] == [None] * 3
    assert order.last == 7


@pytest.mark.parametrize("came", [reply(4), reply(6), reply(1), b"$JS.ACK.S.C.1.100.x.1795290198135344835.0", b""])
def test_a_gap_is_an_end_and_counts_nothing(came):
    order = Order(4, "S.C")
    error = order.gap_before(came)
    assert isinstance(error, ConsumerDeletedError)
    assert "message 5 of S.C" in str(error)
    assert order.last == 4


@pytest.mark.parametrize(
    ("said", "lost"), [(["5"], True), (["4"], False), (["3"], False), ([], False), (["x"], False), (["-9"], False)]
)
def test_a_heartbeat_tells_of_a_lost_tail(said, lost):
    found = Order(4, "S.C").gap_at_end({"Nats-Last-Consumer": said})
    assert isinstance(found, ConsumerDeletedError) is lost


def test_a_heartbeat_without_a_count_tells_nothing():
    assert Order(4, "S.C").gap_at_end({}) is None


@virtual_time
async def test_the_bell_wakes_and_forgets():
    bell = Bell()
    bell.ring()  # nobody waits
    loop = asyncio.get_running_loop()
    started = loop.time()
    await bell.wait(3.0)
    assert loop.time() - started == pytest.approx(3)
    loop.call_later(1.0, bell.ring)
    loop.call_later(1.0, bell.ring)
    await bell.wait(None)
    assert loop.time() - started == pytest.approx(4)
    waiting = asyncio.create_task(bell.wait(None))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    bell.ring()
    await bell.wait(0.5)
    assert loop.time() - started == pytest.approx(4.5)
