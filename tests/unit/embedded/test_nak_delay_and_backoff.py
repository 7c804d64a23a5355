"""Never early, never late by more than 50 ms; a delay asked for is the delay (3.6.8-3.6.10)."""

import asyncio

import pytest

from headrace.testing.virtual import virtual_time
from tests.unit.embedded.reading import deliveries, pull, reader, seqs, stream_of


@virtual_time
async def test_nak_delay():
    async with stream_of(2) as (_, stream):
        loop = asyncio.get_running_loop()
        _, session = await reader(stream)
        one, two = await pull(session)
        await one.nak(2.5)
        await two.nak(1)
        begun = loop.time()
        assert seqs(await pull(session, 5, 30)) == [2]
        assert 1 <= loop.time() - begun <= 1.05
        assert seqs(await pull(session, 5, 30)) == [1]
        assert 2.5 <= loop.time() - begun <= 2.55


@virtual_time
async def test_a_plain_nak_brings_it_forward_and_a_second_does_nothing():
    async with stream_of(2) as (_, stream):
        _, session = await reader(stream)
        one, two = await pull(session)
        await one.nak(100)
        one.outcome = None
        await two.nak()
        await one.nak()
        two.outcome = None
        await two.nak()
        assert deliveries(await pull(session)) == [(2, 2), (1, 2)]


@virtual_time
async def test_nak_after_settling_does_nothing():
    async with stream_of(1) as (_, stream):
        _, session = await reader(stream)
        (message,) = await pull(session)
        await message.ack()
        await session.flush()
        message.outcome = None
        await message.nak()
        await asyncio.sleep(1)
        assert await pull(session) == []


@virtual_time
async def test_backoff_replaces_ack_wait_and_the_last_repeats():
    async with stream_of(1) as (_, stream):
        loop = asyncio.get_running_loop()
        consumer, session = await reader(stream, backoff=[1, 3, 10])
        assert (await consumer.info()).config.ack_wait.total_seconds() == 1
        await pull(session)
        for wait in (1, 3, 10, 10):
            begun = loop.time()
            assert await pull(session, 1, 60)
            assert wait <= loop.time() - begun <= wait + 0.05


@virtual_time
async def test_nak_ignores_backoff():
    async with stream_of(1) as (_, stream):
        loop = asyncio.get_running_loop()
        _, session = await reader(stream, backoff=[30, 60])
        (message,) = await pull(session)
        begun = loop.time()
        await message.nak(2)
        await pull(session, 1, 60)
        assert loop.time() - begun == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize("harvested", [False, True])
@virtual_time
async def test_a_late_nak_delays_and_a_late_plain_one_changes_nothing(harvested):
    async with stream_of(4) as (_, stream):
        _, session = await reader(stream, ack_wait=1)
        one, two, three, _ = await pull(session)
        await asyncio.sleep(2)
        if harvested:
            assert deliveries(await pull(session, 1)) == [(1, 2)]
        await three.nak(5)
        await two.nak()
        await session.flush()
        assert deliveries(await pull(session)) == [(1, 2), (2, 2), (4, 2)][harvested:]
        await asyncio.sleep(4.9)
        await one.nak(3)
        assert 3 not in seqs(await pull(session)), "a delay asked for is a delay, however late it is asked for"
        begun = asyncio.get_running_loop().time()
        assert 3 in seqs(await pull(session, 9, 1))
        assert asyncio.get_running_loop().time() - begun == pytest.approx(0.1, abs=0.01)
