"""Getting several messages at once, as it was seen on nats-server 2.15.1."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from headrace.core.errors import ConfigError
from headrace.streams.config import GetBatch, StreamMessage
from headrace.streams.errors import MessageDeleteError, MessageNotFoundError
from headrace.testing.virtual import virtual_time
from tests.unit.embedded.reading import stream_of

FUTURE = datetime(2099, 1, 1, tzinfo=UTC)


async def ten(streams, stream):
    """a b c a b c a b c a, of 100 bytes; the fourth is gone."""
    await streams.publish_many([StreamMessage(f"s.{name}", b"x" * 100) for name in "abcabcabca"])
    await stream.delete_msg(4)


async def seqs(messages):
    return [message.sequence async for message in messages]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"batch": 3}, [1, 2, 3]),
        ({"batch": 3, "start_sequence": 4}, [5, 6, 7]),
        ({"batch": 30, "start_sequence": 8}, [8, 9, 10]),
        ({"batch": 3, "subject": "s.a"}, [1, 7, 10]),
        ({"batch": 3, "subject": "s.a", "start_sequence": 5}, [7, 10]),
        ({"batch": 30, "max_bytes": 206}, [1, 2]),
        ({"batch": 30, "max_bytes": 207}, [1, 2, 3]),
        ({"batch": 30, "max_bytes": 1}, [1]),
        ({"batch": 3, "subject": "s.c", "start_time": datetime(1999, 1, 1, tzinfo=UTC)}, [3, 6, 9]),
    ],
)
@virtual_time
async def test_get_batch(options, found):
    async with stream_of() as (streams, stream):
        await ten(streams, stream)
        assert await seqs(stream.get_batch(GetBatch(**options))) == found


@virtual_time
async def test_get_batch_from_a_time():
    async with stream_of() as (streams, stream):
        await ten(streams, stream)
        await asyncio.sleep(10)
        later = stream.cached_info.timestamp + timedelta(seconds=5)
        await streams.publish_many([StreamMessage("s.a", b"") for _ in range(3)])
        assert await seqs(stream.get_batch(GetBatch(batch=2, start_time=later))) == [11, 12]


@pytest.mark.parametrize(
    "options", [{"start_sequence": 11}, {"start_sequence": 1 << 63}, {"subject": "s.zz"}, {"start_time": FUTURE}]
)
@virtual_time
async def test_get_batch_of_nothing(options):
    async with stream_of() as (streams, stream):
        await ten(streams, stream)
        with pytest.raises(MessageNotFoundError):
            await seqs(stream.get_batch(GetBatch(batch=3, **options)))


@virtual_time
async def test_get_batch_of_many_pages():
    async with stream_of() as (streams, stream):
        await streams.publish_many([StreamMessage("s.a", b"") for _ in range(1_000)])
        assert await seqs(stream.get_batch(GetBatch(batch=700, start_sequence=2))) == list(range(2, 702))
        assert await seqs(stream.get_batch(GetBatch(batch=5_000))) == list(range(1, 1_001))
        assert await seqs(stream.get_batch(GetBatch(batch=512, start_sequence=489))) == list(range(489, 1_001))


@pytest.mark.parametrize(
    ("subjects", "options", "found"),
    [
        (["s.a", "s.b"], {}, [8, 10]),
        (["s.*"], {}, [8, 9, 10]),
        (["s.>"], {"up_to_sequence": 6}, [1, 5, 6]),
        (["s.*", "s.a"], {"batch": 2}, [8, 9]),
        (["s.*"], {"up_to_sequence": 2}, [1, 2]),
        ([">"], {"up_to_sequence": 1 << 63}, [8, 9, 10]),
        (["s.a"], {"up_to_sequence": 4}, [1]),
    ],
)
@virtual_time
async def test_get_last_for(subjects, options, found):
    async with stream_of() as (streams, stream):
        await ten(streams, stream)
        assert await seqs(stream.get_last_for(subjects, **options)) == found


@virtual_time
async def test_get_last_for_one_subject_and_for_many():
    async with stream_of() as (streams, stream):
        await streams.publish_many([StreamMessage("s.a", b"") for _ in range(5)])
        assert await seqs(stream.get_last_for(["s.a", "s.b"])) == [5]
        assert await seqs(stream.get_last_for([">"], up_to_sequence=3)) == [3]
        await streams.publish_many([StreamMessage(f"s.n{number}", b"") for number in range(600)])
        assert await seqs(stream.get_last_for(["s.>"])) == list(range(5, 606))


@virtual_time
async def test_get_last_for_leaves_out_what_has_expired():
    async with stream_of(max_age=10.0) as (streams, stream):
        await streams.publish("s.a")
        await asyncio.sleep(6)
        await streams.publish("s.b")
        await asyncio.sleep(4.01)
        assert await seqs(stream.get_last_for(["s.*"])) == [2]


@virtual_time
async def test_get_last_for_nothing():
    async with stream_of() as (streams, stream):
        with pytest.raises(MessageNotFoundError):
            await seqs(stream.get_last_for(["s.zz"]))
        await ten(streams, stream)
        with pytest.raises(MessageNotFoundError):
            await seqs(stream.get_last_for(["s.zz"]))


@virtual_time
async def test_options_are_checked_at_the_call():
    for options in ({"batch": 0}, {"batch": None}, {"batch": 1, "max_bytes": 0}, {"batch": 1, "start_sequence": 0},
                    {"batch": 1, "subject": "a..b"}, {"batch": 1, "start_time": datetime(2020, 1, 1)},
                    {"batch": 1, "start_sequence": 1, "start_time": FUTURE}):  # fmt: skip
        with pytest.raises(ConfigError):
            GetBatch(**options)
    async with stream_of() as (_, stream):
        for subjects, more in (
            ([], {}),
            ("s.a", {}),
            (["a..b"], {}),
            (["a"], {"batch": 0}),
            (["a"], {"up_to_sequence": 0}),
        ):
            with pytest.raises(ConfigError):
                stream.get_last_for(subjects, **more)


@virtual_time
async def test_sequences_that_no_stream_has():
    async with stream_of(1) as (_, stream):
        for sequence in (1 << 60, 1 << 63, 1 << 70):
            with pytest.raises(MessageNotFoundError):
                await stream.get_msg(sequence)
            with pytest.raises(MessageNotFoundError):
                await stream.get_msg(sequence, subject="s.a")
            with pytest.raises(MessageDeleteError):
                await stream.delete_msg(sequence)
            assert await stream.read(start=sequence) == []
