"""fetch, next, messages, consume over a scripted session: what every engine gets for free."""

import asyncio
import logging

import pytest

from headrace.core.delivery import ACK, RELEASE, Nak, Reject
from headrace.core.errors import ConfigError, HandlerError, RejectError, RetryLaterError
from headrace.streams.config import ConsumerConfig, PullOptions
from headrace.streams.errors import (
    ConsumerDeletedError,
    IteratorClosedError,
    NoHeartbeatError,
    NoMessagesError,
    StreamError,
)
from headrace.streams.fetch import FetchReason
from headrace.testing.virtual import virtual_time
from tests.unit.streams.scripted import ScriptedConsumer, ScriptedSession


def tokens(messages):
    return [msg.token for msg in messages]


def released(consumer):
    return [token for token, outcome in consumer.settled if outcome == RELEASE]


@virtual_time
async def test_fetch_ends_when_full():
    consumer = ScriptedConsumer(available=5)
    batch = consumer.fetch(3)
    assert tokens(await batch) == [1, 2, 3]
    assert (batch.reason, batch.error) == (FetchReason.FILLED, None)
    assert consumer.sessions[0].closed


@virtual_time
async def test_fetch_waits_for_the_rest_and_expires():
    consumer = ScriptedConsumer(available=2)
    started = asyncio.get_running_loop().time()
    batch = consumer.fetch(3, max_wait=7)
    assert tokens(await batch) == [1, 2]
    assert batch.reason is FetchReason.EXPIRED
    assert asyncio.get_running_loop().time() - started == pytest.approx(7)


@virtual_time
async def test_fetch_no_wait_does_not():
    consumer = ScriptedConsumer()
    batch = consumer.fetch_no_wait(3)
    assert await batch == []
    assert batch.reason is FetchReason.NO_MESSAGES


class SilentSession(ScriptedSession):
    """Its engine never answers, not even when the time of a pull is over."""

    async def pull(self, limit, wait, *, max_bytes=None):
        got = await super().pull(limit, 0, max_bytes=max_bytes)
        if not got:
            await asyncio.Event().wait()
        return got


@pytest.mark.parametrize(
    ("available", "no_wait", "lasts", "reason"),
    [
        (2, False, 8, FetchReason.EXPIRED),
        (0, False, 8, FetchReason.EXPIRED),
        (0, True, 5, FetchReason.NO_MESSAGES),
    ],
)
@virtual_time
async def test_a_fetch_has_a_guard_of_its_own(available, no_wait, lasts, reason):
    consumer = ScriptedConsumer(available=available, kind=SilentSession)
    started = asyncio.get_running_loop().time()
    batch = consumer.fetch_no_wait(3) if no_wait else consumer.fetch(3, max_wait=7)
    assert tokens(await batch) == list(range(1, available + 1))
    assert (batch.reason, batch.error) == (reason, None)
    assert asyncio.get_running_loop().time() - started == pytest.approx(lasts)
    assert consumer.sessions[0].closed


@pytest.mark.parametrize(("limit", "count"), [(250, 5), (90, 2), (43, 1), (10, 0)])
@virtual_time
async def test_fetch_bytes_counts_whole_messages(limit, count):
    consumer = ScriptedConsumer(available=9)
    batch = consumer.fetch_bytes(limit, max_wait=1)
    got = await batch
    assert len(got) == (250 // 42 if limit == 250 else count)
    assert batch.reason is FetchReason.MAX_BYTES


@virtual_time
async def test_an_error_after_some_is_kept_and_iteration_raises_it():
    consumer = ScriptedConsumer(available=2)
    consumer.add(ConsumerDeletedError())
    batch = consumer.fetch(5)
    assert tokens(await batch) == [1, 2]
    assert batch.reason is FetchReason.ERROR
    assert isinstance(batch.error, ConsumerDeletedError)
    consumer.add(3, ConsumerDeletedError())
    seen = []
    with pytest.raises(ConsumerDeletedError):
        async for msg in consumer.fetch(5):
            seen.append(msg.token)
    assert seen == [3]


@virtual_time
async def test_an_error_before_any_is_raised():
    consumer = ScriptedConsumer()
    consumer.add(ConsumerDeletedError())
    with pytest.raises(ConsumerDeletedError):
        await consumer.fetch(5)


@virtual_time
async def test_leaving_a_fetch_early_gives_back_in_order():
    consumer = ScriptedConsumer(available=4)
    async with consumer.fetch(4) as batch:
        async for msg in batch:
            await msg.ack()
            break
    assert consumer.settled == [(1, ACK), (2, RELEASE), (3, RELEASE), (4, RELEASE)]


@virtual_time
async def test_a_cancelled_fetch_gives_back():
    consumer = ScriptedConsumer(available=2)
    task = asyncio.create_task(_collect(consumer.fetch(4)))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert released(consumer) == [1, 2]


async def _collect(batch):
    return await batch


@virtual_time
async def test_next():
    consumer = ScriptedConsumer(available=1)
    assert (await consumer.next()).token == 1
    with pytest.raises(NoMessagesError):
        await consumer.next(max_wait=2)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda c: c.fetch(0), "batch"),
        (lambda c: c.fetch(1, max_wait=0), "max_wait"),
        (lambda c: c.fetch(1, max_wait=10, heartbeat=6), "heartbeat"),
        (lambda c: c.fetch_bytes(0), "max_bytes"),
        (lambda c: c.fetch_no_wait(True), "batch"),
        (lambda c: c.consume(None), "handler"),
        (lambda c: c.messages(error_handler=3), "error_handler"),
    ],
)
@virtual_time
async def test_what_the_readers_refuse(call, named):
    with pytest.raises(ConfigError, match=named):
        call(ScriptedConsumer())


