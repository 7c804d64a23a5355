"""Ends that come at a bad moment: a close under way, a thread that cannot start, another loop, a hook that hangs."""

import asyncio
import threading
import time

import pytest

from headrace.core.broker import Start
from headrace.core.errors import ClosedError, Fault, PublishError, UsageError
from headrace.core.headers import Headers
from headrace.core.message import Message
from headrace.flow.compose import SendRewrite
from headrace.flow.keyed import Ordering
from headrace.flow.retry import RetryPolicy
from headrace.kafka.broker import KafkaBroker
from headrace.kafka.codes import Code
from headrace.kafka.consuming.positions import Positions
from headrace.kafka.errors import KafkaError, ProduceBatchError
from headrace.kafka.producer import Producer
from headrace.kafka.reading import KafkaSubscribeOptions
from headrace.kafka.sending.checks import Checks
from headrace.kafka.sending.result import ProduceResult
from headrace.testing.kafka.mock import Api, KafkaMock
from tests.unit.kafka.mocked import broker_on

FOREIGN = "caf\udce9"
NOW = RetryPolicy(initial=0, maximum=0, jitter=0)


def message(body=b"x", topic="orders", **fields):
    return Message(topic=topic, key=b"k", body=body, **fields)


def within(seconds, main):
    asyncio.run(asyncio.wait_for(main, seconds))


# --- a thread that cannot start --------------------------------------------------------------------


