"""Checks of the stream model, storing side: publishing, limits, deduplication, reading and deleting."""

from __future__ import annotations

import asyncio

from headrace.core.errors import PublishError
from headrace.core.headers import Headers
from headrace.streams.api import PublishFuture, Stream, StreamManager
from headrace.streams.config import (
    ConsumerConfig,
    DiscardPolicy,
    Expect,
    PurgeOptions,
    RetentionPolicy,
    StreamConfig,
    StreamMessage,
    StreamPublishOptions,
)
from headrace.streams.errors import (
    MessageNotFoundError,
    StreamNameInUseError,
    StreamNotFoundError,
    SubjectOverlapError,
    WrongLastSequenceError,
)
from headrace.streams.info import PubAck
from headrace.testing.conformance.check import TTL, OpenStreams, StreamCheck
from headrace.testing.conformance.stream_tools import assert_code, fetch, new_stream, sequences
from headrace.testing.conformance.tools import PATIENCE, failure_of

__all__ = ["CHECKS"]

_MORE_THAN_A_PAGE = 260
"""A server lists 256 consumers a page."""


@StreamCheck.of()
async def acked_is_stored(open_streams: OpenStreams) -> None:
    """When a publish has returned, its message is there, byte for byte."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        headers = Headers([("A", "1"), ("a", "2"), ("B", "")])
        ack = await streams.publish(f"{stream.name}.x", bytes(range(256)), headers=headers)
        stored = await stream.get_msg(ack.sequence)
        assert stored.data == bytes(range(256)), "the body is another one"
        assert list(stored.headers.items()) == list(headers.items()), f"the headers are {stored.headers}"
        assert (await stream.info()).state.messages == 1
        many = await streams.publish_many([StreamMessage(f"{stream.name}.y", b"%d" % n) for n in range(20)])
        for number, result in enumerate(many):
            assert not isinstance(result, PublishError), f"failed: {result!r}"
            data = (await stream.get_msg(result.sequence)).data
            assert data == b"%d" % number, f"item {number} was answered with the sequence of {data!r}"


@StreamCheck.of()
async def sequence_never_reused(open_streams: OpenStreams) -> None:
    """Sequences rise by one and never come back, not even after everything was deleted."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        subject = f"{stream.name}.x"
        first = [(await streams.publish(subject)).sequence for _ in range(3)]
        assert first == [1, 2, 3], f"sequences were {first}"
        await stream.delete_msg(3)
        assert (await streams.publish(subject)).sequence == 4, "the sequence of a deleted message came again"
        await stream.purge()
        state = (await stream.info()).state
        assert (state.messages, state.first_sequence, state.last_sequence) == (0, 5, 4), f"purged, it is {state}"
        assert (await streams.publish(subject)).sequence == 5, "a sequence came again after a purge"


