"""Producer, on librdkafka's mock cluster: order with middleware and retry, one result for whatever was accepted."""

import asyncio
import itertools
import random
from collections import defaultdict
from contextlib import asynccontextmanager
from contextvars import ContextVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.core.broker import Publisher, PublishOptions
from headrace.core.errors import (
    BrokerTimeoutError,
    ClosedError,
    CodecError,
    ConfigError,
    Fault,
    PublishError,
    PublishInterruptedError,
    PublishTimeoutError,
    UnsupportedError,
    UsageError,
)
from headrace.core.message import Message
from headrace.flow.compose import SendRewrite
from headrace.flow.judge import FailureStage
from headrace.flow.keyed import Ordering
from headrace.flow.retry import RetryPolicy
from headrace.kafka.broker import KafkaBroker
from headrace.kafka.errors import ProduceBatchError
from headrace.kafka.producer import Producer
from headrace.kafka.sending.result import ProduceResult
from headrace.testing.kafka.mock import Api, KafkaMock
from tests.unit.kafka.mocked import broker_on

OUT_OF_ORDER = 45
NOW = RetryPolicy(initial=0, maximum=0, jitter=0)


@asynccontextmanager
async def producing(mock, options=None, **settings):
    producer = Producer(broker_on(mock, **(options or {})), **settings)
    async with producer:
        try:
            yield producer
        finally:
            await producer.aclose(flush=False)


def message(number=0, key=b"k", topic="orders", **fields):
    return Message(topic=topic, key=key, body=b"%d" % number, **fields)


class Noted:
    """A middleware that suspends, fails now and then, and notes what begins and what the driver got."""

    def __init__(self, seed=0, failing=0.0):
        self.random = random.Random(seed)
        self.failing = failing
        self.begun = defaultdict(list)
        self.waiting = set()
        self.most = 0

    async def __call__(self, item, call_next):
        assert item.key is None or item.key not in self.waiting, "two of one key before the driver at once"
        self.waiting.add(item.key)
        self.most = max(self.most, len(self.waiting))
        try:
            for _ in range(self.random.randrange(4)):
                await asyncio.sleep(0)
            if self.random.random() < self.failing:
                raise RuntimeError("not this time")
            self.begun[item.key].append(item.body)
        finally:
            self.waiting.discard(item.key)
        return await call_next(item)


class Marked(SendRewrite):
    def change(self, message):
        if message.body == b"bad":
            raise CodecError("bad")
        return message.replace(body=b"<" + message.body + b">")


def test_key_order_with_suspending_middleware_and_retry(mock):
    async def main():
        noted = Noted(failing=0.3)
        async with producing(mock, middleware=[noted], retry=NOW, max_outstanding=40) as producer:
            sent = [message(number, key=b"%d" % (number % 5)) for number in range(300)]
            futures = [await producer.produce_async(one) for one in sent]
            results = await asyncio.gather(*futures)
            assert noted.most > 1  # keys do not wait for each other
            by_key = defaultdict(list)
            for one, result in zip(sent, results, strict=True):
                by_key[one.key].append(result.offset)
            for key, offsets in by_key.items():
                assert offsets == sorted(offsets), key
            assert noted.begun == {key: [one.body for one in sent if one.key == key] for key in by_key}
            assert max(result.attempt for result in results) > 1

    asyncio.run(main())


def test_a_key_in_backoff_holds_only_itself(mock):
    async def main():
        release = asyncio.Event()

        async def gate(item, call_next):
            if item.key == b"slow":
                await release.wait()
            return await call_next(item)

        async with producing(mock, middleware=[gate]) as producer:
            slow = [await producer.produce_async(message(number, key=b"slow")) for number in range(3)]
            keyless = await producer.produce(message(key=None))
            other = await producer.produce(message(key=b"other"))
            assert {keyless.offset, other.offset} == {0, 1}
            release.set()
            assert [(await future).offset for future in slow] == [2, 3, 4]

    asyncio.run(main())


def test_pipelined_without_waiting_for_receipts(mock):
    async def main():
        async with producing(mock, middleware=[Noted()]) as producer:
            await producer.produce(message())
            mock.slow(0.1)
            results = await asyncio.wait_for(producer.produce_many([message(number) for number in range(100)]), 5)
            assert [result.offset for result in results] == list(range(1, 101))
            mock.slow(0)

    asyncio.run(main())


