"""Options of one publish, and what the manager counts and finds."""

import asyncio

import pytest

from headrace import embedded
from headrace.core.broker import Expect
from headrace.core.errors import Fault, PublishTimeoutError
from headrace.embedded import EmbeddedOptions
from headrace.streams.config import ConsumerConfig, StreamConfig, StreamPublishOptions
from headrace.streams.errors import (
    ConsumerNotFoundError,
    NoStreamResponseError,
    StreamNotFoundError,
    WrongLastSequenceError,
)
from headrace.testing.virtual import virtual_time


class Blocked:
    """Holds the write turn of a store, as another process that stands still would."""

    def __init__(self, streams):
        self.gate = streams._store.gates["streams"]

    def __enter__(self):
        self.gate.enter()

    def __exit__(self, *_):
        self.gate.leave()


SHORT = StreamPublishOptions(timeout=0.05)
LONG = StreamPublishOptions(timeout=30)


def test_timeout_of_one_publish(tmp_path):
    async def run():
        failed = []
        options = EmbeddedOptions(on_publish_error=lambda message, error: failed.append(message.data))
        async with (
            embedded.open(tmp_path / "store", options=options) as streams,
            embedded.open(tmp_path / "store") as other,
        ):
            await streams.create_stream(StreamConfig(name="S"))
            with Blocked(other):
                with pytest.raises(PublishTimeoutError) as late:
                    await streams.publish("S", b"waited for", options=SHORT)
                future = await streams.publish_async("S", b"async", options=SHORT)
                with pytest.raises(PublishTimeoutError) as late_too:
                    await future
            assert (late.value.fault, late_too.value.fault) == (Fault.UNKNOWN, Fault.UNKNOWN)
            assert failed == [b"async"]
            assert streams.publish_async_pending == 0
            assert (await (await streams.publish_async("S", b"in time", options=LONG))).stream == "S"
            await streams.publish_async_complete()

    asyncio.run(run())


@pytest.mark.parametrize("timeout", [None, 10.0])
@virtual_time
async def test_a_stream_that_comes_meanwhile(timeout):
    options = StreamPublishOptions(timeout=timeout, retry_attempts=2, retry_wait=0.25)
    async with embedded.open(":memory:") as streams:
        for publish in (streams.publish, streams.publish_async):
            sent = asyncio.ensure_future(publish("S", b"x", options=options))
            await asyncio.sleep(0.3)
            await streams.create_stream(StreamConfig(name="S"))
            ack = await sent
            ack = ack if publish == streams.publish else await ack
            assert ack.sequence == 1
            await streams.delete_stream("S")
        with pytest.raises(NoStreamResponseError):
            await streams.publish("S", b"x", options=options)


@virtual_time
async def test_name_by_subject_takes_filters():
    async with embedded.open(":memory:") as streams:
        await streams.create_stream(StreamConfig(name="B", subjects=["b.x"]))
        await streams.create_stream(StreamConfig(name="A", subjects=["a.>"]))
        assert [await streams.stream_name_by_subject(each) for each in ("b.x", "b.*", "a.x.y", ">")] == [
            "B",
            "B",
            "A",
            "A",
        ]
        with pytest.raises(StreamNotFoundError):
            await streams.stream_name_by_subject("b.y")


@virtual_time
async def test_account_info_counts_calls_and_refusals():
    async with embedded.open(":memory:") as streams:
        stream = await streams.create_stream(StreamConfig(name="S"))
        await streams.create_consumer("S", ConsumerConfig(durable="c"))
        before = (await streams.account_info()).api
        with pytest.raises(StreamNotFoundError):
            await streams.stream("T")
        with pytest.raises(ConsumerNotFoundError):
            await stream.consumer("d")
        await streams.publish("S", b"x")
        after = await streams.account_info()
        assert (after.api.total - before.total, after.api.errors - before.errors) == (3, 2)
        assert (after.streams, after.consumers, after.memory, after.storage) == (1, 1, 32, 0)


@virtual_time
async def test_a_slot_of_a_cancelled_waiter_is_the_next_ones():
    waiting = []
    options = EmbeddedOptions(max_pending=1, stall_wait=3.0, on_publish_error=lambda *_: waiting[0].cancel())
    async with embedded.open(":memory:", options=options) as streams:
        await streams.create_stream(StreamConfig(name="S"))
        refused = await streams.publish_async("S", options=StreamPublishOptions(expect=Expect(last=9)))
        waiting += [asyncio.ensure_future(streams.publish_async("S", b"%d" % number)) for number in range(3)]
        with pytest.raises(WrongLastSequenceError):
            await refused
        cancelled, second, third = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(cancelled, asyncio.CancelledError)
        assert [(await each).sequence for each in (second, third)] == [1, 2]


@virtual_time
async def test_nobody_takes_the_slot_of_one_that_was_woken():
    outstanding = []
    async with embedded.open(":memory:", options=EmbeddedOptions(max_pending=1)) as streams:
        await streams.create_stream(StreamConfig(name="S"))

        async def publish():
            future = await streams.publish_async("S")
            outstanding.append(streams.publish_async_pending)
            await future

        async def publish_as_soon_as_there_is_room():
            while streams.publish_async_pending:
                await asyncio.sleep(0)
            await publish()

        first = asyncio.ensure_future(publish())
        await asyncio.sleep(0)
        await asyncio.gather(first, publish(), publish_as_soon_as_there_is_room())
        assert outstanding == [1, 1, 1]
