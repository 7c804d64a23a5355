"""A pull claims what it returns, in turn, and ends when it must (3.6.12, 3.6.16)."""

import asyncio

import pytest

from headrace.core.errors import UsageError
from headrace.streams.errors import (
    ConsumerDeletedError,
    MaxBytesExceededError,
    PullRejectedError,
    StreamNotFoundError,
)
from headrace.streams.session import SessionOptions
from headrace.testing.virtual import virtual_time
from tests.unit.embedded.reading import fill, pull, reader, seqs, state, stream_of


@virtual_time
async def test_limit_and_wait():
    async with stream_of(3) as (streams, stream):
        loop = asyncio.get_running_loop()
        consumer, session = await reader(stream)
        assert seqs(await pull(session, 2)) == [1, 2]
        assert (await state(consumer))[0] == (2, 2)
        assert seqs(await pull(session, 2, 30)) == [3]
        begun = loop.time()
        assert await pull(session, 2, 3) == []
        assert loop.time() - begun == pytest.approx(3)
        loop.call_later(4, lambda: asyncio.ensure_future(fill(streams, 1)))
        begun = loop.time()
        assert seqs(await pull(session, 2, 30)) == [4]
        assert loop.time() - begun == pytest.approx(4, abs=0.01)


@virtual_time
async def test_first_come_first_served():
    async with stream_of() as (streams, stream):
        consumer, _ = await reader(stream)
        pulls = []
        for _ in range(3):
            pulls.append(asyncio.create_task(consumer.session(SessionOptions()).pull(1, 60)))
            await asyncio.sleep(1)
        assert (await consumer.info()).num_waiting == 3
        for number in range(3):
            await fill(streams, 1)
            assert seqs(await pulls[number]) == [number + 1]


@virtual_time
async def test_max_bytes():
    async with stream_of() as (streams, stream):
        for _ in range(4):
            await streams.publish("s.a", bytes(100))
        consumer, session = await reader(stream)
        size = 3 + 100 + len(f"$JS.ACK.S.c.1.1.1.{streams.clock.now_ns()}.3")
        assert seqs(await pull(session, 10, max_bytes=2 * size)) == [1, 2]
        assert seqs(await pull(session, 10, max_bytes=2 * size - 1)) == [3]
        with pytest.raises(MaxBytesExceededError):
            await pull(session, 10, max_bytes=100)
        assert (await state(consumer))[0] == (3, 3)
        assert seqs(await pull(session, 10)) == [4]


@virtual_time
async def test_headers_only():
    async with stream_of() as (streams, stream):
        await streams.publish("s.a", b"12345", headers={"A": "b"})
        _, session = await reader(stream, headers_only=True)
        (message,) = await pull(session)
        assert message.data == b""
        assert message.headers.get("A") == "b"
        assert message.headers.get("Nats-Msg-Size") == "5"


@virtual_time
async def test_delete_ends_parked_pulls():
    async with stream_of() as (streams, stream):
        _, session = await reader(stream)
        parked = asyncio.create_task(pull(session, 1, 60))
        await asyncio.sleep(1)
        await stream.delete_consumer("c")
        with pytest.raises(ConsumerDeletedError):
            await parked
        _, session = await reader(stream)
        parked = asyncio.create_task(pull(session, 1, 60))
        await asyncio.sleep(1)
        await streams.delete_stream("S")
        with pytest.raises((StreamNotFoundError, ConsumerDeletedError)):
            await parked


@virtual_time
async def test_close_ends_parked_pulls_with_nothing():
    async with stream_of() as (streams, stream):
        _, session = await reader(stream)
        parked = asyncio.create_task(pull(session, 1, 60))
        await asyncio.sleep(1)
        await streams.aclose()
        assert await parked == []


@virtual_time
async def test_one_pull_at_a_time_and_max_waiting():
    async with stream_of() as (_, stream):
        consumer, session = await reader(stream, max_waiting=1)
        parked = asyncio.create_task(pull(session, 1, 5))
        await asyncio.sleep(1)
        with pytest.raises(UsageError):
            await pull(session, 1, 5)
        with pytest.raises(PullRejectedError):
            await pull(consumer.session(SessionOptions()), 1, 5)
        assert await parked == []


@virtual_time
async def test_prefetch_is_bounded_and_expires():
    async with stream_of(10) as (_, stream):
        consumer, _ = await reader(stream, ack_wait=5)
        session = consumer.session(SessionOptions(prefetch=3))
        assert seqs(await pull(session, 1)) == [1]
        assert session.held == 4
        await asyncio.sleep(6)
        assert seqs(await pull(session, 4)) == [1, 2, 3, 4]
        assert session.expired_in_buffer == 3


@virtual_time
async def test_max_bytes_cuts_redeliveries_too():
    async with stream_of() as (streams, stream):
        for _ in range(6):
            await streams.publish("s.a", bytes(100))
        _, session = await reader(stream)
        first, second, _ = await pull(session, 3)
        await first.nak()
        await second.nak()
        (again,) = await pull(session, 10, max_bytes=200)
        assert (again.metadata.sequence.stream, again.metadata.num_pending, session.held) == (1, 3, 2)
        await again.ack()
        await session.flush()
        assert (session.held, seqs(await pull(session, 1))) == (1, [2])
