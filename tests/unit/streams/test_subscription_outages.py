"""A subscription on a scripted consumer: what a server says that ends nothing, and what ends it."""

import asyncio
import logging

import pytest

from headrace.core.delivery import RELEASE
from headrace.core.errors import ConnectionLostError
from headrace.streams.errors import (
    ConsumerDeletedError,
    LeadershipChangedError,
    NoHeartbeatError,
    PullRejectedError,
    StreamNotFoundError,
    TemporarilyUnavailableError,
)
from headrace.streams.subscription import StreamSubscription
from headrace.testing.virtual import virtual_time
from tests.unit.streams.scripted import ScriptedConsumer


def subscribed(consumer, remake=None):
    return StreamSubscription(consumer, group="g", lease=30.0, max_in_flight=10, prefetch=5, remake=remake)


def sequences(deliveries):
    return [delivery.position.value for delivery in deliveries]


@virtual_time
async def test_what_passes_is_said_once_and_tried_again(caplog):
    consumer = ScriptedConsumer()
    subscription = subscribed(consumer)
    busy = PullRejectedError("Exceeded MaxWaiting", terminal=False)
    consumer.add(NoHeartbeatError(), LeadershipChangedError(), busy, ConnectionLostError("away"), 1)
    loop = asyncio.get_running_loop()
    waits = []
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            started = loop.time()
            assert await subscription.pull(1, 9.0) == []
            waits.append(loop.time() - started)
    assert waits == pytest.approx([0, 0, 1, 1])
    assert len(caplog.records) == 1
    assert sequences(await subscription.pull(1, 9.0)) == [1]
    consumer.add(NoHeartbeatError())
    with caplog.at_level(logging.WARNING):
        await subscription.pull(1, 9.0)
    assert len(caplog.records) == 2


@virtual_time
async def test_a_group_whose_consumer_is_gone_is_over():
    consumer = ScriptedConsumer()
    consumer.add(ConsumerDeletedError())
    with pytest.raises(ConsumerDeletedError):
        await subscribed(consumer).pull(1, 9.0)


@virtual_time
async def test_a_private_consumer_is_made_anew_as_often_as_it_takes():
    consumer, fresh = ScriptedConsumer(), ScriptedConsumer(start=1, available=1)
    tries = [TemporarilyUnavailableError(), None]
    asked = []

    async def remake(last):
        asked.append(last)
        error = tries.pop(0)
        if error is not None:
            raise error
        return fresh

    subscription = subscribed(consumer, remake)
    consumer.add(1, ConsumerDeletedError(), ConsumerDeletedError())
    assert sequences(await subscription.pull(1, 9.0)) == [1]
    assert await subscription.pull(1, 9.0) == []
    assert await subscription.pull(1, 9.0) == []
    assert sequences(await subscription.pull(1, 9.0)) == [2]
    assert asked == [1, 1]
    assert subscription.consumer is fresh


@virtual_time
async def test_a_private_consumer_whose_stream_is_gone_is_over():
    async def remake(last):
        raise StreamNotFoundError

    consumer = ScriptedConsumer()
    consumer.add(ConsumerDeletedError())
    with pytest.raises(StreamNotFoundError):
        await subscribed(consumer, remake).pull(1, 9.0)


@virtual_time
async def test_what_never_started_is_given_back_once_nothing_can_come_any_more():
    consumer = ScriptedConsumer(available=4)
    subscription = subscribed(consumer)
    started, *_ = await subscription.pull(3, 9.0)
    assert started.start()
    session = consumer.sessions[0]
    given_back = consumer.settled
    settle = session.settle

    def settled(msg, outcome):
        assert session.stopped, "it comes straight into an open pull"
        settle(msg, outcome)

    session.settle = settled
    await subscription.aclose()
    assert given_back == [(2, RELEASE), (3, RELEASE), (4, RELEASE)]
