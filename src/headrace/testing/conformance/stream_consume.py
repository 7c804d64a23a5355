"""Checks of the stream model, consuming side: positions, acknowledgements, redelivery, retention by interest."""

from __future__ import annotations

import asyncio
from typing import Any

from headrace.streams.config import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    OrderedConsumerConfig,
    PurgeOptions,
    RetentionPolicy,
)
from headrace.streams.consumer import Consumer
from headrace.streams.errors import (
    ConsumerDeletedError,
    ConsumerDoesNotExistError,
    ConsumerExistsError,
    ConsumerNotFoundError,
)
from headrace.testing.conformance.check import OpenStreams, StreamCheck
from headrace.testing.conformance.stream_tools import (
    ACK_WAIT,
    QUIET,
    assert_code,
    fetch,
    fill,
    new_stream,
    stream_sequences,
)
from headrace.testing.conformance.tools import PATIENCE, failure_of

__all__ = ["CHECKS"]


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _floor(consumer: Consumer) -> tuple[int, int]:
    floor = (await consumer.info()).ack_floor
    return floor.consumer, floor.stream


@StreamCheck.of()
async def ack_floor_waits_for_gap(open_streams: OpenStreams) -> None:
    """The floor moves over settled messages only; one that is open holds it back."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        await fill(streams, stream, 4)
        consumer = await stream.create_consumer(ConsumerConfig(durable="c"))
        first, second, third, fourth = await fetch(consumer, 4)
        for msg, floor in ((second, (0, 0)), (first, (2, 2)), (fourth, (2, 2)), (third, (4, 4))):
            await msg.double_ack()
            assert await _floor(consumer) == floor, f"the floor is {await _floor(consumer)}, not {floor}"
        info = await consumer.info()
        assert (info.num_ack_pending, info.num_pending) == (0, 0), f"left: {info}"


@StreamCheck.of()
async def ack_wait_redelivers(open_streams: OpenStreams) -> None:
    """What is not settled within the ack wait comes again, counted; what was settled does not."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        await fill(streams, stream, 2)
        consumer = await stream.create_consumer(ConsumerConfig(durable="c", ack_wait=ACK_WAIT))
        start, (acked, _) = _now(), await fetch(consumer, 2)
        await acked.double_ack()
        again = await fetch(consumer, 2, ACK_WAIT * 1.7)
        assert stream_sequences(again) == [2], f"again came {stream_sequences(again)}"
        assert _now() - start >= ACK_WAIT, f"after {_now() - start:.3f} s of {ACK_WAIT} s"
        assert again[0].metadata.num_delivered == 2, f"delivered {again[0].metadata.num_delivered} times"
        assert again[0].metadata.sequence.consumer == 3, "a redelivery has a consumer sequence of its own"


@StreamCheck.of()
async def in_progress_restarts_wait(open_streams: OpenStreams) -> None:
    """`in_progress` starts the ack wait again."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        await fill(streams, stream, 1)
        consumer = await stream.create_consumer(ConsumerConfig(durable="c", ack_wait=ACK_WAIT))
        (msg,) = await fetch(consumer, 1)
        for _ in range(3):
            assert not await fetch(consumer, 1, ACK_WAIT * 0.7), "came again, and was in progress"
            await msg.in_progress()
        assert await fetch(consumer, 1, ACK_WAIT * 1.5), "never came again"


@StreamCheck.of()
async def nak_delay_exact(open_streams: OpenStreams) -> None:
    """A nak brings it back at once and ahead of new ones, one with a delay not before that."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        await fill(streams, stream, 3)
        consumer = await stream.create_consumer(ConsumerConfig(durable="c"))
        (msg,) = await fetch(consumer, 1)
        await msg.nak()
        await asyncio.sleep(0.05)  # a server reads naks and pulls one beside the other
        (msg,) = await fetch(consumer, 1)
        assert stream_sequences([msg]) == [1], f"after the nak came {stream_sequences([msg])}"
        start = _now()
        await msg.nak(1.0)
        assert stream_sequences(await fetch(consumer, 3, QUIET)) == [2, 3], "the delayed one came with the new ones"
        again = await fetch(consumer, 1)
        assert stream_sequences(again) == [1], f"after the delay came {stream_sequences(again)}"
        assert _now() - start >= 1.0, f"after {_now() - start:.3f} s of 1 s"