def test_total_one_in_flight(mock):
    async def main():
        flying = 0
        most = 0

        async def count(item, call_next):
            nonlocal flying, most
            flying += 1
            most = max(most, flying)
            result = await call_next(item)
            flying -= 1
            return result

        async with producing(mock, ordering=Ordering.TOTAL, middleware=[count]) as producer:
            futures = [await producer.produce_async(message(number, key=b"%d" % number)) for number in range(10)]
            many = await producer.produce_many([message(number, key=None) for number in range(5)])
            assert [(await future).offset for future in futures] == list(range(10))
            assert [result.offset for result in many] == list(range(10, 15))
            assert most == 1
        async with producing(mock, ordering=Ordering.TOTAL) as producer:
            mock.track()
            results = await producer.produce_many([message(number) for number in range(8)])
            assert [result.offset for result in results] == list(range(15, 23))
            assert len(mock.requests(Api.PRODUCE)) == 8  # each in a request of its own

    asyncio.run(main())


@pytest.mark.parametrize(
    "middleware", [[], [Noted()], [Marked()], [Marked(), Noted()]], ids=["plain", "each", "whole", "mixed"]
)
@pytest.mark.parametrize("ordering", [Ordering.KEY, Ordering.TOTAL])
def test_mixed_calls_keep_order(mock, middleware, ordering):
    async def main():
        async with producing(mock, middleware=middleware, ordering=ordering, max_outstanding=8) as producer:
            numbers = itertools.count()
            calls = []
            for turn in range(24):
                size = 1 if turn % 3 else 12
                given = [message(next(numbers)) for _ in range(size)]
                if turn % 3 == 0:
                    call = producer.produce_many(given)
                elif turn % 3 == 1:
                    call = producer.produce(given[0])
                else:
                    call = producer.produce_async(given[0])
                calls.append(asyncio.ensure_future(call))
            offsets = []
            for call in calls:
                result = await call
                if isinstance(result, asyncio.Future):
                    result = await result
                offsets += [one.offset for one in result] if isinstance(result, list) else [result.offset]
            assert offsets == list(range(next(numbers)))

    asyncio.run(main())


@pytest.mark.parametrize("middleware", [[], [Noted()]], ids=["plain", "middleware"])
def test_place_wait_cancelled_not_accepted(mock, middleware):
    async def main():
        async with producing(mock, {"linger": 0.3}, middleware=middleware, max_outstanding=2) as producer:
            await producer.produce(message())
            held = [await producer.produce_async(message(number)) for number in (1, 2)]
            waiting = asyncio.ensure_future(producer.produce_async(message(3)))
            behind = asyncio.ensure_future(producer.produce(message(4)))
            await asyncio.sleep(0.01)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert [(await future).offset for future in held] == [1, 2]
            assert (await behind).offset == 3
            held = [await producer.produce_async(message(number)) for number in (5, 6)]
            with pytest.raises(PublishTimeoutError) as raised:
                await producer.produce(message(7), timeout=0.01)
            assert raised.value.fault is Fault.UNAVAILABLE
            assert [(await future).offset for future in held] == [4, 5]

    asyncio.run(main())


class Storm:
    """What may happen to a producer, one method each; `judge` looks at what came of it."""

    def __init__(self, mock, *, middleware, places):
        self.mock = mock
        self.failing = False
        self.producer = Producer(broker_on(mock), middleware=[self.run] if middleware else [], max_outstanding=places)
        self.calls = []
        self.futures = []

    async def run(self, item, call_next):
        await asyncio.sleep(0)
        if self.failing:
            raise RuntimeError("no")
        return await call_next(item)

    async def accept(self):
        self.futures.append(await self.producer.produce_async(message()))

    async def submit(self):
        self.calls.append(asyncio.ensure_future(self.accept()))

    async def one(self):
        self.calls.append(asyncio.ensure_future(self.producer.produce(message())))

    async def many(self):
        self.calls.append(asyncio.ensure_future(self.producer.produce_many([message() for _ in range(5)])))

    async def cancel(self):
        if self.calls:
            random.choice([*self.calls, *self.futures]).cancel()

    async def fail(self):
        self.failing = not self.failing

    async def down(self):
        self.mock.down()

    async def up(self):
        self.mock.up()

    async def fatal(self):
        self.mock.push_errors(Api.PRODUCE, OUT_OF_ORDER)

    async def turn(self):
        await asyncio.sleep(0)

    async def wait(self):
        await asyncio.sleep(0.02)

    async def judge(self):
        results = await asyncio.wait_for(asyncio.gather(*self.calls, return_exceptions=True), 5)
        each = [*results, *itertools.chain(*(one for one in results if isinstance(one, list)))]
        for result in each:
            assert isinstance(result, list | ProduceResult | PublishError | ClosedError | asyncio.CancelledError | None)
        for future in self.futures:
            assert future.done()
            if not future.cancelled():
                assert isinstance(future.exception() or future.result(), ProduceResult | PublishError)


