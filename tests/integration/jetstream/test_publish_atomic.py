"""publish_atomic on a real server: all or nothing."""

import asyncio
import itertools

import pytest

from headrace import jetstream
from headrace.core.broker import Expect
from headrace.core.errors import ConfigError, PublishError, UnsupportedError
from headrace.jetstream.options import JetStreamOptions
from headrace.streams.config import StreamConfig, StreamMessage, StreamPublishOptions
from headrace.streams.errors import AtomicBatchError, MessageTooLargeError, NoStreamResponseError
from headrace.testing.nats import NatsServer, RecordingServer

NAMES = (f"BATCH{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def server():
    with NatsServer() as running:
        yield running


def story(server, tell, **config):
    async def run():
        async with jetstream.connect(server.url, options=JetStreamOptions(timeout=20)) as js:
            name = next(NAMES)
            subject = name.lower()
            await js.create_stream(
                StreamConfig(name=name, subjects=[subject, f"{subject}.>"], **{"allow_atomic": True, **config})
            )
            await tell(js, subject)

    asyncio.run(asyncio.wait_for(run(), 50))


async def stored(js, subject):
    return [message.data for message in await (await js.stream(subject.upper())).read(limit=10_000)]


@pytest.mark.parametrize("count", [1, 2, 3, 1_000])
def test_all(server, count):
    async def tell(js, subject):
        await js.publish(subject, b"before")
        messages = [StreamMessage(f"{subject}.{n % 3}", b"%d" % n, {"A": f"{n}"}) for n in range(count)]
        ack = await js.publish_atomic(messages)
        assert (ack.stream, ack.sequence, ack.batch_size) == (subject.upper(), count + 1, count)
        assert ack.batch_id
        assert await stored(js, subject) == [b"before", *(b"%d" % n for n in range(count))]

    story(server, tell)


def test_two_at_the_same_time(server):
    async def tell(js, subject):
        batches = [[StreamMessage(subject, b"%d" % part)] * 100 for part in range(5)]
        await asyncio.gather(*(js.publish_atomic(batch) for batch in batches))
        bodies = await stored(js, subject)
        assert len(bodies) == 500
        assert len([body for body, _ in itertools.groupby(bodies)]) == 5  # none inside another

    story(server, tell)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_message_for_nobody_or_for_another_stream(server, place):
    async def tell(js, subject):
        await js.create_stream(StreamConfig(name=f"{subject}-other", allow_atomic=True))
        for elsewhere in ("nobody.there", f"{subject}-other"):
            messages = [StreamMessage(subject, b"%d" % n) for n in range(3)]
            messages[place] = StreamMessage(elsewhere)
            with pytest.raises(PublishError) as caught:
                await js.publish_atomic(messages)
            assert isinstance(caught.value, AtomicBatchError | NoStreamResponseError)
            assert await stored(js, subject) == []
        assert (await (await js.stream(f"{subject}-other")).info()).state.messages == 0

    story(server, tell)


def test_a_stream_that_does_not_allow_it(server):
    async def tell(js, subject):
        with pytest.raises(AtomicBatchError) as caught:
            await js.publish_atomic([StreamMessage(subject)] * 2)
        assert caught.value.err_code == 10174
        with pytest.raises(AtomicBatchError):
            await js.publish_atomic([StreamMessage(subject)])
        assert await stored(js, subject) == []

    story(server, tell, allow_atomic=False)


def test_what_is_refused_before_anything_is_sent():
    async def run(server):
        async with jetstream.connect(server.url) as js:
            before = server.received
            with pytest.raises(ConfigError, match="empty"):
                await js.publish_atomic([])
            with pytest.raises(AtomicBatchError, match="1001 messages, at most 1000"):
                await js.publish_atomic([StreamMessage("a")] * 1_001)
            with pytest.raises(MessageTooLargeError):
                await js.publish_atomic([StreamMessage("a"), StreamMessage("a", b"x" * 2_000_000)])
            await asyncio.sleep(0.05)
            assert server.received == before

    with RecordingServer() as server:
        asyncio.run(run(server))


def test_an_old_server_cannot():
    async def run(server):
        async with jetstream.connect(server.url) as js:
            before = server.received
            with pytest.raises(UnsupportedError, match=r"2\.11\.4"):
                await js.publish_atomic([StreamMessage("a")])
            await asyncio.sleep(0.05)
            assert server.received == before

    with RecordingServer({"version": "2.11.4"}) as server:
        asyncio.run(run(server))


def test_a_cancelled_one_stores_nothing(server):
    async def tell(js, subject):
        task = asyncio.create_task(js.publish_atomic([StreamMessage(subject)] * 500))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await stored(js, subject) == []
        assert (await js.publish(subject)).sequence == 1

    story(server, tell)


def test_ids_inside_a_batch(server):
    """What a server says of repeated ids is passed on; either way nothing is stored halfway."""

    async def tell(js, subject):
        await js.publish_atomic([StreamMessage(subject, b"%d" % n, msg_id=f"{n}") for n in range(3)])
        assert len(await stored(js, subject)) == 3
        with pytest.raises(AtomicBatchError):
            await js.publish_atomic([StreamMessage(subject, b"%d" % n, msg_id=f"{n}") for n in (7, 2, 8)])
        assert len(await stored(js, subject)) == 3
        await js.publish(subject, options=StreamPublishOptions(expect=Expect(last=3)))

    story(server, tell)
