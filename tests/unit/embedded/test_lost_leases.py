"""A lease that ran out is lost: nothing its old holder does takes the message from whoever has it now (3.6, 3.7)."""

import asyncio
from datetime import timedelta

from headrace.core.broker import SubscribeOptions
from headrace.core.message import Message
from headrace.streams.broker import StreamBroker
from headrace.streams.session import SessionOptions
from headrace.testing.virtual import virtual_time
from tests.unit.embedded.reading import deliveries, pull, reader, seqs, stream_of


@virtual_time
async def test_keep_does_not_revive_a_lease():
    async with stream_of(2) as (_, stream):
        consumer, slow = await reader(stream, ack_wait=10)
        fast = consumer.session(SessionOptions())
        first, _ = await pull(slow)
        await asyncio.sleep(10.1)
        assert deliveries(await pull(fast)) == [(1, 2), (2, 2)]
        slow.keep()
        assert not slow.alive(first), "somebody else has it"
        await asyncio.sleep(0.1)
        assert await pull(slow) == []


@virtual_time
async def test_in_progress_does_not_revive_a_lease():
    async with stream_of(1) as (_, stream):
        _, session = await reader(stream, ack_wait=10)
        (late,) = await pull(session)
        await asyncio.sleep(10.1)
        await late.in_progress()
        assert not session.alive(late)
        assert deliveries(await pull(session)) == [(1, 2)], "it was due, and comes again at once"


@virtual_time
async def test_what_ran_out_unstarted_is_not_handed_back():
    async with stream_of() as (streams, _):
        broker = StreamBroker(streams)
        await broker.publish(Message(topic="s.a", body=b"x"))
        options = SubscribeOptions(group="g", lease=10.0)
        async with broker.subscribe("s.a", options) as holder, broker.subscribe("s.a", options) as third:
            async with broker.subscribe("s.a", options) as late:
                assert len(await late.pull(1, 0.0)) == 1
                await asyncio.sleep(10.1)
                (held,) = await holder.pull(1, 0.0)
            assert held.start()
            assert not await third.pull(1, 0.0), "the holder has it"


@virtual_time
async def test_a_nak_for_longer_than_time_can_count_stops_nobody():
    async with stream_of(2) as (_, stream):
        _, session = await reader(stream)
        first, second = await pull(session)
        await first.nak(timedelta(days=150_000))
        await second.double_ack()
        assert await pull(session) == []


@virtual_time
async def test_room_made_by_a_delete_wakes_a_bounded_pull():
    async with stream_of(2) as (_, stream):
        _, session = await reader(stream, max_ack_pending=1)
        assert seqs(await pull(session)) == [1]
        waiting = asyncio.ensure_future(pull(session, wait=60.0))
        await asyncio.sleep(1)
        began = asyncio.get_running_loop().time()
        await stream.delete_msg(1)
        assert seqs(await waiting) == [2]
        assert asyncio.get_running_loop().time() - began < 1
