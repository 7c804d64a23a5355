"""A broker is opened once, however many want it open, and by its own process only."""

import asyncio
import multiprocessing
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from headrace.core.errors import ClosedError, UsageError
from headrace.core.message import Message
from headrace.kafka.broker import KafkaBroker
from headrace.kafka.errors import KafkaError
from headrace.kafka.options import KafkaOptions
from headrace.kafka.producer import Producer
from headrace.kafka.reading import KafkaSubscribeOptions
from tests.unit.kafka.mocked import broker_on

NOWHERE = "127.0.0.1:1"


@pytest.fixture
def clients(mock):
    """How many clients of the driver there are beside the mock's: each has one main thread."""

    def mains():
        found = set()
        for path in Path("/proc/self/task").glob("*/comm"):
            with suppress(OSError):  # it has just ended
                if path.read_text().startswith("rdk:main"):
                    found.add(path.parent.name)
        return found

    if not Path("/proc/self/task").exists():
        pytest.skip("threads have no names here")
    others = mains()
    return lambda: len(mains() - others)


async def soon(clients, number):
    """A new thread bears the name of the one that made it until it gives itself its own: a look alone may be wrong."""
    until = time.monotonic() + 10
    while clients() != number and time.monotonic() < until:
        await asyncio.sleep(0.02)
    assert clients() == number


async def soon_none(clients):
    await soon(clients, 0)
    assert not [thread for thread in threading.enumerate() if thread.name == "headrace-kafka-poll"]


def test_opened_by_many_at_once(mock, clients):
    """One client, whenever they come; and one of them has opened it."""

    async def main():
        mock.slow(0.3)
        broker = broker_on(mock)
        opening = []
        for _ in range(8):  # before, while and after the client is made
            opening += [asyncio.ensure_future(broker.open()) for _ in range(2)]
            await asyncio.sleep(0.01)
        assert not broker.is_open
        assert sorted(await asyncio.gather(*opening)) == [False] * 15 + [True]
        await soon(clients, 1)
        assert broker.is_open
        assert await broker.open() is False
        await broker.aclose()
        await soon_none(clients)

    asyncio.run(main())


def test_one_of_two_producers_closes_the_broker(mock, clients):
    async def main():
        mock.slow(0.1)
        broker = broker_on(mock)
        producers = [Producer(broker), Producer(broker)]
        await asyncio.gather(*(producer.open() for producer in producers))
        mock.slow(0)
        for producer in producers:
            await producer.produce(Message(topic="orders", body=b"x"))
        await producers[1].aclose()
        assert broker.is_open
        await producers[0].aclose()
        assert not broker.is_open
        await soon_none(clients)

    asyncio.run(main())


@pytest.mark.parametrize("cancelled", [0, 1, 2])
def test_who_is_cancelled_breaks_no_other(mock, clients, cancelled):
    async def main():
        mock.slow(0.3)
        broker = broker_on(mock)
        opening = [asyncio.ensure_future(broker.open()) for _ in range(3)]
        await asyncio.sleep(0.05)
        opening[cancelled].cancel()
        results = await asyncio.gather(*opening, return_exceptions=True)
        assert isinstance(results.pop(cancelled), asyncio.CancelledError)
        assert sorted(results) == [False, True]
        await soon(clients, 1)
        await broker.aclose()
        await soon_none(clients)

    asyncio.run(main())


def test_all_are_cancelled_and_it_is_opened_again(mock, clients):
    async def main():
        mock.slow(0.3)
        broker = broker_on(mock)
        opening = [asyncio.ensure_future(broker.open()) for _ in range(3)]
        await asyncio.sleep(0.05)
        for each in opening:
            each.cancel()
        results = await asyncio.gather(*opening, return_exceptions=True)
        assert [type(result) for result in results] == [asyncio.CancelledError] * 3
        await soon_none(clients)
        mock.slow(0)
        assert await broker.open() is True
        await broker.aclose()
        await soon_none(clients)

    asyncio.run(main())