@StreamCheck.of()
async def term_is_final(open_streams: OpenStreams) -> None:
    """What was terminated never comes again, and the floor moves over it."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        await fill(streams, stream, 1)
        consumer = await stream.create_consumer(ConsumerConfig(durable="c", ack_wait=ACK_WAIT))
        (msg,) = await fetch(consumer, 1)
        await msg.term("bad")
        assert not await fetch(consumer, 1, ACK_WAIT * 1.5), "came again after term"
        assert await _floor(consumer) == (1, 1)


@StreamCheck.of()
async def max_deliver_ends(open_streams: OpenStreams) -> None:
    """Delivered as often as allowed, and never again; it stays in the stream."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        await fill(streams, stream, 1)
        consumer = await stream.create_consumer(ConsumerConfig(durable="c", max_deliver=2))
        for run in (1, 2):
            (msg,) = await fetch(consumer, 1)
            assert msg.metadata.num_delivered == run
            await msg.nak()
        assert not await fetch(consumer, 1, QUIET), "delivered a third time"
        info = await consumer.info()
        assert info.num_ack_pending == 0, f"exhausted, and yet pending: {info.num_ack_pending}"
        assert (await stream.info()).state.messages == 1


@StreamCheck.of()
async def backoff_replaces_wait(open_streams: OpenStreams) -> None:
    """The n-th delivery waits for the n-th entry of the backoff, the last one repeats."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        await fill(streams, stream, 1)
        consumer = await stream.create_consumer(ConsumerConfig(durable="c", backoff=[0.5, 2.0]))
        waited: list[float] = []
        await fetch(consumer, 1)
        for _ in range(3):
            start = _now()
            assert await fetch(consumer, 1), "never came again"
            waited.append(_now() - start)
        for wait, least in zip(waited, (0.5, 2.0, 2.0), strict=True):
            assert least - 0.05 <= wait <= least + 1.2, f"waits were {waited}, not 0.5, 2, 2"


@StreamCheck.of()
async def ack_all_covers_below(open_streams: OpenStreams) -> None:
    """With ack all one ack settles everything up to its message; with ack none nothing is pending."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        await fill(streams, stream, 4)
        everything = await stream.create_consumer(ConsumerConfig(durable="all", ack_policy=AckPolicy.ALL))
        got = await fetch(everything, 4)
        await got[2].double_ack()
        info = await everything.info()
        assert (info.ack_floor.stream, info.num_ack_pending) == (3, 1), f"after the ack of the third: {info}"
        nothing = await stream.create_consumer(ConsumerConfig(durable="none", ack_policy=AckPolicy.NONE))
        await fetch(nothing, 2)
        info = await nothing.info()
        assert (info.ack_floor.stream, info.num_ack_pending, info.num_pending) == (2, 0, 2), f"without acks: {info}"


@StreamCheck.of()
async def deliver_policies_begin(open_streams: OpenStreams) -> None:
    """A consumer begins where its policy says, and hands out only what its filter matches."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        for subject in "abab":
            await fill(streams, stream, 1, subject)
        a = f"{stream.name}.a"
        policies: dict[str, tuple[dict[str, Any], list[int]]] = {
            "all": ({}, [1, 2, 3, 4]),
            "last": ({"deliver_policy": DeliverPolicy.LAST}, [4]),
            "new": ({"deliver_policy": DeliverPolicy.NEW}, []),
            "at": ({"deliver_policy": DeliverPolicy.BY_START_SEQUENCE, "start_sequence": 2}, [2, 3, 4]),
            "per": ({"deliver_policy": DeliverPolicy.LAST_PER_SUBJECT, "filter_subject": f"{stream.name}.*"}, [3, 4]),
            "filter": ({"filter_subject": a}, [1, 3]),
        }
        for name, (fields, wanted) in policies.items():
            consumer = await stream.create_consumer(ConsumerConfig(durable=name, **fields))
            assert (await consumer.info()).num_pending == len(wanted), f"{name}: num_pending before"
            got = stream_sequences(await fetch(consumer, 10, QUIET))
            assert got == wanted, f"{name} gave {got}, not {wanted}"


@StreamCheck.of()
async def max_ack_pending_holds(open_streams: OpenStreams) -> None:
    """No more than ``max_ack_pending`` are out at once; an ack makes room."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        await fill(streams, stream, 5)
        consumer = await stream.create_consumer(ConsumerConfig(durable="c", max_ack_pending=2))
        got = await fetch(consumer, 5, QUIET)
        assert len(got) == 2, f"2 may be pending, {len(got)} are"
        await got[0].double_ack()
        assert stream_sequences(await fetch(consumer, 5, QUIET)) == [3]