STEPS = ["submit", "submit", "submit", "one", "many", "cancel", "fail", "down", "up", "fatal", "turn", "wait"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(STEPS), max_size=25), st.booleans(), st.booleans(), st.sampled_from([1, 3, 100]))
def test_every_future_resolves(steps, flush, middleware, places):
    """Submit, close, cancel, fail, fatal, in any order: what was accepted has exactly one result after the close."""

    async def main(mock):
        storm = Storm(mock, middleware=middleware, places=places)
        await storm.producer.open()
        for step in steps:
            await getattr(storm, step)()
        try:
            await storm.producer.aclose(flush=flush, timeout=0.2)
        except BrokerTimeoutError:
            assert flush
        await storm.judge()

    with KafkaMock(1) as mock:
        mock.create_topic("orders", 1)
        asyncio.run(main(mock))


def test_batch_fail_fast_partial(mock):
    async def main():
        async with producing(mock, {"max_message_bytes": 1000}) as producer:
            given = [message(0), message(1), message(2).replace(body=b"x" * 2000), message(3)]
            with pytest.raises(ProduceBatchError, match="produce batch index 2: ") as raised:
                await producer.produce_batch(given)
            assert raised.value.index == 2
            assert [result.offset for result in raised.value.results] == [0, 1]
            assert raised.value.fault is Fault.REJECTED
            assert raised.value.message_id == given[2].id
            assert [result.offset for result in await producer.produce_batch(given[:2])] == [2, 3]
            with pytest.raises(UsageError):
                await producer.produce_batch([message(4), None])
            assert (await producer.produce(message(5))).offset == 4  # of the refused batch nothing was sent

    asyncio.run(main())


def test_default_and_missing_topic(mock):
    async def main():
        async with producing(mock, default_topic="orders") as producer:
            assert (await producer.produce(message(topic=""))).topic == "orders"
            results = await producer.produce_many([message(topic=""), message(topic="orders")])
            assert {result.topic for result in results} == {"orders"}
            with pytest.raises(PublishError, match="no topic 'nowhere'") as raised:
                await producer.produce(message(topic="nowhere"))
            assert raised.value.fault is Fault.REJECTED
        async with producing(mock) as producer:
            for call in (producer.produce, producer.produce_async, lambda one: producer.produce_batch([one])):
                with pytest.raises(UsageError, match="topic"):
                    await call(message(topic=""))
            results = await producer.produce_many([message(topic=""), message()])
            assert isinstance(results[0], PublishError)
            assert isinstance(results[0].__cause__, UsageError)
            assert results[1].offset == 3

    asyncio.run(main())