def test_a_failed_opening_is_one_for_all_and_can_be_tried_again(mock, clients, monkeypatch):
    monkeypatch.setattr("headrace.kafka.topics._PATIENCE", 0.6)

    async def main():
        mock.down()
        broker = broker_on(mock)
        results = await asyncio.gather(*(broker.open() for _ in range(3)), return_exceptions=True)
        assert all(isinstance(result, KafkaError) for result in results)
        assert not broker.is_open
        await soon_none(clients)
        mock.up()
        monkeypatch.undo()
        assert await broker.open() is True
        await broker.publish(Message(topic="orders", body=b"x"))
        await broker.aclose()
        await soon_none(clients)

    asyncio.run(main())


@pytest.mark.parametrize("after", [0, 0.002, 0.05])
def test_closed_while_it_opens(mock, clients, after):
    async def main():
        mock.slow(0.3)
        broker = broker_on(mock)
        opening = [asyncio.ensure_future(broker.open()) for _ in range(2)]
        await asyncio.sleep(after)
        await broker.aclose()
        for each in opening:
            with pytest.raises(ClosedError):
                await each
        assert not broker.is_open
        with pytest.raises(ClosedError):
            await broker.open()
        await soon_none(clients)

    asyncio.run(main())


def test_closed_at_the_moment_it_is_open(mock, clients):
    """The answer is there, and who waits for it has not run yet."""

    async def main():
        for _ in range(40):
            broker = broker_on(mock)
            opening = asyncio.ensure_future(broker.open())
            await asyncio.sleep(0)
            while not opening.done() and not broker.is_open:
                if clients():
                    await asyncio.sleep(0)
                    break
                await asyncio.sleep(0)
            await broker.aclose()
            with suppress(ClosedError):
                await opening
            assert not broker.is_open
        await soon_none(clients)

    asyncio.run(main())


def test_a_producer_that_is_closed_while_its_broker_opens(mock, clients):
    async def main():
        mock.slow(0.3)
        broker = broker_on(mock)
        producer = Producer(broker)
        opening = asyncio.ensure_future(producer.open())
        await asyncio.sleep(0.05)
        await producer.aclose()
        with pytest.raises(ClosedError, match="producer"):
            await opening
        assert not broker.is_open
        await soon_none(clients)

    asyncio.run(main())


# --- processes -------------------------------------------------------------------------------------


def in_child(use):
    """What the coroutine function `use` gives in a child of this process."""

    def child(pipe):
        pipe.send(asyncio.run(use()))

    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=child, args=(theirs,))
    process.start()
    try:
        assert ours.poll(20)
        return ours.recv()
    finally:
        process.kill()
        process.join(10)
        ours.close()
        theirs.close()
        process.close()


@pytest.mark.parametrize("published", [False, True])
def test_an_opened_broker_is_refused_in_a_child(mock, published):
    message = Message(topic="orders", body=b"x")

    async def subscribe(broker):
        async with broker.subscribe("orders", KafkaSubscribeOptions(group="g")):
            pass

    async def partitions(broker):
        broker.partitions()

    async def topics(broker):
        _ = broker.topics

    async def sender(broker):
        broker.sender(10)

    uses = {
        "open": KafkaBroker.open,
        "publish": lambda broker: broker.publish(message),
        "publish_batch": lambda broker: broker.publish_batch([message]),
        "declare": lambda broker: broker.declare("orders"),
        "producer": lambda broker: Producer(broker).open(),
        "subscribe": subscribe, "partitions": partitions, "topics": topics, "sender": sender,
    }  # fmt: skip

    async def main():
        async with broker_on(mock) as broker:

            async def tried():
                said = {}
                for name, use in uses.items():
                    try:
                        await use(broker)
                        said[name] = "went through"
                    except UsageError as error:
                        said[name] = str(error)
                await asyncio.wait_for(broker.aclose(), 5)
                said["closed"] = broker.is_open
                return said

            if published:
                await broker.publish(message)
            said = in_child(tried)
            assert said.pop("closed") is True  # nothing was done
            assert all("opened before a fork" in text for text in said.values()), said
            assert (await broker.publish(message)).offset == int(published)

    asyncio.run(main())


def test_a_broker_that_was_not_open_can_be_opened_in_a_child(mock):
    broker = KafkaBroker(mock.bootstrap, create=False, options=KafkaOptions(delivery_timeout=10))

    async def use():
        async with broker:
            return (await broker.publish(Message(topic="orders", body=b"x"))).offset

    assert in_child(use) == 0