@virtual_time
async def test_messages_one_by_one_then_stop_gives_back():
    consumer = ScriptedConsumer(available=5)
    async with consumer.messages() as messages:
        seen = []
        async for msg in messages:
            await msg.ack()
            seen.append(msg.token)
            if len(seen) == 2:
                break
    assert seen == [1, 2]
    assert released(consumer) == [3, 4, 5]
    await messages.wait_closed()
    with pytest.raises(IteratorClosedError):
        await messages.next()


@virtual_time
async def test_stop_wakes_all_who_wait():
    consumer = ScriptedConsumer()
    messages = consumer.messages()
    waiters = [asyncio.create_task(messages.next()) for _ in range(3)]
    await asyncio.sleep(1)
    messages.stop()
    messages.stop()
    results = await asyncio.gather(*waiters, return_exceptions=True)
    assert [type(each) for each in results] == [IteratorClosedError] * 3
    await messages.wait_closed()


@virtual_time
async def test_waiters_are_served_in_order():
    consumer = ScriptedConsumer()
    async with consumer.messages() as messages:
        waiters = [asyncio.create_task(messages.next()) for _ in range(3)]
        await asyncio.sleep(1)
        consumer.add(1, 2, 3)
        assert tokens(await asyncio.gather(*waiters)) == [1, 2, 3]


@virtual_time
async def test_a_cancelled_next_loses_nothing():
    consumer = ScriptedConsumer()
    async with consumer.messages() as messages:
        waiter = asyncio.create_task(messages.next())
        await asyncio.sleep(1)
        consumer.add(1)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        assert (await messages.next(timeout=1)).token == 1
        with pytest.raises(NoMessagesError):
            await messages.next(timeout=1)
        with pytest.raises(NoMessagesError):
            await messages.next(timeout=0)


@virtual_time
async def test_drain_hands_over_the_buffer_and_closes():
    consumer = ScriptedConsumer(available=3)
    messages = consumer.messages()
    assert (await messages.next()).token == 1
    await messages.drain()
    consumer.add(4)
    assert tokens([msg async for msg in messages]) == [2, 3]
    await messages.wait_closed()
    await messages.drain()
    assert released(consumer) == []


@virtual_time
async def test_draining_an_empty_buffer_closes_at_once():
    messages = ScriptedConsumer().messages()
    await messages.drain()
    await messages.wait_closed()


@virtual_time
async def test_drain_while_somebody_waits():
    messages = ScriptedConsumer().messages()
    waiter = asyncio.create_task(messages.next())
    await asyncio.sleep(1)
    await messages.drain()
    with pytest.raises(IteratorClosedError):
        await waiter
    await messages.wait_closed()


@virtual_time
async def test_stop_after_hands_over_exactly_so_many():
    consumer = ScriptedConsumer(available=5)
    messages = consumer.messages(PullOptions(stop_after=3))
    assert tokens([msg async for msg in messages]) == [1, 2, 3]
    await messages.wait_closed()
    assert messages.stats.handed_over == 3
    assert list(consumer.queue) == [4, 5]


@virtual_time
async def test_what_aged_in_the_buffer_is_dropped_but_for_a_last_delivery():
    consumer = ScriptedConsumer(available=3)
    consumer.dead.add(1)
    async with consumer.messages() as messages:
        assert (await messages.next()).token == 2
        assert messages.stats.expired_in_buffer == 1
    last = ScriptedConsumer(ConsumerConfig(max_deliver=1), available=1)
    last.dead.add(1)
    async with last.messages() as messages:
        assert (await messages.next()).token == 1


@virtual_time
async def test_a_passing_error_is_reported_and_reading_goes_on():
    consumer = ScriptedConsumer()
    errors = []
    async with consumer.messages(error_handler=lambda _, error: errors.append(error)) as messages:
        consumer.add(StreamError("odd"), 1)
        assert (await messages.next()).token == 1
        assert [str(error) for error in errors] == ["odd"]
        assert asyncio.get_running_loop().time() == pytest.approx(1.0)


@virtual_time
async def test_a_terminal_error_is_raised_once_then_it_is_closed():
    consumer = ScriptedConsumer()
    consumer.add(ConsumerDeletedError())
    messages = consumer.messages(error_handler=lambda *_: None)
    with pytest.raises(ConsumerDeletedError):
        await messages.next()
    with pytest.raises(IteratorClosedError):
        await messages.next()
    for _ in range(2):
        with pytest.raises(ConsumerDeletedError):
            await messages.wait_closed()


