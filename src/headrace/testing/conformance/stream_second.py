"""Checks of the stream model, second step: rollup, atomic publish, pause, replay, limits of pulls and of consumers."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from headrace.streams.api import Stream, StreamManager
from headrace.streams.config import (
    ConsumerConfig,
    ConsumerLimits,
    Expect,
    ReplayPolicy,
    Rollup,
    StreamMessage,
    StreamPublishOptions,
)
from headrace.streams.errors import PullRejectedError, WrongLastSequenceError
from headrace.streams.msg import time_of_ns
from headrace.testing.conformance.check import OpenStreams, StreamCheck
from headrace.testing.conformance.stream_tools import (
    QUIET,
    assert_code,
    fetch,
    fill,
    new_stream,
    sequences,
    stream_sequences,
)
from headrace.testing.conformance.tools import failure_of

__all__ = ["CHECKS"]

_GAP = 0.4
_PAUSE = 0.8


@StreamCheck.of()
async def rollup_replaces_older(open_streams: OpenStreams) -> None:
    """A rollup takes the place of what is older on its subject, or in all of the stream; a refused one of nothing."""
    async with open_streams() as streams:
        stream = await new_stream(streams, allow_rollup=True)
        for subject in ("a", "b", "a", "b", "a"):
            await fill(streams, stream, 1, subject)
        wrong = StreamPublishOptions(rollup=Rollup.SUBJECT, expect=Expect(last=2))
        await failure_of(lambda: streams.publish(f"{stream.name}.a", b"r", options=wrong), WrongLastSequenceError)
        await _assert_left(stream, [1, 2, 3, 4, 5])
        await _roll_up(streams, f"{stream.name}.a", Rollup.SUBJECT)
        await _assert_left(stream, [2, 4, 6])
        await _roll_up(streams, f"{stream.name}.c", Rollup.ALL)
        await _assert_left(stream, [7])
        plain = await new_stream(streams)
        await assert_code(lambda: _roll_up(streams, f"{plain.name}.a", Rollup.SUBJECT), 10111)


async def _roll_up(streams: StreamManager, subject: str, rollup: Rollup) -> None:
    await streams.publish(subject, b"r", options=StreamPublishOptions(rollup=rollup))


async def _assert_left(stream: Stream, wanted: list[int]) -> None:
    left = sequences(await stream.read())
    assert left == wanted, f"{wanted} should be left, {left} are"


@StreamCheck.of()
async def atomic_batch_all_or_none(open_streams: OpenStreams) -> None:
    """What is published atomically is stored as a whole, or nothing of it is."""
    async with open_streams() as streams:
        stream = await new_stream(streams, allow_atomic=True)
        subject = f"{stream.name}.x"
        await streams.publish(subject, msg_id="one")
        batch = [StreamMessage(subject, b"%d" % place, msg_id=f"new-{place}") for place in range(3)]
        again = [*batch[:2], StreamMessage(subject, msg_id="one"), batch[2]]
        await assert_code(lambda: streams.publish_atomic(again), 10201)
        await _assert_left(stream, [1])
        ack = await streams.publish_atomic(batch)
        assert (ack.sequence, ack.batch_size, ack.duplicate) == (4, 3, False), f"acknowledged with {ack}"
        assert ack.batch_id, "the acknowledgement does not say which batch"
        bodies = [each.data for each in await stream.read(start=2)]
        assert bodies == [b"0", b"1", b"2"], f"stored are {bodies}"
        plain = await new_stream(streams)
        refused = [StreamMessage(f"{plain.name}.x")] * 2
        await assert_code(lambda: streams.publish_atomic(refused), 10174)


@StreamCheck.of()
async def pause_resume(open_streams: OpenStreams) -> None:
    """A paused consumer hands out nothing until its time has come or it is resumed, to a parked pull neither."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        consumer = await stream.create_consumer(ConsumerConfig(durable="c"))
        parked = asyncio.create_task(fetch(consumer, 1, 30.0))
        await asyncio.sleep(QUIET)
        await consumer.pause(_in(streams, 60.0))
        await fill(streams, stream, 2)
        info = await consumer.info()
        assert info.paused, f"paused, and its info says otherwise: {info}"
        assert info.pause_remaining is not None, "no time is said to remain"
        await asyncio.sleep(QUIET)
        assert not parked.done(), f"{parked.result()} came out of a paused consumer"
        await consumer.resume()
        assert stream_sequences(await parked) == [1], "the parked pull got something else"
        assert not (await consumer.info()).paused, "resumed, and its info says otherwise"
        before = streams.clock.now_ns()
        await consumer.pause(_in(streams, _PAUSE))
        got = stream_sequences(await fetch(consumer, 1, 20.0))
        waited = (streams.clock.now_ns() - before) / 1e9
        assert got == [2], f"after the pause came {got}"
        assert waited >= _PAUSE - 0.01, f"paused for {_PAUSE} s, handed out after {waited:.3f}"


