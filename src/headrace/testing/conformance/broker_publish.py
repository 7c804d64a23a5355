"""Checks of the publishing side of a broker: what is stored, what is refused, and how that is said."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from headrace.core.broker import Broker, Expect, PublishOptions, Receipt, TopicOptions
from headrace.core.errors import ClosedError, ConfigError, Fault, PublishError, UnsupportedError
from headrace.core.headers import Headers
from headrace.core.message import MAX_HEADERS, Message
from headrace.testing.conformance.check import (
    BATCH_KEY_ORDER,
    DEDUP,
    EXPECT,
    MAX_BODY,
    ORDERED,
    BrokerCheck,
    OpenBroker,
)
from headrace.testing.conformance.tools import (
    QUIET,
    acknowledge,
    bodies,
    failure_of,
    join,
    message,
    new_topic,
    publish_bodies,
    receive,
    rejected,
    stays_quiet,
)

__all__ = ["CHECKS"]

_HEADERS = Headers(
    [("Content-Type", "text/plain"), ("X-Twice", "a"), ("x-twice", "b"), ("X-Empty", ""), ("X-Binary", b"\x00\xff\r\n")]
)
_MICROSECOND = 1_000


def _too_many_headers(topic: str, body: bytes, key: bytes | None = None) -> Message:
    """A message that every engine refuses by itself, whatever its limits."""
    return message(topic, body, key=key, headers=Headers([("X", str(n)) for n in range(MAX_HEADERS + 1)]))


@BrokerCheck.of()
async def round_trip_exact(open_broker: OpenBroker) -> None:
    """Body, key, headers, id and time arrive as they were sent."""
    topic = new_topic("exact")
    sent = [
        message(topic, bytes(range(256)), key=b"\x00key", headers=_HEADERS, id="own id-1"),
        message(topic, b"", headers=Headers({"Alone": "yes"})),
        message(topic, b"plain", key=b""),
        message(topic, "schön ✓".encode(), key=b"k", headers=Headers([("Z", "1"), ("A", "2"), ("Z", "3")])),
    ]
    async with open_broker() as broker, broker.subscribe(topic, join("exact")) as subscription:
        await broker.publish(sent[0])
        await broker.publish_batch(sent[1:])
        got = {each.message.id: each.message for each in await acknowledge(subscription, len(sent))}
        step = broker.capabilities.time_resolution // timedelta(microseconds=1) * _MICROSECOND
        for one in sent:
            assert one.id in got, f"id {one.id} arrived as one of {sorted(got)}"
            other = got[one.id]
            for field in ("topic", "body", "key"):
                assert getattr(one, field) == getattr(other, field), f"{field}: {one} arrived as {other}"
            assert list(one.headers.items()) == list(other.headers.items()), f"{one.headers} became {other.headers}"
            assert one.time_ns // step == other.time_ns // step, f"time {one.time_ns} became {other.time_ns}"


@BrokerCheck.of()
async def declare_idempotent(open_broker: OpenBroker) -> None:
    """Declaring twice is fine and keeps what is there; another value for what exists is a ``ConfigError``."""
    topic = new_topic("declare")
    async with open_broker() as broker:
        await broker.declare(topic)
        await broker.declare(topic)
        async with broker.subscribe(topic, join("declare")) as subscription:
            await publish_bodies(broker, topic, [1])
            await broker.declare(topic)
            assert bodies(await acknowledge(subscription, 1)) == [b"1"]
        aged = new_topic("aged")
        try:
            await broker.declare(aged, TopicOptions(max_age=3600))
        except UnsupportedError:
            return
        await broker.declare(aged, TopicOptions(max_age=3600))
        await failure_of(lambda: broker.declare(aged, TopicOptions(max_age=7200)), ConfigError)


@BrokerCheck.of()
async def batch_one_result_per_item(open_broker: OpenBroker) -> None:
    """As many results as items, each in the place of its item; nothing for nothing."""
    topic = new_topic("results")
    async with open_broker() as broker:
        assert await broker.publish_batch([]) == []
        for bad in (0, 3, 6):
            batch = [message(topic, b"%d" % n) for n in range(7)]
            batch[bad] = _too_many_headers(topic, b"bad")
            results = await broker.publish_batch(batch)
            assert len(results) == len(batch), f"{len(results)} results for {len(batch)} items"
            failed = [place for place, result in enumerate(results) if isinstance(result, PublishError)]
            assert failed == [bad], f"item {bad} is bad, results say {failed}"


@BrokerCheck.of()
async def batch_item_fails_alone(open_broker: OpenBroker) -> None:
    """What one item lacks does not touch its neighbours, and never raises."""
    topic = new_topic("alone")
    async with open_broker() as broker, broker.subscribe(topic, join("alone")) as subscription:
        batch = [message(topic, b"a"), _too_many_headers(topic, b"bad"), message(topic, b"b")]
        first, bad, second = await broker.publish_batch(batch)
        assert isinstance(first, Receipt), f"a neighbour failed: {first!r}"
        assert isinstance(second, Receipt), f"a neighbour failed: {second!r}"
        limit = rejected(bad).limit
        assert limit == MAX_HEADERS, f"the limit is {MAX_HEADERS}, the error says {limit}"
        assert sorted(bodies(await acknowledge(subscription, 2))) == [b"a", b"b"]
        await stays_quiet(subscription)


@BrokerCheck.of(BATCH_KEY_ORDER)
async def batch_key_order_kept(open_broker: OpenBroker) -> None:
    """Nothing of one key is stored behind a failed item of it; other keys go on."""
    topic = new_topic("behind")
    async with open_broker() as broker, broker.subscribe(topic, join("behind")) as subscription:
        batch = [
            message(topic, b"a1", key=b"a"),
            _too_many_headers(topic, b"a2", key=b"a"),
            message(topic, b"a3", key=b"a"),
            message(topic, b"b1", key=b"b"),
            message(topic, b"none"),
        ]
        results = await broker.publish_batch(batch)
        behind = results[2]
        assert isinstance(behind, PublishError), f"stored behind a failed item of its key: {behind!r}"
        assert behind.fault is Fault.UNAVAILABLE, f"UNAVAILABLE expected, got {behind.fault}"
        assert sorted(bodies(await acknowledge(subscription, 3))) == [b"a1", b"b1", b"none"]
        await stays_quiet(subscription)


@BrokerCheck.of(DEDUP)
async def dedup_window(open_broker: OpenBroker) -> None:
    """The same id on the same topic is stored once, also after its first copy was acknowledged; other topics differ."""
    topic = new_topic("dedup")
    async with open_broker() as broker, broker.subscribe(topic, join("dedup")) as subscription:
        one = message(topic, b"one")
        first = await broker.publish(one)
        again = await broker.publish(one)
        assert (first.duplicate, again.duplicate) == (False, True), f"{first} and then {again}"
        assert again.position == first.position, f"a duplicate of {first} stands at {again}"
        await acknowledge(subscription, 1)
        await subscription.flush()
        (third,) = await broker.publish_batch([one])
        assert isinstance(third, Receipt), f"a duplicate is no failure: {third!r}"
        assert third.duplicate, f"forgotten after the ack: {third!r}"
        assert not (await broker.publish(one.replace(topic=f"{topic}.other"))).duplicate, (
            "one id on two topics is two messages"
        )
        await stays_quiet(subscription)


@BrokerCheck.of(EXPECT, ORDERED)
async def expect_conflict(open_broker: OpenBroker) -> None:
    """What was expected and is not so is ``REJECTED`` and not stored."""
    topic = new_topic("expect")
    async with open_broker() as broker, broker.subscribe(topic, join("expect")) as subscription:
        first = await broker.publish(message(topic, b"1"), PublishOptions(expect=Expect(last_for_topic=0)))
        conflict = PublishOptions(expect=Expect(last_for_topic=0))
        rejected(await failure_of(lambda: broker.publish(message(topic, b"2"), conflict), PublishError))
        await broker.publish(message(topic, b"3"), PublishOptions(expect=Expect(last_for_topic=first.position)))
        assert bodies(await acknowledge(subscription, 2)) == [b"1", b"3"]


@BrokerCheck.of()
async def delay_honoured_or_refused(open_broker: OpenBroker) -> None:
    """A delay is kept, or refused before anything is stored; never ignored."""
    topic = new_topic("delay")
    async with open_broker() as broker, broker.subscribe(topic, join("delay")) as subscription:
        longest = broker.capabilities.max_delay
        late = PublishOptions(delay=1.0)
        if longest is None:
            await failure_of(lambda: broker.publish(message(topic, b"late"), late), UnsupportedError)
            await stays_quiet(subscription)
            return
        start = asyncio.get_running_loop().time()
        await broker.publish(message(topic, b"late"), late)
        await receive(subscription, 1)
        waited = asyncio.get_running_loop().time() - start
        assert waited >= 1.0, f"asked for 1 s, came after {waited:.3f} s"


@BrokerCheck.of(MAX_BODY)
async def too_large_named(open_broker: OpenBroker) -> None:
    """A body over the limit is ``REJECTED``, the error names the limit, nothing is stored."""
    topic = new_topic("large")
    async with open_broker() as broker, broker.subscribe(topic, join("large")) as subscription:
        limit = broker.capabilities.max_body or 0
        large = message(topic, bytes(limit + 1))
        error = await failure_of(lambda: broker.publish(large), PublishError)
        (inside,) = await broker.publish_batch([large])
        for each in (error, inside):
            named = rejected(each).limit
            assert named == limit, f"the limit is {limit}, the error says {named}"
        await stays_quiet(subscription, QUIET)


@BrokerCheck.of()
async def unsupported_is_loud(open_broker: OpenBroker) -> None:
    """An option that the engine lacks is ``UnsupportedError``, and nothing was done."""
    topic = new_topic("loud")
    async with open_broker() as broker:
        await broker.declare(topic)
        for options in _lacking(broker):
            one = message(topic, b"loud")
            await failure_of(lambda options=options, one=one: broker.publish(one, options), UnsupportedError)  # type: ignore[misc]
        if not broker.capabilities.many_topics:

            async def several() -> None:
                async with broker.subscribe([topic, new_topic("loud")], join("loud")):
                    pass

            await failure_of(several, UnsupportedError)
        async with broker.subscribe(topic, join("loud")) as subscription:
            await stays_quiet(subscription)


def _lacking(broker: Broker) -> list[PublishOptions]:
    lacking: list[PublishOptions] = []
    if broker.capabilities.max_delay is None:
        lacking.append(PublishOptions(delay=1.0))
    if not broker.capabilities.expect:
        lacking.append(PublishOptions(expect=Expect(last=0)))
    if not broker.capabilities.ttl:
        lacking.append(PublishOptions(ttl=10.0))
    return lacking


@BrokerCheck.of()
async def concurrent_publishers(open_broker: OpenBroker) -> None:
    """Many tasks at once: everything is stored, and what one task published keeps its order."""
    topic = new_topic("many")
    tasks, each = 8, 25
    async with open_broker() as broker, broker.subscribe(topic, join("many", max_in_flight=1_000)) as subscription:

        async def publisher(number: int) -> None:
            for count in range(each):
                await broker.publish(message(topic, b"%d:%d" % (number, count), key=b"%d" % number))

        await asyncio.gather(*(publisher(number) for number in range(tasks)))
        got = bodies(await acknowledge(subscription, tasks * each))
        for number in range(tasks):
            mine = [body for body in got if body.startswith(b"%d:" % number)]
            wanted = [b"%d:%d" % (number, count) for count in range(each)]
            assert sorted(mine) == sorted(wanted), f"of task {number} arrived {mine}"
            assert mine == wanted or not broker.capabilities.ordered, f"order of task {number}: {mine}"
        await stays_quiet(subscription)


@BrokerCheck.of()
async def close_twice_then_closed(open_broker: OpenBroker) -> None:
    """Closing twice is fine; any use after it is ``ClosedError``."""
    topic = new_topic("closed")
    async with open_broker() as broker:
        await broker.publish(message(topic, b"1"))
        await broker.aclose()
        await broker.aclose()

        async def subscribing() -> None:
            async with broker.subscribe(topic, join("closed")):
                pass

        for call in (
            lambda: broker.publish(message(topic, b"2")),
            lambda: broker.publish_batch([message(topic, b"2")]),
            lambda: broker.declare(topic),
            subscribing,
        ):
            await failure_of(call, ClosedError)


@BrokerCheck.of()
async def close_resolves_open_publishes(open_broker: OpenBroker) -> None:
    """A publish that is under way when the broker closes ends: with a receipt, or with an error."""
    topic = new_topic("open")
    async with open_broker() as broker:
        await broker.declare(topic)
        tasks = [asyncio.create_task(broker.publish(message(topic, b"%d" % n))) for n in range(50)]
        await asyncio.sleep(0)
        await broker.aclose()
        done, open_ones = await asyncio.wait(tasks, timeout=5.0)
        for task in open_ones:
            task.cancel()
        assert not open_ones, f"{len(open_ones)} of {len(tasks)} publishes never ended"
        for task in done:
            error = task.exception()
            assert error is None or isinstance(error, PublishError | ClosedError), f"ended with {error!r}"


CHECKS: tuple[BrokerCheck, ...] = (
    round_trip_exact,
    declare_idempotent,
    batch_one_result_per_item,
    batch_item_fails_alone,
    batch_key_order_kept,
    dedup_window,
    expect_conflict,
    delay_honoured_or_refused,
    too_large_named,
    unsupported_is_loud,
    concurrent_publishers,
    close_twice_then_closed,
    close_resolves_open_publishes,
)
