"""Pings: when a server counts as gone, and whom its answers belong to."""

import asyncio
import time

import pytest

from headrace.core.errors import BrokerTimeoutError, ConnectionLostError
from headrace.nats.errors import StaleConnectionError
from headrace.nats.outgoing import PING
from headrace.nats.pings import Pings
from tests.unit.nats.test_outgoing import attached, outgoing, run


def pings_of(out, *, interval=0.01, most=2):
    stale = []
    return Pings(out, stale.append, interval=interval, most=most), stale


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


@run
async def test_more_unanswered_pings_than_allowed_are_the_end():
    out, wire = attached()
    pings, stale = pings_of(out, most=3)
    pings.start()
    await until(lambda: stale)
    assert [type(error) for error in stale] == [StaleConnectionError]
    assert b"".join(wire.writes) == PING * 3
    pings.stop(ConnectionLostError())


@run
async def test_one_answer_is_enough_for_all_before():
    out, wire = attached()
    pings, stale = pings_of(out)
    pings.start()
    for count in range(2, 12, 2):
        await until(lambda count=count: len(wire.writes) >= count or stale)
        pings.pong()
    assert not stale
    pings.stop(ConnectionLostError())


@run
async def test_a_blocked_loop_is_no_dead_server():
    out, wire = attached()
    pings, stale = pings_of(out, interval=0.02, most=1)
    loop = asyncio.get_running_loop()
    pings.start()
    for _ in range(5):
        before = len(wire.writes)
        await until(lambda before=before: len(wire.writes) > before)
        time.sleep(0.045)  # the answer waits in the socket, and what is due is run first
        loop.call_later(0, pings.pong)
        await asyncio.sleep(0.001)
    assert not stale
    pings.stop(ConnectionLostError())


@run
async def test_answers_go_to_those_who_asked_in_their_order():
    out, _ = attached()
    pings, _ = pings_of(out, interval=1000.0)
    pings.pong()  # unasked
    one, two = (asyncio.ensure_future(pings.flush(20)) for _ in range(2))
    await asyncio.sleep(0)
    one.cancel()
    pings.pong()
    await asyncio.sleep(0)
    assert not two.done()
    pings.pong()
    await two
    assert not pings._waiting


@run
async def test_a_flush_that_was_never_sent_leaves_nothing():
    out = outgoing()
    pings, _ = pings_of(out)
    for _ in range(3):
        with pytest.raises(BrokerTimeoutError):
            await pings.flush(0.001)
    assert out.size == 0
    assert not pings._waiting


@run
async def test_a_lost_link_ends_every_flush_with_an_error_of_its_own():
    out, _ = attached()
    pings, _ = pings_of(out)
    waiting = [asyncio.ensure_future(pings.flush(20)) for _ in range(3)]
    await asyncio.sleep(0)
    cause = ValueError("gone")
    pings.stop(cause)
    errors = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(type(error) is ConnectionLostError and error.__cause__ is cause for error in errors)
    assert len(set(map(id, errors))) == 3
