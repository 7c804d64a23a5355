"""Sender, on librdkafka's mock cluster: one result for whatever was accepted, back-pressure, failures of the driver."""

import asyncio
import gc
import multiprocessing
import time
from contextlib import asynccontextmanager

import pytest

from headrace.core.errors import (
    BrokerTimeoutError,
    ClosedError,
    ConfigError,
    Fault,
    PublishError,
    PublishInterruptedError,
    PublishTimeoutError,
    UsageError,
)
from headrace.core.message import Message
from headrace.kafka.codes import Code
from headrace.kafka.errors import KafkaError, UnknownTopicError
from headrace.kafka.options import KafkaOptions
from headrace.kafka.sending.result import ProduceResult
from headrace.kafka.sending.sender import Sender
from headrace.kafka.topics import Topics
from headrace.kafka.wire import Tombstone
from headrace.testing.kafka.mock import Api, KafkaMock

OUT_OF_ORDER = 45


@pytest.fixture
def mock():
    with KafkaMock() as cluster:
        yield cluster


def message(number=0, key=b"k", topic="orders", body=None, **fields):
    return Message(topic=topic, key=key, body=b"%d" % number if body is None else body, **fields)


@asynccontextmanager
async def sending(mock, *, places=5000, partitions=4, **options):
    """A sender to the topic `orders`."""
    given = KafkaOptions(**options)
    mock.create_topic("orders", partitions)
    topics = Topics([mock.bootstrap], given)
    await topics.open()
    sender = Sender([mock.bootstrap], given, topics, places=places, create=False)
    try:
        yield sender
    finally:
        await sender.aclose(flush=False)
        await topics.aclose()


async def until_sent(sender, seconds=30.0):
    """The driver waits longer and longer before it connects again."""
    async with asyncio.timeout(seconds):
        while not isinstance((await sender.send_many([message()]))[0], ProduceResult):
            pass


def test_one_many_and_submit(mock):
    async def main():
        async with sending(mock) as sender:
            one = await sender.send_one(message())
            assert isinstance(one, ProduceResult)
            assert one.topic == "orders"
            assert one.position.source == f"orders/{one.partition}"
            assert one.position.value == one.offset == 0
            many = await sender.send_many([message(number, key=b"%d" % (number % 7)) for number in range(3000)])
            assert {type(result) for result in many} == {ProduceResult}
            futures = [await sender.submit(message(number)) for number in range(50)]
            offsets = [(await future).offset for future in futures]
            assert offsets == sorted(offsets)  # one key: one partition, in the order of the calls
            assert len(set(offsets)) == 50
            assert await sender.send_many([]) == []
            assert sender.outstanding == 0

    asyncio.run(main())


def test_result_attributes(mock):
    async def main():
        async with sending(mock, client_id="till") as sender:
            result = await sender.send_one(message())
            assert result.attributes() == {
                "messaging.system": "kafka",
                "messaging.destination.partition.id": str(result.partition),
                "messaging.kafka.offset": 0,
                "messaging.client.id": "till",
            }
            assert result.time.tzinfo is not None

    asyncio.run(main())


def test_bad_input_queues_nothing(mock):
    async def main():
        async with sending(mock, max_message_bytes=1000) as sender:
            for bad, error in (
                (None, UsageError),
                ("text", UsageError),
                (message(topic=""), UsageError),
                (message(body="text"), UsageError),
                (message(time_ns=-1), UsageError),
                (message(time_ns=253_402_300_800 * 10**9), UsageError),
                (message(topic="a*"), ConfigError),
            ):
                with pytest.raises(error):
                    await sender.send_one(bad)
            with pytest.raises(PublishError, match="at most 1000") as raised:
                await sender.send_one(message(body=b"x" * 990))
            assert raised.value.fault is Fault.REJECTED
            assert raised.value.limit == 1000
            assert sender.clients == 0
            assert sender.outstanding == 0

    asyncio.run(main())


def test_batch_report_vector(mock):
    """One bad item does not touch the others; each entry is a result or a PublishError, in order."""

    async def main():
        async with sending(mock, max_message_bytes=10_000) as sender:
            given = [
                message(1),
                None,
                message(2, topic="nowhere"),
                message(3, topic="not a name"),
                message(4, body=b"x" * 20_000),
                Tombstone(topic="orders", key=b"k", body=b""),
                message(5, body="text"),
                message(6),
            ]
            results = await sender.send_many(given)
            good = [0, 5, 7]
            assert [place for place, result in enumerate(results) if isinstance(result, ProduceResult)] == good
            assert [results[place].offset for place in good] == [0, 1, 2]
            for place in (1, 2, 3, 4, 6):
                assert isinstance(results[place], PublishError)
                assert results[place].fault is Fault.REJECTED
            assert isinstance(results[1].__cause__, UsageError)
            assert isinstance(results[2].__cause__, UnknownTopicError)
            assert isinstance(results[3].__cause__, ConfigError)
            assert results[4].limit == 10_000
            assert [results[place].message_id for place in (2, 4)] == [given[2].id, given[4].id]

    asyncio.run(main())


