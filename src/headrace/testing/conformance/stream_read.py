"""Checks of the stream model, the ways to read: fetch, messages, consume, ordered consumers."""

from __future__ import annotations

import asyncio

from headrace.core.delivery import ACK
from headrace.core.errors import HandlerError
from headrace.streams.config import (
    ConsumerConfig,
    DeliverPolicy,
    OrderedConsumerConfig,
    PullOptions,
)
from headrace.streams.consume import MessagesContext
from headrace.streams.fetch import FetchReason, wire_size
from headrace.streams.msg import Msg
from headrace.streams.session import SessionOptions
from headrace.testing.conformance.check import OpenStreams, StreamCheck
from headrace.testing.conformance.stream_tools import ACK_WAIT, QUIET, fetch, fill, new_stream, stream_sequences
from headrace.testing.conformance.tools import PATIENCE

__all__ = ["CHECKS"]


async def _take(messages: MessagesContext, count: int) -> list[int]:
    """The stream sequences of the next so many."""
    async with asyncio.timeout(PATIENCE):
        return stream_sequences([await messages.next() for _ in range(count)])


@StreamCheck.of()
async def fetch_full_short_empty(open_streams: OpenStreams) -> None:
    """A fetch ends when it is full or its time is over, and says which; fewer or none is no error."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        await fill(streams, stream, 5)
        consumer = await stream.create_consumer(ConsumerConfig(durable="c"))
        loop = asyncio.get_running_loop()
        for batch, wait, wanted, reason in (
            (3, PATIENCE, [1, 2, 3], FetchReason.FILLED),
            (3, QUIET, [4, 5], FetchReason.EXPIRED),
            (3, QUIET, [], FetchReason.EXPIRED),
        ):
            began = loop.time()
            messages = consumer.fetch(batch, max_wait=wait)
            got = stream_sequences(await messages)
            lasted = loop.time() - began
            assert (got, messages.reason) == (wanted, reason), f"fetch gave {got}, {messages.reason}"
            early = reason is FetchReason.EXPIRED and lasted < wait - 0.01
            assert not early, f"a fetch of {wait} s lasted {lasted:.3f} s"


@StreamCheck.of()
async def fetch_bytes_edge(open_streams: OpenStreams) -> None:
    """A fetch by bytes ends before the message that would go over; none at all if the first is too large."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        for _ in range(4):
            await streams.publish(f"{stream.name}.x", bytes(100))
        consumer = await stream.create_consumer(ConsumerConfig(durable="c"))
        (first,) = await fetch(consumer, 1)
        size = wire_size(first)
        two = consumer.fetch_bytes(size * 5 // 2, max_wait=QUIET)
        got = stream_sequences(await two)
        assert got == [2, 3], f"{size * 5 // 2} bytes gave {got}, each of about {size}"
        none = consumer.fetch_bytes(size // 2, max_wait=QUIET)
        assert (await none, none.reason) == ([], FetchReason.MAX_BYTES), f"too small a fetch ended by {none.reason}"
        assert stream_sequences(await fetch(consumer, 1)) == [4], "what did not fit was taken"


@StreamCheck.of()
async def no_wait_ends_at_max_ack_pending(open_streams: OpenStreams) -> None:
    """A fetch without waiting ends, also where no message may be handed out at the moment."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        await fill(streams, stream, 3)
        consumer = await stream.create_consumer(ConsumerConfig(durable="c", max_ack_pending=2))
        async with asyncio.timeout(PATIENCE):
            first = await consumer.fetch_no_wait(5)
            again = await consumer.fetch_no_wait(5)
        assert stream_sequences(first) == [1, 2], f"first came {stream_sequences(first)}"
        assert not again, f"2 may be pending, then came {stream_sequences(again)}"


@StreamCheck.of()
async def stop_after_is_exact(open_streams: OpenStreams) -> None:
    """With ``stop_after`` so many are handed over and no more are taken."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        await fill(streams, stream, 5)
        consumer = await stream.create_consumer(ConsumerConfig(durable="c"))
        async with asyncio.timeout(PATIENCE), consumer.messages(PullOptions(stop_after=3)) as messages:
            got = stream_sequences([msg async for msg in messages])
        assert got == [1, 2, 3], f"stop_after=3 gave {got}"
        left = await fetch(consumer, 5, QUIET)
        runs = [(msg.metadata.sequence.stream, msg.metadata.num_delivered) for msg in left]
        assert runs == [(4, 1), (5, 1)], f"left are (sequence, deliveries) {runs}"


@StreamCheck.of()
async def stop_hands_back_buffer(open_streams: OpenStreams) -> None:
    """What a stopped reader had not handed over comes at once to the next one, in order."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        await fill(streams, stream, 5)
        consumer = await stream.create_consumer(ConsumerConfig(durable="c"))
        async with consumer.messages() as messages:
            assert await _take(messages, 2) == [1, 2]
        got = stream_sequences(await fetch(consumer, 5, QUIET))
        assert got == [3, 4, 5], f"after the stop came {got}"


@StreamCheck.of()
async def drain_hands_out_buffer(open_streams: OpenStreams) -> None:
    """Draining asks for nothing more; what is buffered is still handed over, then the reader ends."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        await fill(streams, stream, 5)
        consumer = await stream.create_consumer(ConsumerConfig(durable="c"))
        async with asyncio.timeout(PATIENCE), consumer.messages() as messages:
            got = await _take(messages, 1)
            await asyncio.sleep(QUIET)
            await messages.drain()
            await fill(streams, stream, 2)
            got += stream_sequences([msg async for msg in messages])
        assert got == [1, 2, 3, 4, 5], f"handed out were {got}"
        assert stream_sequences(await fetch(consumer, 9, QUIET)) == [6, 7], "taken after the drain"


@StreamCheck.of()
async def two_readers_share(open_streams: OpenStreams) -> None:
    """Two readers of one consumer get each message once between them."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        consumer = await stream.create_consumer(ConsumerConfig(durable="c"))
        both = [asyncio.create_task(fetch(consumer, 3, PATIENCE)) for _ in range(2)]
        await asyncio.sleep(0.05)
        await fill(streams, stream, 6)
        got = [stream_sequences(messages) for messages in await asyncio.gather(*both)]
        assert sorted(got[0] + got[1]) == [1, 2, 3, 4, 5, 6], f"they got {got}"


@StreamCheck.of()
async def old_buffer_not_handed_out(open_streams: OpenStreams) -> None:
    """What ran out while it was buffered is not handed out: it comes again under a fresh lease."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        await fill(streams, stream, 4)
        consumer = await stream.create_consumer(ConsumerConfig(durable="c", ack_wait=ACK_WAIT))
        session = consumer.session(SessionOptions(max_messages=4, prefetch=3))
        try:
            (first,) = await session.pull(1, PATIENCE)
            session.settle(first, ACK)
            await asyncio.sleep(ACK_WAIT * 1.5)
            got: list[Msg] = []
            while len(got) < 3:
                more = await session.pull(3 - len(got), PATIENCE)
                assert more, f"only {stream_sequences(got)} came"
                got += more
        finally:
            await session.aclose()
        runs = [(msg.metadata.sequence.stream, msg.metadata.num_delivered) for msg in got]
        assert sorted(runs) == [(2, 2), (3, 2), (4, 2)], f"handed out were (sequence, deliveries) {runs}"


@StreamCheck.of()
async def consume_survives_its_handler(open_streams: OpenStreams) -> None:
    """A handler that raises: its message comes again, the error handler is told, the others go on."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        await fill(streams, stream, 3)
        consumer = await stream.create_consumer(ConsumerConfig(durable="c"))
        handled: list[int] = []
        told: list[Exception] = []
        done = asyncio.Event()

        async def handler(msg: Msg) -> None:
            facts = msg.metadata
            if facts.sequence.stream == 2 and facts.num_delivered == 1:
                raise ValueError("not now")
            await msg.ack()
            handled.append(facts.sequence.stream)
            if len(handled) == 3:
                done.set()

        async with (
            asyncio.timeout(PATIENCE),
            consumer.consume(handler, error_handler=lambda _, error: told.append(error)),
        ):
            await done.wait()
        assert sorted(handled) == [1, 2, 3], f"handled were {handled}"
        assert [type(error) for error in told] == [HandlerError], f"the error handler was told {told}"
        assert (await consumer.info()).num_ack_pending == 0, "handled, and yet pending"


@StreamCheck.of()
async def cancelled_fetch_loses_nothing(open_streams: OpenStreams) -> None:
    """A fetch that is cancelled, wherever it stands, gives back what it had."""
    async with open_streams() as streams:
        stream, count = await new_stream(streams), 30
        consumer = await stream.create_consumer(ConsumerConfig(durable="c"))
        got: list[int] = []
        for number in range(count):
            task = asyncio.create_task(fetch(consumer, 1, PATIENCE))
            publish = asyncio.create_task(fill(streams, stream, 1))
            for _ in range(number % 15):
                await asyncio.sleep(0)
            if number % 2:
                await publish
            task.cancel()
            for outcome in await asyncio.gather(task, return_exceptions=True):
                if not isinstance(outcome, BaseException):
                    got += stream_sequences(outcome)
            await publish
        while len(got) < count and (more := await fetch(consumer, count, QUIET)):
            got += stream_sequences(more)
        assert sorted(got) == list(range(1, count + 1)), f"{count} published, these came: {sorted(got)}"


@StreamCheck.of()
async def ordered_survives_delete(open_streams: OpenStreams) -> None:
    """An ordered reader whose consumer is deleted under it goes on behind the last message it gave."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        await fill(streams, stream, 5)
        async with (await stream.ordered_consumer(OrderedConsumerConfig())).messages(
            PullOptions(max_messages=1)
        ) as messages:
            got = await _take(messages, 2)
            for name in [name async for name in stream.consumer_names()]:
                await stream.delete_consumer(name)
            got += await _take(messages, 3)
            assert got == [1, 2, 3, 4, 5], f"came as {got}"


@StreamCheck.of()
async def ordered_new_begins_at_the_end(open_streams: OpenStreams) -> None:
    """An ordered reader of what is new misses nothing that is published after it began."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        await fill(streams, stream, 3)
        ordered = await stream.ordered_consumer(OrderedConsumerConfig(deliver_policy=DeliverPolicy.NEW))
        async with ordered.messages() as messages:
            taking = asyncio.create_task(_take(messages, 2))
            await asyncio.sleep(QUIET)
            await fill(streams, stream, 2)
            got = await taking
        assert got == [4, 5], f"new were 4 and 5, it got {got}"


@StreamCheck.of()
async def ordered_last_per_subject(open_streams: OpenStreams) -> None:
    """An ordered reader of the last per subject gets the newest of each, then what comes."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        for subject in ("a", "b", "a"):
            await fill(streams, stream, 1, subject)
        config = OrderedConsumerConfig(
            deliver_policy=DeliverPolicy.LAST_PER_SUBJECT, filter_subjects=[f"{stream.name}.*"]
        )
        async with (await stream.ordered_consumer(config)).messages() as messages:
            got = await _take(messages, 2)
            await fill(streams, stream, 1, "b")
            got += await _take(messages, 1)
        assert got == [2, 3, 4], f"came as {got}"


CHECKS: tuple[StreamCheck, ...] = (
    fetch_full_short_empty,
    fetch_bytes_edge,
    no_wait_ends_at_max_ack_pending,
    stop_after_is_exact,
    stop_hands_back_buffer,
    drain_hands_out_buffer,
    two_readers_share,
    old_buffer_not_handed_out,
    consume_survives_its_handler,
    cancelled_fetch_loses_nothing,
    ordered_survives_delete,
    ordered_new_begins_at_the_end,
    ordered_last_per_subject,
)