def test_failing_middleware(mock):
    """Before the hand-over it is REJECTED with the cause, or run again; after it its error is the result."""

    async def main():
        events = []

        async def tell(event):
            events.append((event.stage, event.will_retry, event.attempt, event.message.body))
            assert (event.group, event.policy, event.position) == (None, None, None)
            assert event.attributes["messaging.system"] == "kafka"

        runs = 0

        async def fail(item, call_next):
            nonlocal runs
            runs += 1
            if item.body == b"1":
                raise RuntimeError("before")
            if item.body == b"2":
                raise CodecError("never")
            result = await call_next(item)
            if item.body == b"3":
                raise RuntimeError("after")
            return result

        end = [FailureStage.RETRY, FailureStage.EXHAUSTED, FailureStage.STOP]
        async with producing(mock, middleware=[fail], on_failure=tell) as producer:
            with pytest.raises(PublishError, match="before") as raised:
                await producer.produce(message(1))
            assert raised.value.fault is Fault.REJECTED
            assert isinstance(raised.value.__cause__, RuntimeError)
            assert events == [(stage, False, 1, b"1") for stage in end]
            assert runs == 1
        events.clear()
        retry = RetryPolicy(max_attempts=3, initial=0, maximum=0)
        async with producing(mock, middleware=[fail], on_failure=tell, retry=retry) as producer:
            with pytest.raises(PublishError, match="before"):
                await producer.produce(message(1))
            assert events == [
                *[(FailureStage.RETRY, True, attempt, b"1") for attempt in (1, 2)],
                *[(stage, False, 3, b"1") for stage in end],
            ]
            runs = 0
            results = await producer.produce_many([message(2), message(3), message(4)])
            assert runs == 3
            assert [type(result) for result in results] == [PublishError, PublishError, ProduceResult]
            assert [result.fault for result in results[:2]] == [Fault.REJECTED, Fault.UNKNOWN]
            assert results[2].offset == 1  # the one whose middleware failed after the receipt is stored

    asyncio.run(main())


async def passing(item, call_next):
    return await call_next(item)


async def sent(producer, method, one):
    """By this method; the error of the one that fails."""
    if method == "produce_many":
        results = await producer.produce_many([message(), one, message()])
        assert [type(result) for result in results[::2]] == [ProduceResult, ProduceResult]
        return results[1]
    with pytest.raises(PublishError) as raised:
        if method == "produce_async":
            await (await producer.produce_async(one))
        elif method == "produce_batch":
            await producer.produce_batch([message(), one, message()])
        else:
            await producer.produce(one)
    return raised.value.__cause__ if method == "produce_batch" else raised.value


METHODS = ["produce", "produce_async", "produce_many", "produce_batch"]
END = [FailureStage.RETRY, FailureStage.EXHAUSTED, FailureStage.STOP]


class Same(SendRewrite):
    def change(self, message):
        return message


CHAINS = {"plain": [], "one by one": [passing], "as a whole": [Same()]}


@pytest.mark.parametrize("ordering", [Ordering.KEY, Ordering.TOTAL])
@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("method", METHODS)
def test_driver_failures_are_told(mock, method, chain, ordering):
    """Refused before the driver, by the driver and by the broker: the same three events of each."""

    async def main():
        events = []
        settings = {"middleware": CHAINS[chain], "on_failure": events.append, "ordering": ordering}
        limits = {"max_message_bytes": 1000, "linger": 0}
        async with producing(mock, limits, **settings) as producer:
            await producer.produce(message())
            for one in (message().replace(body=b"x" * 2000), message(topic="nowhere")):
                error = await sent(producer, method, one)
                await producer.flush(5)
                assert error.fault is Fault.REJECTED
                assert [(event.stage, event.will_retry, event.attempt) for event in events] == [
                    (stage, False, 1) for stage in END
                ]
                assert {event.message for event in events} == {one}
                assert all(event.error is error for event in events)
                events.clear()
            if method in {"produce", "produce_async"}:
                mock.push_errors(Api.PRODUCE, 87)  # INVALID_RECORD
                await sent(producer, method, message())
                await producer.flush(5)
                assert [event.stage for event in events] == END

    asyncio.run(main())


@pytest.mark.parametrize("chain", CHAINS)
def test_what_is_interrupted_is_told(mock, chain):
    async def main():
        events = []
        async with producing(mock, middleware=CHAINS[chain], on_failure=events.append) as producer:
            await producer.produce(message())
            mock.down()
            futures = [await producer.produce_async(message(number)) for number in range(3)]
            many = asyncio.ensure_future(producer.produce_many([message(3), message(4)]))
            await asyncio.sleep(0.05)
            await producer.aclose(flush=False)
            for future in futures:
                with pytest.raises(PublishInterruptedError):
                    await future
            assert all(isinstance(result, PublishInterruptedError) for result in await many)
            assert [event.stage for event in events if event.message.body == b"2"] == END
            assert len(events) == 15

    asyncio.run(main())


