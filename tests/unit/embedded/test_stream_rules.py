"""What streams take, keep and refuse, as it was seen on nats-server 2.15.1."""

import pytest

from headrace import embedded
from headrace.core.errors import ConfigError
from headrace.streams.config import ConsumerConfig, DiscardPolicy, PurgeOptions, RetentionPolicy, StreamConfig
from headrace.streams.errors import ApiError, InvalidSubjectError, StreamFullError
from headrace.testing.virtual import virtual_time
from tests.unit.embedded.reading import fill, pull, reader, seqs, stream_of

NEW = DiscardPolicy.NEW


async def refused(call):
    with pytest.raises(ApiError) as error:
        await call
    return error.value.err_code


async def edges(stream):
    state = (await stream.info()).state
    return state.first_sequence, state.last_sequence, state.messages


@pytest.mark.parametrize(
    "subject", [">", "$JS.>", "$JS.x", "$JS.API.x", "$JSC.x", "$NRG.x", "$SYS.>", "$SYS.x", "*.*", "*.x.y", "*.>"]
)
@virtual_time
async def test_reserved_subjects(subject):
    async with stream_of() as (streams, _):
        assert await refused(streams.create_stream(StreamConfig(name="R", subjects=[subject]))) == 10052
        assert await refused(streams.update_stream(StreamConfig(name="S", subjects=[subject]))) == 10052


@pytest.mark.parametrize("subject", ["$JS.EVENT.>", "$JS.EVENT.x", "$SYS.ACCOUNT.>", "$KV.x.>", "*"])
@virtual_time
async def test_subjects_that_only_look_reserved(subject):
    async with stream_of() as (streams, _):
        stream = await streams.create_stream(StreamConfig(name="R", subjects=[subject]))
        assert stream.cached_info.config.subjects == (subject,)


@virtual_time
async def test_streams_are_listed_by_a_filter_only():
    async with stream_of() as (streams, _):
        assert [name async for name in streams.stream_names(subject="s.*")] == ["S"]
        for listing in (streams.stream_names, streams.list_streams):
            with pytest.raises(InvalidSubjectError):
                await anext(listing(subject="s..a"))


@virtual_time
async def test_texts_have_a_largest_size():
    async with stream_of() as (streams, _):
        for fields in ({"description": "é" * 2_049}, {"metadata": {"a": "b" * 128 * 1024}}):
            assert await refused(streams.create_stream(StreamConfig(name="R", **fields))) == 10052
            assert await refused(streams.update_stream(StreamConfig(name="S", subjects=["s.>"], **fields))) == 10052
        await streams.create_stream(StreamConfig(name="R", description="é" * 2_048))


@virtual_time
async def test_max_consumers_may_change():
    async with stream_of(max_consumers=1) as (streams, stream):
        await stream.create_consumer(ConsumerConfig(durable="a"))
        assert await refused(stream.create_consumer(ConsumerConfig(durable="b"))) == 10026
        await streams.update_stream(StreamConfig(name="S", subjects=["s.>"], max_consumers=2))
        await stream.create_consumer(ConsumerConfig(durable="b"))
        await streams.update_stream(StreamConfig(name="S", subjects=["s.>"], max_consumers=1))
        assert [name async for name in stream.consumer_names()] == ["a", "b"]


@virtual_time
async def test_sealing():
    plain = StreamConfig(name="S", subjects=["s.>"], max_age=3600)
    async with stream_of(3, max_age=3600) as (streams, stream):
        await streams.update_stream(StreamConfig(name="S", subjects=["s.>"], max_age=3600, sealed=True))
        kept = (await stream.info()).config
        assert (kept.max_age, kept.discard, kept.deny_delete, kept.deny_purge) == (None, NEW, True, True)
        assert await refused(streams.publish("s.a")) == 10109
        assert await refused(stream.delete_msg(1)) == 10109
        assert await refused(stream.purge()) == 10109
        for config in (plain, StreamConfig(name="S", subjects=["s.>"], sealed=True)):
            assert await refused(streams.update_stream(config)) == 10052
        assert await refused(streams.create_stream(StreamConfig(name="S", sealed=True))) == 10052
        assert await refused(streams.create_stream(StreamConfig(name="T", sealed=True))) == 10052
        _, session = await reader(stream)
        assert seqs(await pull(session)) == [1, 2, 3]


@virtual_time
async def test_lowered_limits_push_out_nothing_where_new_ones_are_discarded():
    async with stream_of(4) as (streams, stream):
        await streams.update_stream(StreamConfig(name="S", subjects=["s.>"], discard=NEW, max_messages=2, max_bytes=40))
        assert await edges(stream) == (1, 4, 4)
        with pytest.raises(StreamFullError):
            await streams.publish("s.a")
        await streams.update_stream(
            StreamConfig(name="S", subjects=["s.>"], discard=NEW, max_messages=2, max_messages_per_subject=3)
        )
        assert await edges(stream) == (2, 4, 3)
        await streams.update_stream(StreamConfig(name="S", subjects=["s.>"], max_messages=2))
        assert await edges(stream) == (3, 4, 2)


