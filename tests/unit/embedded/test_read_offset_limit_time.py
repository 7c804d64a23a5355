"""Reading without a consumer."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from headrace import embedded
from headrace.core.errors import ConfigError
from headrace.streams.config import StreamConfig, StreamMessage
from headrace.streams.errors import BadRequestError, MessageNotFoundError
from headrace.testing.virtual import virtual_time


async def filled(streams):
    stream = await streams.create_stream(StreamConfig(name="S", subjects=["s.>"]))
    times = []
    for at in range(10):
        await streams.publish(f"s.{'abc'[at % 3]}", b"%d" % at)
        times.append((await stream.get_msg(at + 1)).time)
        await asyncio.sleep(1)
    return stream, times


async def read(stream, **fields):
    return [message.sequence for message in await stream.read(**fields)]


@virtual_time
async def test_read():
    async with embedded.open(":memory:") as streams:
        stream, times = await filled(streams)
        assert await read(stream) == list(range(1, 11))
        assert await read(stream, start=4, limit=2) == [4, 5]
        assert await read(stream, offset=8) == [9, 10]
        assert await read(stream, subject="s.a") == [1, 4, 7, 10]
        assert await read(stream, subject="s.*", offset=1, limit=2) == [2, 3]
        assert await read(stream, subject="s.b", start=3, offset=1) == [8]
        assert await read(stream, start=11) == []
        assert await read(stream, start=times[4]) == [5, 6, 7, 8, 9, 10]
        assert await read(stream, start=times[4] + timedelta(milliseconds=1), limit=1) == [6]
        assert await read(stream, start=datetime(2100, 1, 1, tzinfo=UTC)) == []
        assert await read(stream, subject="s.d") == []
        for wrong in ({"limit": 0}, {"limit": 10_001}, {"offset": -1}, {"start": datetime(2020, 1, 1)}, {"start": -1}):
            with pytest.raises(ConfigError):
                await stream.read(**wrong)


@virtual_time
async def test_get():
    async with embedded.open(":memory:") as streams:
        stream, _ = await filled(streams)
        assert (await stream.get_msg(3)).data == b"2"
        assert (await stream.get_msg(2, subject="s.a")).sequence == 4
        assert (await stream.get_msg(0, subject="s.c")).sequence == 3
        assert (await stream.get_last_msg_for_subject("s.b")).sequence == 8
        assert (await stream.get_last_msg_for_subject(">")).sequence == 10
        with pytest.raises(BadRequestError):
            await stream.get_msg(0)
        for wanted in (stream.get_msg(99), stream.get_msg(9, subject="s.b"), stream.get_last_msg_for_subject("s.x")):
            with pytest.raises(MessageNotFoundError):
                await wanted


@virtual_time
async def test_headers_come_back():
    async with embedded.open(":memory:") as streams:
        stream = await streams.create_stream(StreamConfig(name="S", subjects=["s.>"]))
        await streams.publish_many([StreamMessage("s.a", b"", {"A": ["1", "2"]}, msg_id="i")])
        message = await stream.get_msg(1)
        assert message.headers.items() == (("Nats-Msg-Id", "i"), ("A", "1"), ("A", "2"))