def test_calls_enter_in_call_order(mock):
    """Whatever methods they mix, and however full it is."""

    async def main():
        async with sending(mock, places=8, partitions=1) as sender:
            calls = []
            for number in range(40):
                match number % 3:
                    case 0:
                        call = sender.send_one(message(number))
                    case 1:
                        call = sender.send_many([message(number) for _ in range(20)])
                    case _:
                        call = sender.submit(message(number))
                calls.append(asyncio.ensure_future(call))
            offsets = []
            for call in calls:
                result = await call
                if isinstance(result, asyncio.Future):
                    result = await result
                offsets += [one.offset for one in result] if isinstance(result, list) else [result.offset]
            assert offsets == list(range(len(offsets)))

    asyncio.run(main())


def test_place_wait_cancelled_is_not_accepted(mock):
    async def main():
        async with sending(mock, places=2, linger=0.5) as sender:
            await sender.send_one(message())
            held = [await sender.submit(message(1)), await sender.submit(message(2))]
            waiting = asyncio.ensure_future(sender.send_one(message(3)))
            behind = asyncio.ensure_future(sender.send_one(message(4)))
            await asyncio.sleep(0.01)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert sender.outstanding == 2
            results = [*[await future for future in held], await behind]
            assert [result.offset for result in results] == [1, 2, 3]
            with pytest.raises(PublishTimeoutError) as raised:  # it waits for a place
                held = [await sender.submit(message(1)), await sender.submit(message(2))]
                await sender.send_one(message(5), timeout=0.02)
            assert raised.value.fault is Fault.UNAVAILABLE
            assert [(await future).offset for future in held] == [4, 5]

    asyncio.run(main())


def test_cancelled_many_goes_its_way(mock):
    async def main():
        async with sending(mock, places=50, partitions=1) as sender:
            await sender.send_one(message())
            call = asyncio.ensure_future(sender.send_many([message(number) for number in range(500)]))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            accepted = sender.outstanding
            assert 0 < accepted < 500
            await sender.flush(10)
            assert sender.outstanding == 0
            assert (await sender.send_one(message())).offset == accepted + 1

    asyncio.run(main())


def test_late_is_unknown_and_keeps_its_place(mock):
    async def main():
        async with sending(mock) as sender:
            await sender.send_one(message())
            mock.slow(0.3)
            with pytest.raises(PublishTimeoutError) as raised:
                await sender.send_one(message(), timeout=0.05)
            assert raised.value.fault is Fault.UNKNOWN
            assert sender.outstanding == 1
            mock.slow(0)
            await sender.flush(10)
            assert sender.outstanding == 0

    asyncio.run(main())


def test_queue_full(mock):
    """A full driver is back-pressure: everything is sent, in order, and nothing fails."""

    async def main():
        async with sending(mock, partitions=1, max_buffered_bytes=64 * 1024, max_message_bytes=8 * 1024) as sender:
            body = b"x" * 4096
            calls = [sender.send_many([message(body=body) for _ in range(300)])]
            calls += [sender.send_one(message(body=body)) for _ in range(100)]
            many, *ones = await asyncio.gather(*calls)
            results = [*many, *ones]
            assert [result.offset for result in results] == list(range(400))

    asyncio.run(main())


def test_delivery_timeout_report(mock):
    async def main():
        async with sending(mock, delivery_timeout=1.0) as sender:
            await until_sent(sender)  # a busy machine may need more than a second for the first
            mock.down()
            results = await sender.send_many([message(number) for number in range(20)])
            assert {type(result) for result in results} == {PublishTimeoutError}
            assert {result.fault for result in results} == {Fault.UNKNOWN}
            assert {result.__cause__.code for result in results} == {Code.LOCAL_MSG_TIMED_OUT}
            mock.up()
            await until_sent(sender)

    asyncio.run(main())


def test_without_delivery_timeout_an_outage_is_waited_for(mock):
    async def main():
        async with sending(mock, partitions=1) as sender:
            await sender.send_one(message())
            mock.down()
            futures = [await sender.submit(message(number)) for number in range(100)]
            await asyncio.sleep(0.05)
            assert not any(future.done() for future in futures)
            mock.up()
            assert [(await future).offset for future in futures] == list(range(1, 101))
            assert sender.clients == 1

    asyncio.run(main())