@pytest.mark.parametrize(
    ("first", "second", "taken"), [(60, 60, True), (60, 50, True), (30, 34, False), (60, 67, False)]
)
@virtual_time
async def test_full_stream_takes_what_is_no_larger_than_what_it_replaces(first, second, taken):
    async with stream_of(discard=NEW, max_bytes=100, max_messages_per_subject=1) as (streams, stream):
        await streams.publish("s.a", b"x" * first)
        if taken:
            await streams.publish("s.a", b"x" * second)
            assert await edges(stream) == (2, 2, 1)
        else:
            with pytest.raises(StreamFullError):
                await streams.publish("s.a", b"x" * second)
            assert await edges(stream) == (1, 1, 1)
        with pytest.raises(StreamFullError):
            await streams.publish("s.b", b"x" * 60)


@pytest.mark.parametrize("subject", [None, ">"])
@virtual_time
async def test_purge_beyond_the_end_moves_the_end(subject):
    async with stream_of(3) as (streams, stream):
        _, session = await reader(stream)
        assert await stream.purge(PurgeOptions(sequence=20, subject=subject)) == 3
        assert await edges(stream) == (20, 19, 0)
        assert (await stream.info(deleted_details=True)).state.deleted == ()
        assert (await streams.publish("s.a")).sequence == 20
        assert seqs(await pull(session)) == [20]
        assert await stream.purge(PurgeOptions(sequence=21)) == 1
        assert await stream.purge(PurgeOptions(sequence=5)) == 0
        assert await edges(stream) == (21, 20, 0)
        with pytest.raises(ConfigError, match="sequence"):
            await stream.purge(PurgeOptions(sequence=1 << 63))


@virtual_time
async def test_purge_of_a_subject_does_not_move_the_end():
    async with stream_of(3) as (streams, stream):
        assert await stream.purge(PurgeOptions(sequence=20, subject="s.*")) == 3
        assert await edges(stream) == (4, 3, 0)
        await fill(streams, 1)
        assert await edges(stream) == (4, 4, 1)


@virtual_time
async def test_purge_of_a_stream_that_was_never_used():
    async with embedded.open(":memory:") as streams:
        stream = await streams.create_stream(StreamConfig(name="S", first_sequence=10))
        assert await stream.purge(PurgeOptions(sequence=10)) == 0
        assert await edges(stream) == (10, 9, 0)
        assert await stream.purge(PurgeOptions(sequence=11)) == 0
        assert await edges(stream) == (11, 10, 0)


@virtual_time
async def test_new_limits_apply_to_the_whole_before_they_apply_to_each_subject():
    async with stream_of(3) as (streams, stream):
        await fill(streams, 4, "s.b")
        limits = {"max_messages": 6, "max_messages_per_subject": 2}
        await streams.update_stream(StreamConfig(name="S", subjects=["s.>"], **limits))
        assert [each.sequence for each in await stream.read()] == [2, 3, 6, 7]
        await streams.update_stream(
            StreamConfig(name="S", subjects=["s.>"], max_messages=3, max_messages_per_subject=2)
        )
        assert [each.sequence for each in await stream.read()] == [3, 6, 7]
        await fill(streams, 1, "s.b")
        assert [each.sequence for each in await stream.read()] == [3, 7, 8]


@virtual_time
async def test_what_nobody_wants_is_refused_by_no_limit():
    config = {"retention": RetentionPolicy.INTEREST, "discard": NEW, "max_bytes": 50, "max_messages": 1}
    async with stream_of(**config) as (streams, stream):
        await reader(stream, filter_subject="s.a")
        await fill(streams, 1)
        assert (await streams.publish("s.b", b"x" * 100)).sequence == 2
        with pytest.raises(StreamFullError):
            await streams.publish("s.a")
        assert await edges(stream) == (1, 2, 1)


@virtual_time
async def test_what_takes_the_place_of_another_is_taken_above_a_lowered_limit():
    async with stream_of(2) as (streams, stream):
        await fill(streams, 2, "s.b")
        limits = {"discard": NEW, "max_messages": 1, "max_messages_per_subject": 2}
        await streams.update_stream(StreamConfig(name="S", subjects=["s.>"], **limits))
        await fill(streams, 1, "s.b")
        assert [each.sequence for each in await stream.read()] == [1, 2, 4, 5]
        with pytest.raises(StreamFullError):
            await streams.publish("s.c")