def test_handed_over_once(mock):
    """What the driver has is never sent again, not even by a middleware of the user's."""

    async def main():
        async def stubborn(item, call_next):
            try:
                await call_next(item)
            finally:
                await call_next(item)

        async with producing(mock, middleware=[stubborn], retry=NOW) as producer:
            with pytest.raises(PublishError, match="call_next again"):
                await producer.produce(message())
            assert (await producer.produce_many([message()]))[0].fault is Fault.UNKNOWN

    asyncio.run(main())


def test_chain_runs_in_the_callers_context(mock):
    async def main():
        who = ContextVar("who", default="nobody")
        seen = []

        async def look(item, call_next):
            seen.append(who.get())
            return await call_next(item)

        async with producing(mock, middleware=[look]) as producer:
            who.set("me")
            await producer.produce(message())
            future = await producer.produce_async(message())
            who.set("another")
            await future
            await producer.produce_many([message()])
            assert seen == ["me", "me", "another"]

    asyncio.run(main())


def test_many_middleware_takes_its_list(mock):
    async def main():
        async with producing(mock, middleware=[Marked()], max_outstanding=10) as producer:
            given = [message(number, key=b"%d" % (number % 3)) for number in range(25)]
            given[7] = given[7].replace(body=b"bad")
            results = await producer.produce_many(given)
            assert [place for place, one in enumerate(results) if isinstance(one, PublishError)] == [7]
            assert isinstance(results[7].__cause__, CodecError)
            assert [one.offset for one in results if isinstance(one, ProduceResult)] == list(range(24))

    asyncio.run(main())


def test_cancelled_call_leaves_it_on_its_way(mock):
    async def main():
        async with producing(mock, middleware=[Noted()]) as producer:
            call = asyncio.ensure_future(producer.produce(message()))
            await asyncio.sleep(0)
            call.cancel()
            await asyncio.wait([call])
            await producer.flush(10)
            assert (await producer.produce(message())).offset == 1

    asyncio.run(main())


def test_close_ends_what_is_in_the_middleware(mock):
    async def main():
        async def stuck(item, call_next):
            await asyncio.Event().wait()

        for flush in (True, False):
            producer = Producer(broker_on(mock), middleware=[stuck])
            async with producer:
                futures = [await producer.produce_async(message(number)) for number in range(3)]
                if flush:
                    with pytest.raises(BrokerTimeoutError):
                        await producer.aclose(timeout=0.05)
                else:
                    await producer.aclose(flush=False)
                for future in futures:
                    with pytest.raises(PublishInterruptedError):
                        await future
                with pytest.raises(ClosedError):
                    await producer.produce(message())
                await producer.aclose()

    asyncio.run(main())


def test_opens_and_closes_its_broker_or_shares(mock):
    async def main():
        broker = broker_on(mock)
        async with Producer(broker) as producer:
            assert broker.is_open
            await producer.produce(message())
        assert not broker.is_open
        async with broker_on(mock) as shared:
            async with Producer(shared) as producer:
                await producer.produce(message())
            assert shared.is_open
            await shared.publish(message())
        with pytest.raises(ClosedError):
            await Producer(broker_on(mock)).produce(message())

    asyncio.run(main())


def test_is_a_publisher(mock):
    async def main():
        async with producing(mock) as producer:
            assert isinstance(producer, Publisher)
            assert producer.capabilities.ordered
            assert (await producer.publish(message())).offset == 0
            assert (await producer.publish(message(), PublishOptions(timeout=10))).offset == 1
            with pytest.raises(UnsupportedError):
                await producer.publish(message(), PublishOptions(delay=1))
            results = await producer.publish_batch([message(), message()])
            assert [result.offset for result in results] == [2, 3]

    asyncio.run(main())


@pytest.mark.parametrize(
    "settings",
    [
        {"default_topic": "a b"},
        {"default_topic": ""},
        {"ordering": "key"},
        {"max_outstanding": 0},
        {"max_outstanding": True},
        {"retry": 3},
    ],
    ids=str,
)
def test_checked_at_construction(settings):
    with pytest.raises(ConfigError):
        Producer(KafkaBroker("127.0.0.1:9092"), **settings)
    with pytest.raises(ConfigError):
        Producer("127.0.0.1:9092")
