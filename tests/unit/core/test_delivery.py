"""Delivery: settled once, views share it, the private slot takes a Nak. Clock and durations beside it."""

import asyncio
from contextlib import suppress
from datetime import timedelta

import pytest

from headrace.core.clock import SystemClock, current_clock
from headrace.core.delivery import ACK, RELEASE, Delivery, Nak, Position, Reject
from headrace.core.duration import seconds_of
from headrace.core.errors import AlreadySettledError, ConfigError
from headrace.core.message import Message
from headrace.testing.virtual import VirtualClock, virtual_time


class Owner:
    group = "g"

    def __init__(self):
        self.outcomes = []

    def settle(self, delivery, outcome):
        self.outcomes.append(outcome)


def delivery_of(owner):
    return Delivery(Message(topic="t", body=b""), 1, None, owner)


@pytest.mark.parametrize(
    ("call", "outcome"),
    [
        (lambda one: one.ack(), ACK),
        (lambda one: one.nak(timedelta(seconds=3)), Nak(3.0)),
        (lambda one: one.reject("no"), Reject("no")),
        (lambda one: one.settle(RELEASE), RELEASE),
    ],
)
def test_the_first_settle_wins_over_all_views(call, outcome):
    owner = Owner()
    delivery = delivery_of(owner)
    view = delivery.with_message(Message(topic="t", body=b"other"))
    call(view)
    assert (delivery.outcome, owner.outcomes) == (outcome, [outcome])
    for late in (delivery.ack, view.nak, delivery.extend):
        with pytest.raises(AlreadySettledError):
            late()


@pytest.mark.parametrize(("error", "outcome"), [(None, ACK), (ValueError, Nak()), (asyncio.CancelledError, RELEASE)])
def test_as_a_block(error, outcome):
    owner = Owner()
    with suppress(error or ()), delivery_of(owner):
        if error is not None:
            raise error
    assert owner.outcomes == [outcome]


def test_the_private_slot_takes_a_nak_only():
    owner, taken = Owner(), []
    delivery = delivery_of(owner)
    delivery.settlement.judge = lambda _, outcome: taken.append(outcome)
    delivery.nak(2)
    assert (taken, owner.outcomes) == ([Nak(2.0)], [])


def test_positions_compare_inside_one_source():
    assert Position("a", 1) < Position("a", 2) <= Position("a", 2)
    assert str(Position("a", 1)) == "a@1"
    with pytest.raises(TypeError):
        Position("a", 1) < Position("b", 2)  # noqa: B015


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "1", True, timedelta(seconds=-1)])
def test_senseless_durations(value):
    with pytest.raises(ConfigError, match="wait"):
        seconds_of(value, "wait")


def test_the_clock_is_the_loops_own():
    assert isinstance(current_clock(), SystemClock)
    assert current_clock().monotonic() <= current_clock().monotonic()
    given = SystemClock()
    assert current_clock(given) is given

    @virtual_time
    async def main():
        return current_clock()

    assert isinstance(main(), VirtualClock)