@StreamCheck.of()
async def expectations_hold(open_streams: OpenStreams) -> None:
    """``last``, ``last_for_topic`` and ``last_id`` are checked before anything is stored."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        one, two = f"{stream.name}.one", f"{stream.name}.two"
        await streams.publish(one, msg_id="a")
        for subject, expect in (
            (one, Expect(last=0)),
            (one, Expect(last_for_topic=0)),
            (two, Expect(last_for_topic=1)),
        ):
            options = StreamPublishOptions(expect=expect)
            await failure_of(lambda s=subject, o=options: streams.publish(s, options=o), WrongLastSequenceError)  # type: ignore[misc]
        await failure_of(
            lambda: streams.publish(one, options=StreamPublishOptions(expect=Expect(last_id="b"))), PublishError
        )
        await streams.publish(two, options=StreamPublishOptions(expect=Expect(last=1, last_for_topic=0, last_id="a")))
        assert (await stream.info()).state.last_sequence == 2


@StreamCheck.of()
async def dedup_outlives_ack(open_streams: OpenStreams) -> None:
    """An id is remembered for the window, also when its message was acknowledged away; not longer."""
    async with open_streams() as streams:
        stream = await new_stream(streams, retention=RetentionPolicy.WORKQUEUE, duplicate_window=2.0)
        subject = f"{stream.name}.x"
        await streams.publish(subject, msg_id="a")
        consumer = await stream.create_consumer(ConsumerConfig(durable="w"))
        for msg in await fetch(consumer, 1):
            await msg.double_ack()
        assert (await stream.info()).state.messages == 0, "a work queue keeps what was acknowledged"
        again = await streams.publish(subject, msg_id="a")
        assert (again.duplicate, again.sequence) == (True, 1), f"inside the window it is {again}"
        await asyncio.sleep(2.2)
        later = await streams.publish(subject, msg_id="a")
        assert (later.duplicate, later.sequence) == (False, 2), f"after the window it is {later}"


@StreamCheck.of()
async def discard_old_keeps_limit(open_streams: OpenStreams) -> None:
    """At a limit the oldest go, per subject first."""
    async with open_streams() as streams:
        stream = await new_stream(streams, max_messages=4, max_messages_per_subject=2)
        for subject in "abcaaa":
            await streams.publish(f"{stream.name}.{subject}")
            assert (await stream.info()).state.messages <= 4, "over the limit"
        assert sequences(await stream.read()) == [2, 3, 5, 6], f"left are {sequences(await stream.read())}"


@StreamCheck.of()
async def discard_new_refuses(open_streams: OpenStreams) -> None:
    """With discard NEW a full stream refuses, and says so; nothing is stored."""
    async with open_streams() as streams:
        stream = await new_stream(streams, max_messages=2, discard=DiscardPolicy.NEW)
        subject = f"{stream.name}.x"
        for _ in range(2):
            await streams.publish(subject)
        await assert_code(lambda: streams.publish(subject), 10077)
        assert (await stream.info()).state.last_sequence == 2


@StreamCheck.of()
async def max_age_removes(open_streams: OpenStreams) -> None:
    """What is too old is gone from every read, and never before."""
    async with open_streams() as streams:
        stream = await new_stream(streams, max_age=1.0)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await streams.publish(f"{stream.name}.x", b"1")
        left = [1]
        for _ in range(round(PATIENCE / 0.1)):  # a server looks once in a while
            left = sequences(await stream.read())
            if not left:
                break
            await asyncio.sleep(0.1)
        lasted = loop.time() - began
        assert not left, f"after {lasted:.1f} s of 1 s there are {left}"
        assert lasted >= 0.99, f"gone after {lasted:.3f} s of 1 s"
        await streams.publish(f"{stream.name}.x", b"2")
        assert sequences(await stream.read()) == [2], "gone at once"
        assert (await stream.info()).state.messages == 1


@StreamCheck.of()
async def purge_counts(open_streams: OpenStreams) -> None:
    """Purge by subject, sequence and keep: how many went, and that those went."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        for number in range(10):
            await streams.publish(f"{stream.name}.{'ab'[number % 2]}")
        assert await stream.purge(PurgeOptions(subject=f"{stream.name}.a", keep=2)) == 3
        assert sequences(await stream.read()) == [2, 4, 6, 7, 8, 9, 10]
        assert await stream.purge(PurgeOptions(sequence=7)) == 3
        assert sequences(await stream.read()) == [7, 8, 9, 10]
        assert await stream.purge() == 4


@StreamCheck.of()
async def delete_leaves_gap(open_streams: OpenStreams) -> None:
    """A deleted message is gone for good, and shown as a gap; a second delete names the reason."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        for _ in range(3):
            await streams.publish(f"{stream.name}.x")
        await stream.delete_msg(2)
        await failure_of(lambda: stream.get_msg(2), MessageNotFoundError)
        info = await stream.info(deleted_details=True)
        assert (info.state.deleted, info.state.num_deleted) == ((2,), 1), f"the gaps are {info.state.deleted}"
        await assert_code(lambda: stream.delete_msg(2), 10043)
        await assert_code(lambda: stream.delete_msg(9), 10057)


@StreamCheck.of()
async def reads_find_everything(open_streams: OpenStreams) -> None:
    """`read`, `get_msg` next for a subject and the last for a subject, with wildcards."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        name = stream.name
        for number in range(30):
            await streams.publish(f"{name}.{number % 3}", b"%d" % number)
        assert sequences(await stream.read(start=5, limit=4)) == [5, 6, 7, 8]
        assert sequences(await stream.read(offset=27)) == [28, 29, 30]
        assert sequences(await stream.read(subject=f"{name}.1", start=20)) == [20, 23, 26, 29]
        assert (await stream.get_msg(2, subject=f"{name}.0")).sequence == 4
        assert (await stream.get_last_msg_for_subject(f"{name}.1")).sequence == 29
        assert (await stream.get_last_msg_for_subject(f"{name}.*")).sequence == 30
        await failure_of(lambda: stream.get_last_msg_for_subject(f"{name}.none"), MessageNotFoundError)
        counted = (await stream.info(subject_filter=f"{name}.>")).state.subjects
        assert dict(counted) == {f"{name}.{n}": 10 for n in range(3)}, f"per subject there are {dict(counted)}"


