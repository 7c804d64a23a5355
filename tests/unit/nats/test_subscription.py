"""Subscriptions: what the server is told of them, and what is handed out until it knows."""

import asyncio

from headrace.nats.subscription import Subscriptions
from tests.unit.nats.test_outgoing import attached, outgoing, run


def kept():
    """A list, and the callback that puts bodies into it."""
    got = []
    return got, lambda subject, reply, header, data: got.append(data)


def hand(subscriptions, subscription, data):
    """As the parser does; False: it is dropped."""
    handler = subscriptions.handlers.get(subscription.key)
    if handler is not None:
        handler(b"a", b"", b"", data)
    return handler is not None


@run
async def test_a_quiet_one_still_hands_out_what_is_on_its_way():
    out, wire = attached()
    subscriptions, (got, take) = Subscriptions(out), kept()
    one = subscriptions.add(b"a", b"", take)
    await asyncio.sleep(0)
    one.quiet()
    one.quiet()
    await asyncio.sleep(0)
    assert wire.writes == [b"SUB a 1\r\n", b"UNSUB 1\r\n"], "the server is told once"
    assert not one.closed
    assert hand(subscriptions, one, b"x")
    assert got == [b"x"]
    one.unsubscribe()
    await asyncio.sleep(0)
    assert one.closed
    assert not hand(subscriptions, one, b"y")
    assert len(wire.writes) == 2, "it knows already"
    assert got == [b"x"]


@run
async def test_a_quiet_one_is_not_asked_for_again_on_a_new_link():
    out = outgoing()
    subscriptions, (_, take) = Subscriptions(out), kept()
    one, _ = subscriptions.add(b"a", b"", take), subscriptions.add(b"b", b"q", take)
    one.quiet()
    assert subscriptions.frames() == b"SUB b q 2\r\n"


@run
async def test_one_that_is_quiet_before_its_sub_is_written_is_never_heard_of():
    out, wire = attached()
    subscriptions, (_, take) = Subscriptions(out), kept()
    subscriptions.add(b"a", b"", take).quiet()
    await asyncio.sleep(0)
    assert wire.writes == []


@run
async def test_after_its_end_nothing_is_said_of_it():
    out, wire = attached()
    subscriptions, (_, take) = Subscriptions(out), kept()
    one = subscriptions.add(b"a", b"", take)
    await asyncio.sleep(0)
    one.unsubscribe()
    one.quiet()
    await asyncio.sleep(0)
    assert wire.writes == [b"SUB a 1\r\n", b"UNSUB 1\r\n"]
