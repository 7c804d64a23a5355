"""A paused consumer: nothing is handed out until then, everything else goes on."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from headrace.core.errors import ConfigError, UnsupportedError
from headrace.streams.config import ConsumerConfig
from headrace.streams.errors import ConsumerNotFoundError
from headrace.testing.virtual import virtual_time
from tests.unit.embedded.reading import deliveries, pull, reader, seqs, state, stream_of


def now_of(streams):
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=streams.clock.now_ns() // 1_000)


def coming(streams, seconds):
    return now_of(streams) + timedelta(seconds=seconds)


@virtual_time
async def test_nothing_comes_before_the_pause_is_over_and_then_at_once():
    async with stream_of(3) as (streams, stream):
        loop = asyncio.get_running_loop()
        consumer, session = await reader(stream)
        until = coming(streams, 2)
        await consumer.pause(until)
        info = await consumer.info()
        assert (info.paused, info.config.pause_until) == (True, until)
        assert info.pause_remaining == timedelta(seconds=2)
        assert await pull(session, 1, 0) == []
        assert await pull(session, 1, 1.5) == [], "a pull expires in its time"
        begun = loop.time()
        assert seqs(await pull(session, 3, 30)) == [1, 2, 3]
        assert loop.time() - begun == pytest.approx(0.5, abs=0.01)
        info = await consumer.info()
        assert (info.paused, info.pause_remaining, info.config.pause_until) == (False, None, until)


@virtual_time
async def test_resume_serves_a_parked_pull():
    async with stream_of(1) as (streams, stream):
        consumer, session = await reader(stream)
        await consumer.pause(coming(streams, 3600))
        parked = asyncio.create_task(pull(session, 1, 60))
        await asyncio.sleep(5)
        assert (await consumer.info()).num_waiting == 1
        await consumer.resume()
        assert seqs(await parked) == [1]
        assert (consumer.cached_info.paused, consumer.cached_info.config.pause_until) == (False, None)
        await consumer.resume()


@virtual_time
async def test_a_parked_pull_is_held_by_a_pause_that_comes_later():
    async with stream_of() as (streams, stream):
        loop = asyncio.get_running_loop()
        consumer, session = await reader(stream)
        parked = asyncio.create_task(pull(session, 1, 60))
        await asyncio.sleep(1)
        begun = loop.time()
        await consumer.pause(coming(streams, 10))
        await streams.publish("s.a")
        assert seqs(await parked) == [1]
        assert loop.time() - begun == pytest.approx(10, abs=0.01)


@virtual_time
async def test_redelivery_waits_too_and_outcomes_count():
    async with stream_of(5) as (streams, stream):
        consumer, session = await reader(stream, ack_wait=5)
        first, second, third, _ = await pull(session, 4)
        await consumer.pause(coming(streams, 20))
        await first.ack()
        await second.nak()
        await third.term()
        assert (await state(consumer))[2:] == (2, 0, 1)
        assert await pull(session, 9, 19) == []
        assert deliveries(await pull(session, 9, 60)) == [(2, 2), (4, 2), (5, 1)]


@virtual_time
async def test_deliveries_are_not_used_up_by_a_pause():
    async with stream_of(1) as (streams, stream):
        consumer, session = await reader(stream, ack_wait=1, max_deliver=2)
        assert deliveries(await pull(session)) == [(1, 1)]
        await consumer.pause(coming(streams, 10))
        assert await pull(session, 1, 8) == []
        assert deliveries(await pull(session, 1, 8)) == [(1, 2)]


@virtual_time
async def test_the_last_pause_holds_and_one_of_the_past_does_not():
    async with stream_of(1) as (streams, stream):
        consumer, session = await reader(stream)
        await consumer.pause(coming(streams, 3600))
        await consumer.pause(coming(streams, 5))
        assert await pull(session, 1, 4) == []
        await consumer.pause(past := coming(streams, -1))
        assert (consumer.cached_info.paused, consumer.cached_info.config.pause_until) == (False, past)
        assert seqs(await pull(session, 1)) == [1]


@virtual_time
async def test_made_paused_and_not_changed_by_an_update():
    async with stream_of(1) as (streams, stream):
        until = coming(streams, 60)
        consumer, session = await reader(stream, pause_until=until)
        assert consumer.cached_info.paused
        same = await stream.create_consumer(ConsumerConfig(durable="c"))
        changed = await stream.update_consumer(ConsumerConfig(durable="c", max_deliver=5))
        assert [each.cached_info.config.pause_until for each in (same, changed)] == [until, until]
        await stream.update_consumer(ConsumerConfig(durable="c", max_deliver=6, pause_until=until))
        assert await pull(session, 1, 50) == []
        for other in (coming(streams, 60), coming(streams, -60)):
            with pytest.raises(UnsupportedError, match="pause_until"):
                await stream.create_or_update_consumer(ConsumerConfig(durable="c", pause_until=other))
        assert seqs(await pull(session, 1, 50)) == [1]


@virtual_time
async def test_misuse():
    async with stream_of() as (streams, stream):
        consumer, _ = await reader(stream)
        with pytest.raises(ConfigError, match="until"):
            await consumer.pause(datetime(2099, 1, 1))
        await consumer.pause(datetime(9999, 1, 1, tzinfo=UTC))
        await stream.delete_consumer("c")
        for call in (consumer.pause(coming(streams, 5)), consumer.resume()):
            with pytest.raises(ConsumerNotFoundError):
                await call


@virtual_time
async def test_survives_reopening(tmp_path):
    async with stream_of(1, path=tmp_path / "d") as (streams, stream):
        consumer, _ = await reader(stream)
        await consumer.pause(coming(streams, 30))
    async with stream_of(path=tmp_path / "d") as (_, stream):
        consumer, session = await reader(stream)
        assert await pull(session, 1, 20) == []
        assert seqs(await pull(session, 1, 20)) == [1]


@virtual_time
async def test_an_idle_paused_consumer_goes():
    async with stream_of() as (streams, stream):
        consumer, _ = await reader(stream, inactive_threshold=2)
        await consumer.pause(coming(streams, 60))
        await asyncio.sleep(6)
        with pytest.raises(ConsumerNotFoundError):
            await consumer.info()
