"""Messages go when they are due: from every read and count at once, from the file soon."""

import asyncio
from datetime import timedelta

import pytest

from headrace import embedded
from headrace.core.errors import ConfigError
from headrace.streams.config import StreamConfig, StreamPublishOptions
from headrace.streams.errors import MessageNotFoundError, MessageTtlError, StreamConfigError
from headrace.testing.virtual import virtual_time


async def stored(streams):
    return await streams._store.streams.call(lambda db: db.execute("SELECT count(*) FROM msg_1").fetchone()[0])


@virtual_time
async def test_max_age():
    async with embedded.open(":memory:") as streams:
        stream = await streams.create_stream(StreamConfig(name="S", subjects=["s"], max_age=10))
        await streams.publish("s", b"1")
        await asyncio.sleep(5)
        await streams.publish("s", b"2")
        await asyncio.sleep(4.99)
        assert len(await stream.read()) == 2
        await asyncio.sleep(0.02)
        assert [message.data for message in await stream.read()] == [b"2"]
        state = (await stream.info()).state
        assert (state.messages, state.first_sequence, state.bytes, state.num_deleted) == (1, 2, 32, 0)
        with pytest.raises(MessageNotFoundError):
            await stream.get_msg(1)
        await asyncio.sleep(6)
        assert await stored(streams) == 0
        state = (await stream.info()).state
        assert (state.messages, state.first_sequence, state.last_sequence, state.first_time) == (0, 3, 2, None)


@virtual_time
async def test_ttl():
    async with embedded.open(":memory:") as streams:
        config = StreamConfig(name="S", subjects=["s"], max_age=10, allow_message_ttl=True)
        stream = await streams.create_stream(config)
        for ttl in (2, timedelta.max, 100):
            await streams.publish("s", options=StreamPublishOptions(ttl=ttl))
        await streams.publish("s")
        await asyncio.sleep(2.1)
        assert [message.sequence for message in await stream.read()] == [2, 3, 4]
        await asyncio.sleep(10)
        messages = await stream.read()
        assert [message.sequence for message in messages] == [2]
        assert messages[0].headers.get("Nats-TTL") == "never"


@virtual_time
async def test_ttl_is_checked():
    for ttl in (0.5, 1.5, 0):
        with pytest.raises(ConfigError):
            StreamPublishOptions(ttl=ttl)
    async with embedded.open(":memory:") as streams:
        await streams.create_stream(StreamConfig(name="S", subjects=["s"]))
        with pytest.raises(MessageTtlError) as error:
            await streams.publish("s", options=StreamPublishOptions(ttl=1))
        assert error.value.err_code == 10166
        with pytest.raises(StreamConfigError):
            await streams.create_stream(StreamConfig(name="T", max_age=0.05))


@virtual_time
async def test_a_new_age_applies_to_what_is_there():
    async with embedded.open(":memory:") as streams:
        stream = await streams.create_stream(StreamConfig(name="S", subjects=["s"]))
        await streams.publish("s")
        await asyncio.sleep(5)
        await streams.publish("s")
        await streams.update_stream(StreamConfig(name="S", subjects=["s"], max_age=4))
        assert [message.sequence for message in await stream.read()] == [2]
        await streams.update_stream(StreamConfig(name="S", subjects=["s"]))
        await asyncio.sleep(60)
        assert [message.sequence for message in await stream.read()] == [2]


@pytest.mark.parametrize("headers", [{"X-Nats-TTL": "60"}, {"X": "Nats-TTL: 60"}, {"X": "1", "Y-Nats-TTL": "60"}])
@virtual_time
async def test_a_header_that_only_looks_like_a_ttl_follows_the_new_age(headers):
    async with embedded.open(":memory:") as streams:
        stream = await streams.create_stream(StreamConfig(name="S", subjects=["s"], max_age=10))
        await streams.publish("s", headers=headers)
        await streams.update_stream(StreamConfig(name="S", subjects=["s"]))
        await asyncio.sleep(11)
        assert [message.sequence for message in await stream.read()] == [1]


@virtual_time
async def test_a_ttl_behind_other_lines_outlives_the_end_of_the_age():
    async with embedded.open(":memory:") as streams:
        config = StreamConfig(name="S", subjects=["s"], max_age=10, allow_message_ttl=True)
        stream = await streams.create_stream(config)
        await streams.publish("s", msg_id="1", headers={"X": "1"}, options=StreamPublishOptions(ttl=5))
        await streams.update_stream(StreamConfig(name="S", subjects=["s"], allow_message_ttl=True))
        await asyncio.sleep(6)
        assert await stream.read() == []