def test_fatal_opens_new_producer(mock):
    """Everything accepted is UNKNOWN; what comes after that goes through a new producer."""

    async def main():
        async with sending(mock, partitions=1) as sender:
            await sender.send_one(message())
            mock.push_errors(Api.PRODUCE, *[OUT_OF_ORDER] * 3)
            many = asyncio.ensure_future(sender.send_many([message(number) for number in range(20)]))
            one = await sender.submit(message())
            results = [*await many, *await asyncio.gather(one, return_exceptions=True)]
            for result in results:
                assert isinstance(result, PublishError)
                assert result.fault is Fault.UNKNOWN
                assert isinstance(result.__cause__, KafkaError)
                assert result.__cause__.fatal
            mock.clear_errors(Api.PRODUCE)
            assert sender.outstanding == 0
            assert isinstance(await sender.send_one(message()), ProduceResult)
            assert sender.clients == 2

    asyncio.run(main())


@pytest.mark.parametrize("flush", [True, False])
def test_close_resolves_everything(mock, flush):
    async def main():
        async with sending(mock, places=10) as sender:
            await sender.send_one(message())
            mock.down()
            futures = [await sender.submit(message(number)) for number in range(5)]
            many = asyncio.ensure_future(sender.send_many([message(number) for number in range(50)]))
            waiting = asyncio.ensure_future(sender.send_one(message()))
            await asyncio.sleep(0.02)
            began = time.monotonic()
            if flush:
                with pytest.raises(BrokerTimeoutError):
                    await sender.aclose(timeout=0.1)
            else:
                await sender.aclose(flush=False)
            assert time.monotonic() - began < 3
            for future in futures:
                with pytest.raises(PublishInterruptedError):
                    await future
            results = await many
            assert [type(result) for result in results[:5]] == [PublishInterruptedError] * 5
            assert {result.fault for result in results[5:]} == {Fault.UNAVAILABLE}  # never accepted
            with pytest.raises(ClosedError):
                await waiting
            for call in (sender.send_one, sender.submit):
                with pytest.raises(ClosedError):
                    await call(message())
            with pytest.raises(ClosedError):
                await sender.send_many([message()])
            assert sender.outstanding == 0
            mock.up()

    asyncio.run(main())


def test_close_waits_for_what_was_accepted(mock):
    async def main():
        async with sending(mock, linger=60) as sender:
            futures = [await sender.submit(message(number)) for number in range(100)]
            began = time.monotonic()
            await sender.aclose()
            assert time.monotonic() - began < 5  # nothing lingers then
            assert all(isinstance(future.result(), ProduceResult) for future in futures)

    asyncio.run(main())


def test_flush_does_not_linger(mock):
    async def main():
        async with sending(mock, linger=60) as sender:
            future = await sender.submit(message())
            await sender.flush(10)
            assert future.done()
            mock.down()
            late = await sender.submit(message())
            with pytest.raises(BrokerTimeoutError):
                await sender.flush(0.05)
            mock.up()
            await sender.flush()
            assert late.done()

    asyncio.run(main())


def test_loop_ends_with_messages_on_their_way(mock):
    """Nobody closes: the thread ends by itself with the loop, and nothing hangs."""

    async def main():
        mock.create_topic("orders", 1)
        topics = Topics([mock.bootstrap], KafkaOptions())
        await topics.open()
        sender = Sender([mock.bootstrap], KafkaOptions(), topics)
        await sender.send_one(message())
        mock.down()
        waiting = asyncio.ensure_future(sender.send_one(message()))
        await asyncio.sleep(0.01)
        task = asyncio.ensure_future(sender.aclose(timeout=60))
        await asyncio.sleep(0.01)
        await topics.aclose()
        return waiting, task

    began = time.monotonic()
    asyncio.run(main())
    gc.collect()
    assert time.monotonic() - began < 10


def test_fork_is_refused(mock):
    def child(sender, pipe):
        async def use():
            try:
                await sender.send_one(message())
            except UsageError as error:
                return str(error)
            return "went through"

        pipe.send(asyncio.run(use()))

    async def main():
        async with sending(mock) as sender:
            await sender.send_one(message())
            context = multiprocessing.get_context("fork")
            ours, theirs = context.Pipe()
            process = context.Process(target=child, args=(sender, theirs))
            process.start()
            assert ours.poll(10)
            assert "fork" in ours.recv()
            process.join(10)
            assert process.exitcode == 0
            ours.close()
            theirs.close()
            process.close()
            assert isinstance(await sender.send_one(message()), ProduceResult)

    asyncio.run(main())
