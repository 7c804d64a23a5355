"""Purge and delete: what goes, and what is refused."""

import pytest

from headrace import embedded
from headrace.core.errors import ConfigError
from headrace.streams.config import PurgeOptions, StreamConfig, StreamMessage
from headrace.streams.errors import MessageDeleteError, PurgeError, StreamNotFoundError
from headrace.testing.virtual import virtual_time
from tests.unit.embedded.reading import fill, pull, reader, stream_of


async def filled(streams, **fields):
    stream = await streams.create_stream(StreamConfig(name="S", subjects=["s.*"], **fields))
    await streams.publish_many([StreamMessage(f"s.{name}", name.encode()) for name in "abcabcabc"])
    return stream


async def sequences(stream):
    return [message.sequence for message in await stream.read()]


@virtual_time
async def test_purge():
    for options, count, left in (
        (PurgeOptions(), 9, []),
        (PurgeOptions(subject="s.a"), 3, [2, 3, 5, 6, 8, 9]),
        (PurgeOptions(sequence=4), 3, [4, 5, 6, 7, 8, 9]),
        (PurgeOptions(keep=2), 7, [8, 9]),
        (PurgeOptions(subject="s.b", keep=1), 2, [1, 3, 4, 6, 7, 8, 9]),
        (PurgeOptions(subject="s.*", sequence=3), 2, [3, 4, 5, 6, 7, 8, 9]),
        (PurgeOptions(keep=20), 0, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
    ):
        async with embedded.open(":memory:") as streams:
            stream = await filled(streams)
            assert await stream.purge(options) == count
            assert await sequences(stream) == left
            state = (await stream.info()).state
            assert (state.messages, state.last_sequence) == (len(left), 9)
            assert state.first_sequence == (left[0] if left else 10)
            assert (await streams.publish("s.a")).sequence == 10
    with pytest.raises(ConfigError):
        PurgeOptions(sequence=1, keep=1)


@virtual_time
async def test_delete():
    async with embedded.open(":memory:") as streams:
        stream = await filled(streams)
        await stream.delete_msg(5)
        state = (await stream.info(deleted_details=True)).state
        assert (state.deleted, state.num_deleted) == ((5,), 1)
        for sequence, code in ((5, 10043), (99, 10057), (0, 10057)):
            with pytest.raises(MessageDeleteError) as error:
                await stream.delete_msg(sequence)
            assert error.value.err_code == code
        await stream.secure_delete_msg(6)
        assert await sequences(stream) == [1, 2, 3, 4, 7, 8, 9]
        assert (await stream.get_last_msg_for_subject("s.c")).sequence == 9


@virtual_time
async def test_denied():
    async with embedded.open(":memory:") as streams:
        stream = await filled(streams, deny_delete=True, deny_purge=True)
        with pytest.raises(MessageDeleteError) as error:
            await stream.delete_msg(1)
        assert error.value.err_code == 10057
        with pytest.raises(PurgeError):
            await stream.purge()


@virtual_time
async def test_delete_stream():
    async with embedded.open(":memory:") as streams:
        await filled(streams)
        await streams.delete_stream("S")
        with pytest.raises(StreamNotFoundError):
            await streams.stream("S")
        stream = await streams.create_stream(StreamConfig(name="S", subjects=["s.*"], first_sequence=100))
        assert (await streams.publish("s.a")).sequence == 100
        assert (await stream.info()).state.messages == 1


@virtual_time
async def test_num_pending_leaves_out_what_was_deleted_since_the_delivery():
    async with stream_of(1) as (streams, stream):
        await fill(streams, 1, "s.b")
        await fill(streams, 2)
        _, session = await reader(stream, filter_subject="s.a")
        (message,) = await pull(session, 1)
        assert message.metadata.num_pending == 2
        await stream.delete_msg(3)
        assert message.metadata.num_pending == 1
        await stream.purge()
        await fill(streams, 1)
        assert message.metadata.num_pending == 0, "what came since does not count either"
