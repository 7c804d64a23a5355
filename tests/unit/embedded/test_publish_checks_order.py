"""The order of the checks of a publish, as seen on a nats-server (jetstream.md 3.4.3)."""

from datetime import timedelta

import pytest

from headrace import embedded
from headrace.core.broker import Expect
from headrace.core.errors import ConfigError, Fault, PublishError
from headrace.streams.config import DiscardPolicy, StreamConfig, StreamMessage, StreamPublishOptions
from headrace.streams.errors import (
    MessageTooLargeError,
    MessageTtlError,
    NoStreamResponseError,
    StreamFullError,
    WrongLastMsgIdError,
    WrongLastSequenceError,
    WrongStreamError,
)
from headrace.testing.virtual import virtual_time


def options(**fields):
    return StreamPublishOptions(retry_attempts=0, **fields)


@virtual_time
async def test_earlier_checks_win():
    config = StreamConfig(name="S", subjects=["s.>"], max_message_size=400, max_messages=1, discard=DiscardPolicy.NEW)
    async with embedded.open(":memory:") as streams:
        await streams.create_stream(config)
        await streams.publish("s.a", b"first", msg_id="one")
        wrong = {"expect_stream": "X", "ttl": 5, "expect": Expect(last=9, last_for_topic=9, last_id="nine")}
        with pytest.raises(MessageTooLargeError) as too_large:
            await streams.publish("s.a", b"x" * 401, msg_id="one", options=options(**wrong))
        assert too_large.value.err_code == 10054
        with pytest.raises(WrongStreamError):
            await streams.publish("s.a", b"", msg_id="one", options=options(**wrong))
        del wrong["expect_stream"]
        with pytest.raises(MessageTtlError) as ttl:
            await streams.publish("s.a", b"", msg_id="one", options=options(**wrong))
        assert ttl.value.err_code == 10166
        del wrong["ttl"]
        for expect, kind in (
            (Expect(last=9, last_for_topic=9, last_id="nine"), WrongLastSequenceError),
            (Expect(last=9, last_id="nine"), WrongLastSequenceError),
        ):
            with pytest.raises(kind):
                await streams.publish("s.a", b"", msg_id="one", options=options(expect=expect))
        again = await streams.publish("s.a", b"", msg_id="one", options=options(expect=Expect(last_id="nine")))
        assert (again.sequence, again.duplicate) == (1, True)
        with pytest.raises(WrongLastMsgIdError):
            await streams.publish("s.a", b"", msg_id="two", options=options(expect=Expect(last_id="nine")))
        with pytest.raises(StreamFullError) as full:
            await streams.publish("s.a", b"", msg_id="two")
        assert (full.value.fault, full.value.description) == (Fault.UNAVAILABLE, "maximum messages exceeded")


@virtual_time
async def test_a_failure_fails_its_own_message_only():
    async with embedded.open(":memory:") as streams:
        await streams.create_stream(StreamConfig(name="S", subjects=["s.>"], max_message_size=10))
        results = await streams.publish_many(
            [
                StreamMessage("s.a", b"1"),
                StreamMessage("s.a", b"x" * 11),
                StreamMessage("t"),
                StreamMessage("s.a", b"2"),
            ]
        )
        assert [getattr(result, "sequence", type(result)) for result in results] == [
            1, MessageTooLargeError, NoStreamResponseError, 2,
        ]  # fmt: skip


@virtual_time
async def test_nothing_of_a_key_is_stored_behind_a_failed_one():
    async with embedded.open(":memory:") as streams:
        await streams.create_stream(StreamConfig(name="S", subjects=["s.>"]))
        many = [StreamMessage("s.a", b"%d" % at, order_key=b"k") for at in range(3)]
        many[1] = StreamMessage("uncovered", b"", order_key=b"k")
        many.append(StreamMessage("s.a", b"other", order_key=b"o"))
        results = await streams.publish_many(many)
        assert isinstance(results[2], PublishError)
        assert results[2].fault is Fault.UNAVAILABLE
        assert [results[0].sequence, results[3].sequence] == [1, 2]


@virtual_time
async def test_too_large_is_refused_before_anything_is_queued():
    async with embedded.open(":memory:", options=embedded.EmbeddedOptions(max_payload=10)) as streams:
        with pytest.raises(MessageTooLargeError) as error:
            await streams.publish("s.a", b"x" * 11)
        assert error.value.limit == 10


@virtual_time
async def test_async_publishes_resolve_each():
    failed = []
    chosen = embedded.EmbeddedOptions(
        on_publish_error=lambda message, error: failed.append(message.subject), max_pending=2
    )
    async with embedded.open(":memory:", options=chosen) as streams:
        await streams.create_stream(StreamConfig(name="S", subjects=["s.>"]))
        futures = [await streams.publish_async("s.a", b"%d" % at) for at in range(5)]
        lost = await streams.publish_async("nowhere", options=options(timeout=timedelta(seconds=9)))
        await streams.publish_async_complete(timeout=5)
        assert [(await future).sequence for future in futures] == [1, 2, 3, 4, 5]
        with pytest.raises(NoStreamResponseError):
            await lost
        assert failed == ["nowhere"]
        assert streams.publish_async_pending == 0


@pytest.mark.parametrize(
    "asked",
    [{"expect_stream": "S\r\nHeadrace-Key: k"}, {"expect": Expect(last_id="one\r\nHeadrace-Key: k")}],
)
@virtual_time
async def test_no_expectation_adds_a_header(asked):
    async with embedded.open(":memory:") as streams:
        await streams.create_stream(StreamConfig(name="S", subjects=["s.>"]))
        await streams.publish("s.a", b"first", msg_id="one")
        with pytest.raises(ConfigError, match="CR, LF"):
            await streams.publish("s.a", options=options(**asked))
        assert (await (await streams.stream("S")).info()).state.messages == 1
