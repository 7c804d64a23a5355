"""Topics, where no broker can make one: names, questions asked once, and errors that reach the user in time."""

import asyncio
import threading
import time
from contextlib import asynccontextmanager

import pytest

from headrace.core.broker import TopicOptions
from headrace.core.errors import ClosedError, ConfigError, UnsupportedError
from headrace.kafka.codes import Code
from headrace.kafka.errors import AuthorizationError, KafkaError, UnknownTopicError
from headrace.kafka.options import KafkaOptions
from headrace.kafka.sending.lane import Lane
from headrace.kafka.sending.meeting import Meeting
from headrace.kafka.topics import Topics, check_name
from headrace.testing.kafka.mock import Api, KafkaMock


@pytest.fixture
def mock():
    with KafkaMock(1) as cluster:
        cluster.create_topic("orders", 3)
        yield cluster


@asynccontextmanager
async def opened(mock):
    topics = Topics([mock.bootstrap], KafkaOptions())
    try:
        await topics.open()
        yield topics
    finally:
        await topics.aclose()


@pytest.mark.parametrize(
    "name", ["", ".", "..", "...", "a..b", ".a", "a.", "a b", "a/b", "ä", "a" * 250, None, 1, b"a"]
)
def test_names_that_kafka_does_not_take(name):
    with pytest.raises(ConfigError, match="topic"):
        check_name(name)


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "a" * 249])
def test_names_that_kafka_takes(name):
    assert check_name(name) == name


def test_known_is_asked_for_once(mock):
    async def main():
        async with opened(mock) as topics:
            mock.track()
            await asyncio.gather(*(topics.ensure(["orders"]) for _ in range(10)))
            asked = len(mock.requests(Api.METADATA))
            assert 1 <= asked <= 3
            assert topics.known == {"orders"}
            meeting = Meeting(topics, Lane(1), None, create=False)
            assert await meeting.met("orders") is None
            assert len(mock.requests(Api.METADATA)) == asked
            topics.forget("orders")
            assert await meeting.met("orders") is None
            assert len(mock.requests(Api.METADATA)) > asked
            assert await topics.partitions("orders") == 3

    asyncio.run(main())


def test_known_and_gone(mock):
    """Whoever subscribes asks for what is known, too: it may have been deleted meanwhile."""

    async def main():
        async with opened(mock) as topics:
            await topics.ensure(["orders"], create=False)
            mock.delete_topic("orders")
            with pytest.raises(UnknownTopicError, match="create is False"):
                await topics.ensure(["orders"], create=False)
            assert not topics.known  # senders ask for it as well

    asyncio.run(main())


def test_a_topic_that_may_not_be_seen(mock):
    async def main():
        async with opened(mock) as topics:
            mock.set_topic_error("orders", Code.TOPIC_AUTHORIZATION_FAILED)
            for create in (False, True):
                with pytest.raises(AuthorizationError, match="'orders'"):
                    await topics.ensure(["orders"], create=create)

    asyncio.run(main())


def test_missing_without_create(mock):
    async def main():
        async with opened(mock) as topics:
            with pytest.raises(UnknownTopicError, match="'nowhere'"):
                await topics.ensure(["orders", "nowhere"], create=False)
            with pytest.raises(UnknownTopicError):
                await topics.partitions("nowhere")
            with pytest.raises(ConfigError):
                await topics.ensure(["no where"])
            with pytest.raises(UnsupportedError, match="dedup_window"):
                await topics.declare("orders", TopicOptions(dedup_window=1))
            assert topics.known == {"orders"}

    asyncio.run(main())


def test_cancelled_and_closed_questions(mock):
    async def main():
        async with opened(mock) as topics:
            mock.slow(0.2)
            first = asyncio.ensure_future(topics.ensure(["orders"], create=False))
            second = asyncio.ensure_future(topics.ensure(["orders"], create=False))
            await asyncio.sleep(0.01)
            first.cancel()
            await second  # asked once, and not taken back with the first
            assert first.cancelled()
            late = asyncio.ensure_future(topics.partitions("orders"))
            await asyncio.sleep(0.01)
            await topics.aclose()
            with pytest.raises(ClosedError):
                await late
            with pytest.raises(ClosedError):
                await topics.ensure(["another"])
            with pytest.raises(ClosedError):
                await topics.open()
            await topics.aclose()

    asyncio.run(main())
    assert not [thread for thread in threading.enumerate() if thread is not threading.main_thread()]


def test_not_open(mock):
    async def main():
        topics = Topics([mock.bootstrap], KafkaOptions())
        with pytest.raises(ClosedError, match="not open"):
            await topics.ensure(["orders"])
        await topics.aclose()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("address", "code"), [("127.0.0.1:1", Code.LOCAL_TRANSPORT), ("nosuch.invalid:9092", Code.LOCAL_RESOLVE)]
)
def test_wrong_address_reaches_user(address, code):
    async def main():
        topics = Topics([address], KafkaOptions())
        began = time.monotonic()
        with pytest.raises(KafkaError) as raised:
            await topics.open()
        assert time.monotonic() - began < 11
        assert raised.value.code == code
        assert address.partition(":")[0] in str(raised.value)
        with pytest.raises(ClosedError):
            await topics.ensure(["orders"])
        await topics.aclose()

    asyncio.run(main())


def test_open_cancelled_leaves_nothing():
    async def main():
        topics = Topics(["127.0.0.1:1"], KafkaOptions())
        opening = asyncio.ensure_future(topics.open())
        await asyncio.sleep(0.05)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await topics.aclose()

    asyncio.run(main())


def test_unknown_driver_setting():
    async def main():
        topics = Topics(["127.0.0.1:1"], KafkaOptions(driver_options={"no.such.thing": 1}))
        with pytest.raises(ConfigError, match=r"no\.such\.thing"):
            await topics.open()
        await topics.aclose()

    asyncio.run(main())