@StreamCheck.of()
async def names_and_subjects_exclusive(open_streams: OpenStreams) -> None:
    """An equal stream may be made twice, a different one and overlapping subjects are refused."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        config = StreamConfig(name=stream.name, subjects=[f"{stream.name}.>"])
        await streams.create_stream(config)
        other = StreamConfig(name=stream.name, subjects=[f"{stream.name}.>"], max_messages=3)
        await failure_of(lambda: streams.create_stream(other), StreamNameInUseError)
        overlap = StreamConfig(name=f"{stream.name}2", subjects=[f"{stream.name}.x"])
        await failure_of(lambda: streams.create_stream(overlap), SubjectOverlapError)
        assert await streams.stream_name_by_subject(f"{stream.name}.x") == stream.name
        await _delete(streams, stream)


async def _delete(streams: StreamManager, stream: Stream) -> None:
    await streams.delete_stream(stream.name)
    await failure_of(lambda: streams.stream(stream.name), StreamNotFoundError)
    await failure_of(stream.info, StreamNotFoundError)


@StreamCheck.of()
async def async_publishes_resolve(open_streams: OpenStreams) -> None:
    """Every future of `publish_async` resolves, in order, and the count of pending ones goes to zero."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        futures = [await streams.publish_async(f"{stream.name}.x", b"%d" % n) for n in range(50)]
        await streams.publish_async_complete(timeout=10.0)
        assert streams.publish_async_pending == 0, f"{streams.publish_async_pending} are pending"
        got = [(await future).sequence for future in futures]
        assert got == list(range(1, 51)), f"sequences were {got}"


@StreamCheck.of()
async def lists_are_complete(open_streams: OpenStreams) -> None:
    """Lists and names give everything once, also beyond one page of a server, streams by subject too."""
    async with open_streams() as streams:
        stream, other = await new_stream(streams), await new_stream(streams)
        names = [f"c{number:03}" for number in range(_MORE_THAN_A_PAGE)]
        for name in names:
            await stream.create_consumer(ConsumerConfig(durable=name))
        found = sorted([name async for name in stream.consumer_names()])
        assert found == names, f"{len(names)} consumers, {len(found)} names"
        listed = sorted([info.name async for info in stream.list_consumers()])
        assert listed == names, f"{len(names)} consumers, {len(listed)} listed"
        everything = [name async for name in streams.stream_names()]
        assert {stream.name, other.name} <= set(everything), f"streams are {everything}"
        covering = [info.config.name async for info in streams.list_streams(subject=f"{other.name}.x")]
        assert covering == [other.name], f"the stream of {other.name}.x is {covering}"
        missing = StreamConfig(name=f"{stream.name}-no", subjects=["no"])
        await failure_of(lambda: streams.update_stream(missing), StreamNotFoundError)


@StreamCheck.of()
async def secure_delete_removes(open_streams: OpenStreams) -> None:
    """A message that is deleted for good is gone, and the others are not."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        for number in range(3):
            await streams.publish(f"{stream.name}.x", b"%d" % number)
        await stream.secure_delete_msg(2)
        await failure_of(lambda: stream.get_msg(2), MessageNotFoundError)
        assert sequences(await stream.read()) == [1, 3], f"left are {sequences(await stream.read())}"


@StreamCheck.of(TTL)
async def ttl_ends_one_message(open_streams: OpenStreams) -> None:
    """A message with a time to live of its own goes then, and not before; its neighbours stay."""
    async with open_streams() as streams:
        stream = await new_stream(streams, allow_message_ttl=True)
        subject = f"{stream.name}.x"
        await streams.publish(subject, options=StreamPublishOptions(ttl=1.0))
        await streams.publish(subject)
        await asyncio.sleep(0.5)
        assert sequences(await stream.read()) == [1, 2], "gone too early"
        await asyncio.sleep(2.5)
        assert sequences(await stream.read()) == [2], f"after 3 s there are {sequences(await stream.read())}"


@StreamCheck.of()
async def futures_resolve_on_close(open_streams: OpenStreams) -> None:
    """Closing leaves no future of `publish_async` open: stored, or a ``PublishError``."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        futures = [await streams.publish_async(f"{stream.name}.x") for _ in range(20)]
        await streams.aclose()
        async with asyncio.timeout(PATIENCE):
            results = await asyncio.gather(*map(_answer, futures), return_exceptions=True)
        odd = [each for each in results if not isinstance(each, PubAck | PublishError)]
        assert not odd, f"resolved with {odd}"


async def _answer(future: PublishFuture) -> PubAck:
    return await future


CHECKS: tuple[StreamCheck, ...] = (
    acked_is_stored,
    sequence_never_reused,
    expectations_hold,
    dedup_outlives_ack,
    discard_old_keeps_limit,
    discard_new_refuses,
    max_age_removes,
    purge_counts,
    delete_leaves_gap,
    reads_find_everything,
    names_and_subjects_exclusive,
    async_publishes_resolve,
    lists_are_complete,
    secure_delete_removes,
    ttl_ends_one_message,
    futures_resolve_on_close,
)