@virtual_time
async def test_a_missing_heartbeat_is_raised_and_reading_may_go_on():
    consumer = ScriptedConsumer()
    consumer.add(NoHeartbeatError(), 1)
    async with consumer.messages(error_handler=lambda *_: None) as messages:
        with pytest.raises(NoHeartbeatError):
            await messages.next()
        assert (await messages.next()).token == 1
    consumer.add(NoHeartbeatError(), 2)
    options = PullOptions(error_on_missing_heartbeat=False)
    async with consumer.messages(options, error_handler=lambda *_: None) as messages:
        assert (await messages.next()).token == 2


@virtual_time
async def test_errors_without_a_handler_are_logged_once_per_kind(caplog):
    consumer = ScriptedConsumer()
    consumer.add(StreamError("one"), StreamError("two"), 1)
    with caplog.at_level(logging.WARNING):
        async with consumer.messages() as messages:
            await messages.next()
    assert len(caplog.records) == 1


@virtual_time
async def test_a_long_buffer_lets_others_run():
    consumer = ScriptedConsumer(available=1000)
    turns = 0

    async def other():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    async with consumer.messages(PullOptions(max_messages=1000, stop_after=1000)) as messages:
        async for _ in messages:
            pass
    task.cancel()
    assert turns >= 3


@virtual_time
async def test_consume_is_serial_and_stops_from_the_handler():
    consumer = ScriptedConsumer(available=4)
    seen = []

    async def handler(msg):
        seen.append(msg.token)
        await asyncio.sleep(1)
        await msg.ack()
        if msg.token == 2:
            context.stop()

    context = consumer.consume(handler)
    await context.wait_closed()
    assert seen == [1, 2]
    assert consumer.settled == [(1, ACK), (2, ACK), (3, RELEASE), (4, RELEASE)]


@virtual_time
async def test_consume_drains_from_the_handler():
    consumer = ScriptedConsumer(available=3)
    seen = []

    async def handler(msg):
        seen.append(msg.token)
        await context.drain()
        consumer.add(9)

    context = consumer.consume(handler)
    await context.wait_closed()
    assert seen == [1, 2, 3]


@virtual_time
async def test_leaving_consume_waits_for_its_handler():
    consumer = ScriptedConsumer(available=1)
    done = []

    async def handler(msg):
        await asyncio.sleep(5)
        done.append(msg.token)

    async with consumer.consume(handler):
        await asyncio.sleep(1)
    assert done == [1]


@virtual_time
async def test_a_failing_handler_is_answered_for():
    consumer = ScriptedConsumer(available=4)
    failures = [ValueError("x"), RejectError("never"), RetryLaterError(7), None]
    errors = []

    def handler(msg):
        failure = failures[msg.token - 1]
        if failure is not None:
            raise failure
        msg.settle(ACK)

    context = consumer.consume(handler, PullOptions(stop_after=4), error_handler=lambda _, error: errors.append(error))
    await context.wait_closed()
    assert consumer.settled == [(1, Nak(1.0)), (2, Reject("never")), (3, Nak(7.0)), (4, ACK)]
    assert [type(error) for error in errors] == [HandlerError] * 3
    assert errors[0].__cause__ is failures[0]


@virtual_time
async def test_a_failing_error_handler_is_survived(caplog):
    consumer = ScriptedConsumer()
    consumer.add(StreamError(), 1)

    async def broken(_context, _error):
        raise ValueError("broken")

    async with consumer.messages(error_handler=broken) as messages:
        assert (await messages.next()).token == 1
    assert "error handler failed" in caplog.text


@virtual_time
async def test_consume_ends_on_a_terminal_error():
    consumer = ScriptedConsumer(available=1)
    consumer.add(ConsumerDeletedError())
    errors = []
    context = consumer.consume(lambda _: None, error_handler=lambda _, error: errors.append(error))
    with pytest.raises(ConsumerDeletedError):
        await context.wait_closed()
    assert len(errors) == 1


@virtual_time
async def test_settling_twice_is_refused():
    consumer = ScriptedConsumer(available=1)
    msg = await consumer.next()
    await msg.ack()
    with pytest.raises(RuntimeError):
        await msg.nak()


@pytest.mark.parametrize(
    ("max_deliver", "options", "drains", "warnings"),
    [
        (1, PullOptions(), False, 1),
        (1, PullOptions(), True, 0),
        (1, PullOptions(max_messages=1), False, 0),
        (1, PullOptions(stop_after=2), False, 0),
        (2, PullOptions(), False, 0),
    ],
)
@virtual_time
async def test_stop_warns_where_the_only_delivery_is_used_up(max_deliver, options, drains, warnings, caplog):
    consumer = ScriptedConsumer(ConsumerConfig(name="C", max_deliver=max_deliver), available=4)
    async with consumer.messages(options) as messages:
        await messages.next()
        await messages.next()
        if drains:
            await messages.drain()
        messages.stop()
        messages.stop()
    said = [record for record in caplog.records if "max_deliver 1" in record.getMessage()]
    assert len(said) == warnings
