"""Rollup: a message that replaces older ones, in its own commit (3.5.12; seen on a nats-server)."""

from dataclasses import replace

import pytest

from headrace.core.broker import Expect
from headrace.core.errors import Fault
from headrace.streams.config import (
    DiscardPolicy,
    PurgeOptions,
    RetentionPolicy,
    Rollup,
    StreamConfig,
    StreamPublishOptions,
)
from headrace.streams.errors import (
    MessageTtlError,
    RollupError,
    StreamConfigError,
    StreamFullError,
    WrongLastMsgIdError,
    WrongLastSequenceError,
    WrongStreamError,
)
from headrace.testing.virtual import virtual_time
from tests.unit.embedded.reading import fill, pull, reader, seqs, state, stream_of

SUBJECT, ALL = Rollup.SUBJECT, Rollup.ALL


async def rolled(streams, subject, rollup, msg_id=None, **options):
    given = StreamPublishOptions(rollup=rollup, retry_attempts=0, **options)
    ack = await streams.publish(subject, b"r", msg_id=msg_id, options=given)
    return ack.sequence, ack.duplicate


async def left(stream):
    """Sequences and subjects of what is there, and whether the counters agree."""
    found = await stream.read()
    info = (await stream.info(subject_filter=">")).state
    subjects = {}
    for each in found:
        subjects[each.subject] = subjects.get(each.subject, 0) + 1
    assert (info.messages, info.subjects) == (len(found), subjects)
    assert info.first_sequence == (found[0].sequence if found else info.last_sequence + 1)
    size = sum(30 + 3 + len(each.data) + (len(each.headers.to_block()) + 16 if each.headers else 0) for each in found)
    assert info.bytes == size
    return [(each.sequence, each.subject) for each in found]


@virtual_time
async def test_older_ones_of_the_subject_or_all_go():
    async with stream_of(allow_rollup=True) as (streams, stream):
        for _ in range(3):
            await fill(streams, 1, "s.a")
            await fill(streams, 1, "s.b")
        assert await rolled(streams, "s.a", SUBJECT) == (7, False)
        assert await left(stream) == [(2, "s.b"), (4, "s.b"), (6, "s.b"), (7, "s.a")]
        assert await rolled(streams, "s.c", SUBJECT) == (8, False)
        assert await rolled(streams, "s.b", SUBJECT) == (9, False)
        assert await left(stream) == [(7, "s.a"), (8, "s.c"), (9, "s.b")]
        assert await rolled(streams, "s.d", ALL) == (10, False)
        assert await left(stream) == [(10, "s.d")]
        (only,) = await stream.read()
        assert only.headers.get("Nats-Rollup") == "all"
        await fill(streams, 2, "s.d")
        assert await left(stream) == [(10, "s.d"), (11, "s.d"), (12, "s.d")]


@virtual_time
async def test_first_message_and_a_single_subject():
    async with stream_of(allow_rollup=True) as (streams, stream):
        assert await rolled(streams, "s.a", SUBJECT) == (1, False)
        await fill(streams, 3)
        assert await rolled(streams, "s.a", SUBJECT) == (5, False)
        assert await left(stream) == [(5, "s.a")]
        assert await rolled(streams, "s.a", ALL) == (6, False)
        assert await left(stream) == [(6, "s.a")]


@virtual_time
async def test_what_is_published_around_it_keeps_its_place():
    async with stream_of(allow_rollup=True) as (streams, stream):
        options = StreamPublishOptions(rollup=SUBJECT)
        futures = [await streams.publish_async("s.a", msg_id="one"), await streams.publish_async("s.b")]
        futures.append(await streams.publish_async("s.a", options=options))
        futures += [await streams.publish_async("s.a", msg_id="two"), await streams.publish_async("s.b")]
        assert [(await future).sequence for future in futures] == [1, 2, 3, 4, 5]
        assert await left(stream) == [(2, "s.b"), (3, "s.a"), (4, "s.a"), (5, "s.b")]
        assert (await streams.publish("s.a", msg_id="one")).duplicate
        assert (await streams.verify()).ok


@virtual_time
async def test_not_allowed_comes_after_the_last_id_and_before_the_limits():
    config = {"max_messages": 1, "discard": DiscardPolicy.NEW}
    async with stream_of(1, **config) as (streams, stream):
        await stream.purge()
        await streams.publish("s.a", b"", msg_id="one")
        for further, kind in (
            ({"expect_stream": "X"}, WrongStreamError),
            ({"ttl": 5}, MessageTtlError),
            ({"expect": Expect(last=9)}, WrongLastSequenceError),
            ({"expect": Expect(last_for_topic=9)}, WrongLastSequenceError),
            ({"expect": Expect(last_id="nine")}, WrongLastMsgIdError),
            ({}, RollupError),
        ):
            with pytest.raises(kind) as error:
                await rolled(streams, "s.a", SUBJECT, **further)
        assert (error.value.code, error.value.err_code, error.value.fault) == (500, 10111, Fault.REJECTED)
        assert await rolled(streams, "s.a", SUBJECT, msg_id="one") == (2, True)
        with pytest.raises(RollupError):
            await rolled(streams, "s.a", SUBJECT, msg_id="two")
        await stream.purge()
        assert not (await streams.publish("s.a", msg_id="two")).duplicate, "a refused one has left no id"