@StreamCheck.of()
async def parked_pull_wakes(open_streams: OpenStreams) -> None:
    """A pull that waits gets what is published meanwhile, long before it would have looked by itself."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        consumer = await stream.create_consumer(ConsumerConfig(durable="c"))
        pull = asyncio.create_task(fetch(consumer, 1, 5.0))
        await asyncio.sleep(0.05)
        start = _now()
        await fill(streams, stream, 1)
        assert stream_sequences(await pull) == [1], "nothing came"
        assert _now() - start < 1.0, f"came {_now() - start:.3f} s after it was stored"


@StreamCheck.of()
async def deleted_consumer_ends_pull(open_streams: OpenStreams) -> None:
    """Deleting a consumer ends the pulls on it with an error, never with silence."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        consumer = await stream.create_consumer(ConsumerConfig(durable="c"))
        pull = asyncio.create_task(fetch(consumer, 1, 5.0))
        await asyncio.sleep(0.05)
        start = _now()
        await stream.delete_consumer("c")
        (error,) = await asyncio.gather(pull, return_exceptions=True)
        assert isinstance(error, ConsumerDeletedError), f"ended with {error!r}"
        assert _now() - start < 2.0, "ended only when its time was over"
        await failure_of(consumer.info, ConsumerNotFoundError)


@StreamCheck.of()
async def consumer_update_rules(open_streams: OpenStreams) -> None:
    """What may change changes, keeping the position; what may not is refused."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        await fill(streams, stream, 3)
        await failure_of(lambda: stream.update_consumer(ConsumerConfig(durable="c")), ConsumerDoesNotExistError)
        consumer = await stream.create_consumer(ConsumerConfig(durable="c"))
        for msg in await fetch(consumer, 1):
            await msg.double_ack()
        await stream.create_consumer(ConsumerConfig(durable="c"))
        await failure_of(
            lambda: stream.create_consumer(ConsumerConfig(durable="c", max_deliver=9)), ConsumerExistsError
        )
        changed = await stream.update_consumer(ConsumerConfig(durable="c", max_ack_pending=7))
        assert (await changed.info()).config.max_ack_pending == 7
        refused = ConsumerConfig(durable="c", max_ack_pending=7, deliver_policy=DeliverPolicy.NEW)
        await assert_code(lambda: stream.update_consumer(refused), 10012)
        assert stream_sequences(await fetch(changed, 5, QUIET)) == [2, 3], "the position moved"


@StreamCheck.of()
async def retention_follows_acks(open_streams: OpenStreams) -> None:
    """Work queue: gone at the first ack. Interest: gone when all have acknowledged, never stored without interest."""
    async with open_streams() as streams:
        work = await new_stream(streams, retention=RetentionPolicy.WORKQUEUE)
        await fill(streams, work, 2)
        worker = await work.create_consumer(ConsumerConfig(durable="w"))
        (msg,) = await fetch(worker, 1)
        await msg.double_ack()
        assert (await work.info()).state.messages == 1
        interest = await new_stream(streams, retention=RetentionPolicy.INTEREST)
        await fill(streams, interest, 1)
        assert (await interest.info()).state.messages == 0, "kept, and nobody was interested"
        readers = [await interest.create_consumer(ConsumerConfig(durable=name)) for name in "ab"]
        await fill(streams, interest, 1)
        for reader, left in zip(readers, (1, 0), strict=True):
            (msg,) = await fetch(reader, 1)
            await msg.double_ack()
            messages = (await interest.info()).state.messages
            assert messages == left, f"after the ack of {reader.name} there are {messages}"


@StreamCheck.of()
async def removed_leaves_pending(open_streams: OpenStreams) -> None:
    """What is purged leaves the consumer's counts, and the floor moves over it."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        await fill(streams, stream, 6)
        consumer = await stream.create_consumer(ConsumerConfig(durable="c"))
        await fetch(consumer, 3)
        await stream.purge(PurgeOptions(sequence=6))
        info = await consumer.info()
        assert (info.num_ack_pending, info.num_pending) == (0, 1), f"after the purge: {info}"
        assert stream_sequences(await fetch(consumer, 5, QUIET)) == [6]


@StreamCheck.of()
async def ordered_sees_all_once(open_streams: OpenStreams) -> None:
    """An ordered consumer gives everything once, in order, without acknowledgements."""
    async with open_streams() as streams:
        stream = await new_stream(streams)
        await fill(streams, stream, 5)
        ordered = await stream.ordered_consumer(OrderedConsumerConfig())
        got: list[int] = []
        async with asyncio.timeout(PATIENCE), ordered.messages() as messages:
            async for msg in messages:
                got += stream_sequences([msg])
                if len(got) == 5:
                    await fill(streams, stream, 2)
                if len(got) == 7:
                    break
        assert got == [1, 2, 3, 4, 5, 6, 7], f"came as {got}"


CHECKS: tuple[StreamCheck, ...] = (
    ack_floor_waits_for_gap,
    ack_wait_redelivers,
    in_progress_restarts_wait,
    nak_delay_exact,
    term_is_final,
    max_deliver_ends,
    backoff_replaces_wait,
    ack_all_covers_below,
    deliver_policies_begin,
    max_ack_pending_holds,
    parked_pull_wakes,
    deleted_consumer_ends_pull,
    consumer_update_rules,
    retention_follows_acks,
    removed_leaves_pending,
    ordered_sees_all_once,
)