@pytest.fixture
def threadless(monkeypatch):
    """No thread of a sender starts, until it is called."""
    start = threading.Thread.start

    def refuse(thread):
        if thread.name.startswith("headrace-kafka-headrace"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    return monkeypatch.undo


def test_no_thread_for_a_sender(mock, threadless):
    async def main():
        async with broker_on(mock) as broker:
            for _ in range(2):
                with pytest.raises(PublishError, match="can't start new thread") as raised:
                    await broker.publish(message())
                assert raised.value.fault is Fault.UNAVAILABLE
                assert isinstance(raised.value.__cause__, KafkaError)
            results = await broker.publish_batch([message(), message()])
            assert [result.fault for result in results] == [Fault.UNAVAILABLE] * 2
            threadless()
            assert (await broker.publish(message())).offset == 0

    within(20, main())


def test_no_thread_for_a_sender_and_closed(mock, threadless):
    async def main():
        async with broker_on(mock) as broker:
            with pytest.raises(PublishError):
                await broker.publish(message())

    within(20, main())


# --- names from a foreign wire ---------------------------------------------------------------------


def test_a_foreign_header_name_is_sent(mock):
    """It was read from another wire, and would fail its neighbours as well."""

    async def main():
        async with broker_on(mock) as broker:
            odd = message(headers=Headers.trusted([(FOREIGN, "2")]))
            given = [message() for _ in range(600)]
            given[550] = odd
            results = await broker.publish_batch(given)
            assert {type(result) for result in results} == {ProduceResult}
            assert (await broker.publish(odd)).offset == 600
            async with broker.subscribe(
                "orders", KafkaSubscribeOptions(start=Start.all(), max_in_flight=1000)
            ) as reader:
                read = []
                while len(read) < 601:
                    read += await reader.pull(601, 1000)
            assert read[550].message.headers.items() == (("caf\\udce9", "2"),)

    within(30, main())


def test_a_foreign_header_value_fails_alone(mock):
    async def main():
        async with broker_on(mock) as broker:
            bad = message(headers=Headers.trusted([("a", "\ud800")]))
            with pytest.raises(UsageError, match="header"):
                await broker.publish(bad)
            results = await broker.publish_batch([message(), bad, message()])
            assert [type(result) for result in results] == [ProduceResult, PublishError, ProduceResult]
            assert results[1].fault is Fault.REJECTED

    within(20, main())


def test_the_size_of_a_foreign_header_name():
    odd = message(body=b"", id="1", headers=Headers.trusted([(FOREIGN, "2")]))
    size = len("orders-id") + len("1") + len("caf\\udce9") + len("2") + len("k")
    Checks(size, "orders-id", set()).one(odd)
    with pytest.raises(PublishError, match=f"{size} bytes") as raised:
        Checks(size - 1, "orders-id", set()).one(odd)
    assert raised.value.fault is Fault.REJECTED
    with pytest.raises(PublishError, match="1001 headers"):
        Checks(1_000_000, "orders-id", set()).one(message(headers=Headers.trusted([(FOREIGN, "2")] * 1001)))


# --- questions under way ---------------------------------------------------------------------------


def test_closed_while_the_brokers_are_asked(mock):
    """The driver's client drops what it has not answered."""

    async def main():
        broker = broker_on(mock)
        await broker.open()
        topics = broker.topics
        mock.slow(5)
        asked = asyncio.ensure_future(Positions(topics).starts([("orders", 0)], Start.all()))
        await asyncio.sleep(0.3)
        await broker.aclose()
        with pytest.raises(ClosedError):
            await asyncio.wait_for(asked, 2)
        with pytest.raises(ClosedError):
            await topics.answer(None)
        mock.slow(0)

    within(20, main())


def test_closed_while_a_member_joins(mock):
    async def main():
        async with KafkaBroker(mock.bootstrap) as broker:
            await broker.publish(message())

            async def read():
                async with broker.subscribe("orders", KafkaSubscribeOptions(group="g")) as subscription:
                    return await subscription.pull(1, 5)

            reading = asyncio.ensure_future(read())
            while not any(thread.name == "headrace-kafka-poll" for thread in threading.enumerate()):
                await asyncio.sleep(0)
            await broker.aclose()
            with pytest.raises(ClosedError, match="broker"):
                await reading
            while any(thread.name == "headrace-kafka-poll" for thread in threading.enumerate()):
                await asyncio.sleep(0.02)

    within(30, main())


# --- partitions without a leader -------------------------------------------------------------------


def test_a_partition_without_leader_holds_up_no_other():
    """Also where it has none when the broker object first meets the topic."""

    async def main(mock):
        async with broker_on(mock) as broker:
            sent = await broker.publish_batch([message().replace(key=b"%d" % number) for number in range(30)])
        keys = {result.partition: b"%d" % number for number, result in enumerate(sent)}
        mock.move_leader("orders", 2, None)
        async with broker_on(mock) as broker:
            async with asyncio.timeout(10):
                for partition in (0, 1):
                    assert (await broker.publish(message().replace(key=keys[partition]))).partition == partition
            waiting = asyncio.ensure_future(broker.publish(message().replace(key=keys[2])))
            await asyncio.sleep(1)
            assert not waiting.done()
            mock.move_leader("orders", 2, 1)
            assert (await waiting).partition == 2

    with KafkaMock(3) as mock:
        mock.create_topic("orders", 3)
        within(60, main(mock))


def test_a_topic_that_gets_no_leaders_may_get_them_later(mock, monkeypatch):
    monkeypatch.setattr("headrace.kafka.topics._LEADERS", 0.2)

    async def main():
        mock.set_topic_error("orders", Code.LEADER_NOT_AVAILABLE)
        mock.move_leader("orders", 0, None)
        async with broker_on(mock, delivery_timeout=1) as broker:
            with pytest.raises(PublishError, match="no leader") as raised:
                await broker.publish(message())
            assert raised.value.fault is Fault.UNAVAILABLE
            assert raised.value.__cause__.code == Code.LEADER_NOT_AVAILABLE
            mock.set_topic_error("orders", 0)
            mock.move_leader("orders", 0, 1)
            assert (await broker.publish(message())).offset == 0

    within(20, main())


# --- what was accepted before the close ------------------------------------------------------------


class Slow(SendRewrite):
    """Waits for a word before it passes anything on."""

    def __init__(self):
        self.begun = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self, item, call_next):
        self.begun.set()
        await self.go.wait()
        return await call_next(item)

    async def many(self, messages, call_next):
        self.begun.set()
        await self.go.wait()
        return await call_next(messages)


@pytest.mark.parametrize("ordering", [Ordering.KEY, Ordering.TOTAL])
@pytest.mark.parametrize("retry", [None, NOW])
def test_a_shared_broker_closed_while_messages_are_in_the_middleware(mock, retry, ordering):
    """They are certainly not sent, and not refused; nor tried for ever."""

    async def main():
        slow = Slow()
        broker = broker_on(mock)
        await broker.open()
        producer = Producer(broker, middleware=[slow], retry=retry, ordering=ordering)
        await producer.open()
        one = await producer.produce_async(message())
        many = asyncio.ensure_future(producer.produce_many([message(), message()]))
        await slow.begun.wait()
        await broker.aclose()
        slow.go.set()
        for error in (*await asyncio.gather(one, return_exceptions=True), *await many):
            assert isinstance(error, PublishError)
            assert error.fault is Fault.UNAVAILABLE
            assert isinstance(error.__cause__, ClosedError)
        await producer.aclose()

    within(20, main())


