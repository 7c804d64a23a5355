"""Expectations see everything before them, in their own batch too."""

import asyncio

import pytest

from headrace import embedded
from headrace.core.broker import Expect
from headrace.streams.config import PurgeOptions, StreamConfig, StreamPublishOptions
from headrace.streams.errors import WrongLastSequenceError
from headrace.testing.virtual import virtual_time


@virtual_time
async def test_only_one_of_many_at_once_wins():
    async with embedded.open(":memory:") as streams:
        await streams.create_stream(StreamConfig(name="S", subjects=["s.*"]))
        options = StreamPublishOptions(expect=Expect(last_for_topic=0))
        results = await asyncio.gather(
            *(streams.publish("s.a", b"%d" % at, options=options) for at in range(10)), return_exceptions=True
        )
        assert results[0].sequence == 1
        assert all(isinstance(result, WrongLastSequenceError) for result in results[1:])


@virtual_time
async def test_last_and_last_for_topic():
    async with embedded.open(":memory:") as streams:
        stream = await streams.create_stream(StreamConfig(name="S", subjects=["s.*"]))

        async def publish(subject, **fields):
            expect_subject = fields.pop("expect_subject", None)
            options = StreamPublishOptions(expect=Expect(**fields), expect_subject=expect_subject)
            return (await streams.publish(subject, options=options)).sequence

        assert await publish("s.a", last=0) == 1
        assert await publish("s.b", last_for_topic=0) == 2
        assert await publish("s.a", last_for_topic=1) == 3
        assert await publish("s.b", last_for_topic=3, expect_subject="s.a") == 4
        with pytest.raises(WrongLastSequenceError) as error:
            await publish("s.b", last=3)
        assert error.value.description == "wrong last sequence: 4"
        await stream.purge(PurgeOptions(subject="s.a"))
        assert await publish("s.a", last_for_topic=0) == 5
        assert await publish("s.a", last=5) == 6


@virtual_time
async def test_last_id():
    async with embedded.open(":memory:") as streams:
        await streams.create_stream(StreamConfig(name="S", subjects=["s.*"]))
        await streams.publish("s.a", msg_id="one")
        ack = await streams.publish("s.b", options=StreamPublishOptions(expect=Expect(last_id="one")))
        assert ack.sequence == 2
