"""A consumer that nobody uses goes, never early (3.6.15)."""

import asyncio

import pytest

from headrace import embedded
from headrace.embedded.advisories import ConsumerDeleted
from headrace.streams.config import ConsumerConfig
from headrace.streams.errors import ConsumerDeletedError, ConsumerNotFoundError
from headrace.streams.session import SessionOptions
from headrace.testing.virtual import virtual_time
from tests.unit.embedded.reading import pull, reader, stream_of


@virtual_time
async def test_ephemeral_goes():
    seen = []
    async with stream_of(on_advisory=seen.append) as (_, stream):
        consumer = await stream.create_consumer(ConsumerConfig(name="e"))
        await asyncio.sleep(4.9)
        await stream.consumer("e")
        await asyncio.sleep(6.2)
        with pytest.raises(ConsumerNotFoundError):
            await consumer.info()
        assert [(type(each), each.cause, each.consumer) for each in seen] == [(ConsumerDeleted, "inactive", "e")]


@virtual_time
async def test_pulls_and_acks_keep_it():
    async with stream_of(3) as (_, stream):
        _, session = await reader(stream, durable=None, name="e", inactive_threshold=5, ack_wait=1000)
        assert await pull(session, 1, 1)
        for _ in range(4):
            await asyncio.sleep(4)
            await pull(session, 1, 1)
        parked = asyncio.create_task(pull(session, 1, 60))
        await asyncio.sleep(50)
        await stream.consumer("e")
        parked.cancel()
        await asyncio.sleep(12)
        with pytest.raises(ConsumerNotFoundError):
            await stream.consumer("e")
        with pytest.raises(ConsumerDeletedError):
            await pull(session, 1, 1)


@virtual_time
async def test_a_pull_parked_in_another_handle_keeps_it(tmp_path):
    async with stream_of(path=tmp_path / "d") as (_, stream), embedded.open(tmp_path / "d") as other:
        await stream.create_consumer(ConsumerConfig(name="e", inactive_threshold=1))
        consumer = await other.consumer("S", "e")
        await asyncio.sleep(0.9)
        for _ in range(3):
            assert await pull(consumer.session(SessionOptions()), 1, 7) == []
            await asyncio.sleep(0.9)
        await asyncio.sleep(2.2)
        with pytest.raises(ConsumerNotFoundError):
            await stream.consumer("e")


@virtual_time
async def test_durable_stays():
    async with stream_of() as (_, stream):
        await reader(stream)
        await asyncio.sleep(100_000)
        await stream.consumer("c")


@virtual_time
async def test_counted_across_a_restart(tmp_path):
    async with stream_of(path=tmp_path / "d") as (_, stream):
        await reader(stream, durable="d", inactive_threshold=60)
    await asyncio.sleep(30)
    async with stream_of(path=tmp_path / "d") as (_, stream):
        await stream.consumer("d")
        await asyncio.sleep(35)
        with pytest.raises(ConsumerNotFoundError):
            await stream.consumer("d")