def test_closed_again_in_a_hurry(mock):
    async def main():
        slow = Slow()
        producer = Producer(broker_on(mock), middleware=[slow])
        await producer.open()
        future = await producer.produce_async(message())
        await slow.begun.wait()
        closing = asyncio.ensure_future(producer.aclose())
        await asyncio.sleep(0.01)
        hurried = asyncio.ensure_future(producer.aclose(flush=False))
        await asyncio.sleep(0)
        slow.go.set()
        with pytest.raises(PublishError) as raised:
            await future
        assert raised.value.fault in {Fault.UNAVAILABLE, Fault.UNKNOWN}
        await asyncio.gather(closing, hurried)

    within(20, main())


def test_a_batch_that_is_closed_midway_is_not_refused(mock):
    async def main():
        producer = Producer(broker_on(mock))
        await producer.open()

        async def close():
            await producer.produce_many([message()] * 10)
            await producer.aclose()

        batch, _ = await asyncio.gather(
            producer.produce_batch([message() for _ in range(2000)]), close(), return_exceptions=True
        )
        assert isinstance(batch, ProduceBatchError)
        assert batch.index > 0
        assert batch.fault is Fault.UNAVAILABLE

    within(20, main())


@pytest.mark.parametrize("middleware", [False, True])
def test_a_producer_of_a_closed_broker_queues_nothing(mock, middleware):
    async def passing(item, call_next):
        return await call_next(item)

    async def main():
        broker = broker_on(mock)
        await broker.open()
        async with Producer(broker, middleware=[passing] if middleware else []) as producer:
            assert (await producer.produce(message())).offset == 0
            await broker.aclose()
            for call in (producer.produce, producer.produce_async, producer.publish):
                with pytest.raises(ClosedError, match="broker"):
                    await call(message())
            for call in (producer.produce_many, producer.produce_batch):
                with pytest.raises(ClosedError, match="broker"):
                    await call([message()])
        async with broker_on(mock) as broker:
            assert (await broker.publish(message())).offset == 1

    within(20, main())


# --- a hook that hangs -----------------------------------------------------------------------------


@pytest.fixture
def hanging(mock):
    """A producer whose ``on_failure`` hangs with one message."""

    async def hang(_):
        await asyncio.sleep(3600)

    async def make(**settings):
        producer = Producer(broker_on(mock), on_failure=hang, **settings)
        await producer.open()
        mock.push_errors(Api.PRODUCE, Code.MSG_SIZE_TOO_LARGE)
        with pytest.raises(PublishError):
            await (await producer.produce_async(message()))
        return producer

    return make


def test_a_hook_that_hangs_holds_up_no_close(hanging, caplog):
    async def main():
        others = asyncio.all_tasks() - {asyncio.current_task()}
        producer = await hanging()
        began = time.monotonic()
        await producer.aclose(timeout=0.5)
        assert 0.4 < time.monotonic() - began < 5
        assert "on_failure hangs" in caplog.text
        await asyncio.sleep(0.01)
        assert asyncio.all_tasks() == {asyncio.current_task()} | others

    within(20, main())


def test_a_hook_that_hangs_and_a_hurry(hanging):
    async def main():
        producer = await hanging()
        closing = asyncio.ensure_future(producer.aclose())
        await asyncio.sleep(0.1)
        assert not closing.done()
        await asyncio.wait_for(producer.aclose(flush=False), 5)
        await closing

    within(20, main())


def test_a_hook_that_hangs_with_what_was_interrupted(mock):
    async def hang(_):
        await asyncio.sleep(3600)

    async def main():
        slow = Slow()
        producer = Producer(broker_on(mock), on_failure=hang, middleware=[slow])
        await producer.open()
        future = await producer.produce_async(message())
        await slow.begun.wait()
        await asyncio.wait_for(producer.aclose(flush=False), 5)
        with pytest.raises(PublishError):
            await future

    within(20, main())


# --- another loop ----------------------------------------------------------------------------------


@pytest.mark.parametrize("published", [False, True])
def test_a_broker_belongs_to_its_loop(mock, published):
    broker = broker_on(mock)
    producer = Producer(broker)

    async def here():
        await broker.open()
        await producer.open()
        if published:
            await broker.publish(message())
            await producer.produce(message())

    async def there():
        uses = (
            broker.open, broker.aclose, lambda: broker.publish(message()), lambda: broker.publish_batch([message()]),
            lambda: broker.declare("orders"), lambda: broker.subscribe("orders").__aenter__(),
            lambda: producer.produce(message()), lambda: producer.produce_many([message()]), producer.flush,
            producer.aclose,
        )  # fmt: skip
        for use in uses:
            with pytest.raises(UsageError, match="another event loop"):
                await asyncio.wait_for(use(), 5)

    with asyncio.Runner() as runner:
        runner.run(here())
        with asyncio.Runner() as other:
            other.run(there())
        asyncio.set_event_loop(runner.get_loop())
        runner.run(broker.aclose())
