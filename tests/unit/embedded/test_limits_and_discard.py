"""Limits: what goes, and what is refused."""

import pytest

from headrace import embedded
from headrace.streams.config import DiscardPolicy, StreamConfig, StreamMessage
from headrace.streams.errors import StreamFullError
from headrace.testing.virtual import virtual_time


async def sequences(stream):
    return [message.sequence for message in await stream.read()]


@virtual_time
async def test_discard_old_by_count_bytes_and_subject():
    async with embedded.open(":memory:") as streams:
        stream = await streams.create_stream(StreamConfig(name="C", subjects=["c"], max_messages=3))
        for _ in range(5):
            await streams.publish("c", b"x")
        assert await sequences(stream) == [3, 4, 5]
        stream = await streams.create_stream(StreamConfig(name="B", subjects=["b"], max_bytes=3 * (30 + 1 + 10)))
        await streams.publish_many([StreamMessage("b", b"0123456789")] * 5)
        assert await sequences(stream) == [3, 4, 5]
        stream = await streams.create_stream(StreamConfig(name="P", subjects=["p.*"], max_messages_per_subject=1))
        await streams.publish_many([StreamMessage(f"p.{name}") for name in "abaabc"])
        assert await sequences(stream) == [4, 5, 6]
        state = (await stream.info(subject_filter=">", deleted_details=True)).state
        assert dict(state.subjects) == {"p.a": 1, "p.b": 1, "p.c": 1}
        assert (state.first_sequence, state.num_deleted, state.deleted) == (4, 0, ())


@virtual_time
async def test_alone_bigger_than_max_bytes_uses_its_sequence():
    async with embedded.open(":memory:") as streams:
        stream = await streams.create_stream(StreamConfig(name="B", subjects=["b"], max_bytes=50))
        assert (await streams.publish("b", b"x" * 100)).sequence == 1
        state = (await stream.info()).state
        assert (state.messages, state.bytes, state.first_sequence, state.last_sequence) == (0, 0, 2, 1)


@virtual_time
async def test_discard_new():
    new = {"discard": DiscardPolicy.NEW}
    async with embedded.open(":memory:") as streams:
        for name, limit, text in (
            ("M", {"max_messages": 1}, "maximum messages exceeded"),
            ("B", {"max_bytes": 40}, "maximum bytes exceeded"),
            (
                "S",
                {"max_messages_per_subject": 1, "discard_new_per_subject": True},
                "maximum messages per subject exceeded",
            ),
        ):
            await streams.create_stream(StreamConfig(name=name, subjects=[name], **new, **limit))
            await streams.publish(name, b"x")
            with pytest.raises(StreamFullError) as error:
                await streams.publish(name, b"x")
            assert (error.value.err_code, error.value.description) == (10077, text)


@virtual_time
async def test_older_ones_of_the_subject_make_room():
    async with embedded.open(":memory:") as streams:
        config = StreamConfig(
            name="S", subjects=["s.*"], max_messages=2, max_messages_per_subject=1, discard=DiscardPolicy.NEW
        )
        stream = await streams.create_stream(config)
        for subject in ("s.a", "s.b", "s.a"):
            await streams.publish(subject)
        assert await sequences(stream) == [2, 3]


@virtual_time
async def test_new_limits_apply_at_once():
    async with embedded.open(":memory:") as streams:
        stream = await streams.create_stream(StreamConfig(name="S", subjects=["s"]))
        await streams.publish_many([StreamMessage("s")] * 10)
        await streams.update_stream(StreamConfig(name="S", subjects=["s"], max_messages=4))
        assert await sequences(stream) == [7, 8, 9, 10]
