"""Checks of the stream model, one message and one consumer: settling, filters, what is left out, what expires."""

from __future__ import annotations

import asyncio

from headrace.core.errors import AlreadySettledError, ConfigError
from headrace.streams.config import ConsumerConfig
from headrace.streams.errors import ConsumerNotFoundError, StreamError
from headrace.testing.conformance.check import OpenStreams, StreamCheck
from headrace.testing.conformance.stream_tools import ACK_WAIT, QUIET, fetch, fill, new_stream, stream_sequences
from headrace.testing.conformance.tools import failure_of

__all__ = ["CHECKS"]

_THRESHOLD = 0.5


@StreamCheck.of()
async def settle_only_once(open_streams: OpenStreams) -> None:
    """A message is settled once; a second time, or `in_progress` after it, raises."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        await fill(streams, stream, 1)
        consumer = await stream.create_consumer(ConsumerConfig(durable="c"))
        (msg,) = await fetch(consumer, 1)
        await msg.in_progress()
        await msg.ack()
        for again in (msg.ack, msg.double_ack, msg.nak, msg.term, msg.in_progress):
            await failure_of(again, AlreadySettledError)
        assert not await fetch(consumer, 1, QUIET), "acknowledged, and came again"


@StreamCheck.of()
async def stale_ack_counts(open_streams: OpenStreams) -> None:
    """An ack of an earlier delivery settles the message while it is pending."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        await fill(streams, stream, 1)
        consumer = await stream.create_consumer(ConsumerConfig(durable="c", ack_wait=ACK_WAIT))
        (stale,) = await fetch(consumer, 1)
        (again,) = await fetch(consumer, 1, ACK_WAIT * 3)
        assert again.metadata.num_delivered == 2, f"delivered {again.metadata.num_delivered} times"
        await stale.double_ack()
        info = await consumer.info()
        assert (info.num_ack_pending, info.num_redelivered) == (0, 0), f"after the late ack: {info}"
        assert not await fetch(consumer, 1, ACK_WAIT * 1.5), "came again after a late ack"


@StreamCheck.of()
async def double_ack_confirms(open_streams: OpenStreams) -> None:
    """When `double_ack` has returned, the engine knows it; nothing has to be flushed or waited for."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        await fill(streams, stream, 2)
        consumer = await stream.create_consumer(ConsumerConfig(durable="c", max_ack_pending=1, ack_wait=ACK_WAIT))
        (msg,) = await fetch(consumer, 1)
        await msg.double_ack()
        got = stream_sequences(await fetch(consumer, 1, ACK_WAIT / 4))
        assert got == [2], f"confirmed, so the second one was due, but {got} came"


@StreamCheck.of()
async def many_filters_hold(open_streams: OpenStreams) -> None:
    """Several filters let through what one of them matches, with wildcards; overlapping ones are refused."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        for subject in ("a", "b.x", "c", "b.y", "b.x.z", "a"):
            await fill(streams, stream, 1, subject)
        filters = [f"{stream.name}.a", f"{stream.name}.b.*"]
        consumer = await stream.create_consumer(ConsumerConfig(durable="c", filter_subjects=filters))
        before = (await consumer.info()).num_pending
        assert before == 4, f"4 match, num_pending is {before}"
        got = stream_sequences(await fetch(consumer, 9, QUIET))
        assert got == [1, 2, 4, 6], f"through {filters} came {got}"

        async def overlapping() -> object:
            both = [f"{stream.name}.a", f"{stream.name}.*"]
            return await stream.create_consumer(ConsumerConfig(durable="d", filter_subjects=both))

        await failure_of(overlapping, ConfigError, StreamError)


@StreamCheck.of()
async def headers_only_leaves_bodies_out(open_streams: OpenStreams) -> None:
    """With ``headers_only`` the body is empty and a header says how long it is."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        await streams.publish(f"{stream.name}.x", b"12345", headers={"A": "b"})
        consumer = await stream.create_consumer(ConsumerConfig(durable="c", headers_only=True))
        (msg,) = await fetch(consumer, 1)
        found = (msg.data, msg.headers.get("A"), msg.headers.get("Nats-Msg-Size"))
        assert found == (b"", "b", "5"), f"body, header and size are {found}"


@StreamCheck.of()
async def idle_consumer_goes(open_streams: OpenStreams) -> None:
    """A consumer that nobody used for its inactive threshold goes, and not before; one in use stays."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        used = await stream.create_consumer(ConsumerConfig(name="used", inactive_threshold=_THRESHOLD))
        await stream.create_consumer(ConsumerConfig(name="idle", inactive_threshold=_THRESHOLD))
        await asyncio.sleep(_THRESHOLD * 0.6)
        await stream.consumer("idle")
        await fetch(used, 1, 2 * _THRESHOLD + 1.2)
        await failure_of(lambda: stream.consumer("idle"), ConsumerNotFoundError)
        await stream.consumer("used")


CHECKS: tuple[StreamCheck, ...] = (
    settle_only_once,
    stale_ack_counts,
    double_ack_confirms,
    many_filters_hold,
    headers_only_leaves_bodies_out,
    idle_consumer_goes,
)