def _in(streams: StreamManager, seconds: float) -> datetime:
    return time_of_ns(streams.clock.now_ns()) + timedelta(seconds=seconds)


@StreamCheck.of()
async def replay_keeps_the_gaps(open_streams: OpenStreams) -> None:
    """Replay original hands stored messages out in the rhythm in which they were stored, never faster."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        for place in range(3):
            await asyncio.sleep(_GAP if place else 0)
            await fill(streams, stream, 1)
        consumer = await stream.create_consumer(ConsumerConfig(durable="c", replay_policy=ReplayPolicy.ORIGINAL))
        begun, came = streams.clock.monotonic(), list[float]()
        async for msg in consumer.fetch(3, max_wait=20.0):
            came.append(streams.clock.monotonic() - begun)
            assert msg.metadata.sequence.stream == len(came), f"{msg.metadata.sequence} came as number {len(came)}"
        assert len(came) == 3, f"{len(came)} of 3 came"
        assert came[1] >= _GAP * 0.95, f"the second was stored {_GAP} s behind the first, and came after {came[1]:.3f}"
        assert came[2] >= 2 * _GAP * 0.95, f"the third came after {came[2]:.3f} s"


@StreamCheck.of()
async def request_limits_hold(open_streams: OpenStreams) -> None:
    """A pull that asks for more than its consumer allows is rejected, and takes nothing."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        await fill(streams, stream, 3)
        consumer = await stream.create_consumer(
            ConsumerConfig(durable="c", max_request_batch=2, max_request_expires=1.0, max_request_max_bytes=5_000)
        )
        await failure_of(lambda: fetch(consumer, 3, 0.5), PullRejectedError)
        await failure_of(lambda: fetch(consumer, 2, 2.0), PullRejectedError)

        async def bytes_of(most: int) -> object:
            return await consumer.fetch_bytes(most, max_wait=0.5)

        await failure_of(lambda: bytes_of(5_001), PullRejectedError)
        got = stream_sequences(await fetch(consumer, 2, 0.9))
        assert got == [1, 2], f"within its limits a pull gets [1, 2], here {got}"


@StreamCheck.of()
async def consumer_limits_hold(open_streams: OpenStreams) -> None:
    """What a stream allows its consumers holds for new ones, and is the default of those that ask for nothing."""
    async with open_streams() as streams:
        limits = ConsumerLimits(inactive_threshold=60.0, max_ack_pending=10)
        stream = await new_stream(streams, consumer_limits=limits)
        many = ConsumerConfig(durable="c", max_ack_pending=11)
        await assert_code(lambda: stream.create_consumer(many), 10121)
        long = ConsumerConfig(durable="c", max_ack_pending=5, inactive_threshold=61.0)
        await assert_code(lambda: stream.create_consumer(long), 10153)
        consumer = await stream.create_consumer(ConsumerConfig(durable="c", max_ack_pending=5))
        given = (await consumer.info()).config.inactive_threshold
        assert given == timedelta(seconds=60), f"the threshold of one that asked for none is {given}"


CHECKS: tuple[StreamCheck, ...] = (
    rollup_replaces_older,
    atomic_batch_all_or_none,
    pause_resume,
    replay_keeps_the_gaps,
    request_limits_hold,
    consumer_limits_hold,
)