@virtual_time
async def test_expectations_and_ids_see_what_was_there():
    async with stream_of(allow_rollup=True) as (streams, stream):
        await streams.publish("s.a", msg_id="one")
        await fill(streams, 1, "s.a")
        await fill(streams, 1, "s.b")
        with pytest.raises(WrongLastSequenceError):
            await rolled(streams, "s.a", SUBJECT, expect=Expect(last_for_topic=9))
        assert len(await left(stream)) == 3, "what was refused replaces nothing"
        assert await rolled(streams, "s.a", SUBJECT, expect=Expect(last_for_topic=2, last=3)) == (4, False)
        assert await rolled(streams, "s.a", ALL, msg_id="one") == (1, True)
        assert await left(stream) == [(3, "s.b"), (4, "s.a")], "a duplicate replaces nothing"


@virtual_time
@pytest.mark.parametrize(
    ("limits", "subject", "stored"),
    [
        ({"max_messages": 2}, "s.a", False),
        ({"max_bytes": 80}, "s.a", False),
        ({"max_messages_per_subject": 2}, "s.a", True),
        ({"max_messages_per_subject": 2, "discard_new_per_subject": True}, "s.a", True),
        ({"max_messages_per_subject": 2, "max_messages": 2}, "s.a", True),
        ({"max_messages_per_subject": 2, "max_messages": 2}, "s.b", False),
    ],
)
@pytest.mark.parametrize("rollup", Rollup)
async def test_discard_new_looks_at_what_is_there_before(limits, subject, stored, rollup):
    async with stream_of(2, allow_rollup=True, discard=DiscardPolicy.NEW, **limits) as (streams, stream):
        if stored:
            assert await rolled(streams, subject, rollup) == (3, False)
            assert await left(stream) == [(3, subject)]
        else:
            with pytest.raises(StreamFullError):
                await rolled(streams, subject, rollup)
            assert await left(stream) == [(1, "s.a"), (2, "s.a")]


@virtual_time
async def test_limits_come_first_and_then_the_rollup():
    async with stream_of(allow_rollup=True, max_messages=2) as (streams, stream):
        await fill(streams, 1, "s.b")
        await fill(streams, 1, "s.a")
        assert await rolled(streams, "s.a", SUBJECT) == (3, False)
        assert await left(stream) == [(3, "s.a")]
    async with stream_of(2, allow_rollup=True, max_bytes=120) as (streams, stream):
        await streams.publish("s.a", bytes(300), options=StreamPublishOptions(rollup=ALL))
        assert await left(stream) == []


@virtual_time
async def test_interest_and_workqueue():
    async with stream_of(allow_rollup=True, retention=RetentionPolicy.INTEREST) as (streams, stream):
        await reader(stream, filter_subject="s.b")
        await fill(streams, 1, "s.b")
        assert await rolled(streams, "s.a", SUBJECT) == (2, False)
        assert await left(stream) == [(1, "s.b")]
        assert await rolled(streams, "s.a", ALL) == (3, False)
        assert await left(stream) == [], "nobody wants it, and it replaces all the same"
        await streams.update_stream(replace((await stream.info()).config, allow_rollup=False))
        with pytest.raises(RollupError):
            await rolled(streams, "s.a", ALL)
    async with stream_of(2, allow_rollup=True, retention=RetentionPolicy.WORKQUEUE) as (streams, stream):
        assert await rolled(streams, "s.a", SUBJECT) == (3, False)
        assert await left(stream) == [(3, "s.a")]


@virtual_time
async def test_consumers_forget_what_was_replaced():
    async with stream_of(4, allow_rollup=True) as (streams, stream):
        await fill(streams, 1, "s.b")
        consumer, session = await reader(stream, ack_wait=1)
        assert seqs(await pull(session, 2)) == [1, 2]
        await rolled(streams, "s.a", SUBJECT)
        assert (await state(consumer))[1:] == ((2, 2), 0, 0, 2)
        assert seqs(await pull(session, 9)) == [5, 6]
        assert seqs(await pull(session, 9, 1.5)) == [5, 6]


@virtual_time
async def test_with_a_time_of_its_own():
    async with stream_of(2, allow_rollup=True, allow_message_ttl=True) as (streams, stream):
        assert await rolled(streams, "s.a", SUBJECT, ttl=1) == (3, False)
        assert [each for each, _ in await left(stream)] == [3]


@virtual_time
async def test_configs():
    async with stream_of(allow_rollup=True) as (streams, stream):
        for call in (streams.create_stream, streams.update_stream):
            with pytest.raises(StreamConfigError, match="purge permission"):
                await call(StreamConfig(name="S", subjects=["s.>"], allow_rollup=True, deny_purge=True))
        await streams.update_stream(StreamConfig(name="S", subjects=["s.>"], allow_rollup=True, sealed=True))
        config = (await stream.info()).config
        assert (config.sealed, config.deny_purge, config.allow_rollup) == (True, True, False)


@virtual_time
async def test_many_are_replaced_by_one():
    async with stream_of(allow_rollup=True) as (streams, stream):
        for place in range(300):
            await streams.publish(f"s.{'ab'[place % 2]}", b"")
        assert await rolled(streams, "s.a", SUBJECT) == (301, False)
        assert len(await left(stream)) == 151
        assert await stream.purge(PurgeOptions(subject="s.b")) == 150
        assert (await streams.verify()).ok
