"""The wall clock jumps under a running engine: no order, lease or message that is not due is lost."""

import asyncio
from datetime import timedelta

import pytest

from headrace import embedded
from headrace.core.clock import SystemClock
from headrace.core.errors import HeadraceError
from headrace.embedded import EmbeddedOptions
from headrace.streams.config import ConsumerConfig, StreamConfig
from headrace.streams.session import SessionOptions

SMALL = EmbeddedOptions(reserve_bytes=0)
SECOND = 1_000_000_000
HOUR, YEAR = 3_600 * SECOND, 365 * 24 * 3_600 * SECOND
LAST = 2**63 - 1  # 2262-04-11, the last nanosecond that fits


class JumpingClock(SystemClock):
    def __init__(self):
        self.jump = 0

    def now_ns(self):
        return super().now_ns() + self.jump

    def to(self, moment):
        self.jump = moment - super().now_ns()


async def bodies(stream):
    return [each.data for each in await stream.read(limit=1_000)]


JUMPS = [HOUR, -HOUR, 10 * YEAR, -10 * YEAR]


@pytest.mark.parametrize("jump", JUMPS, ids=["+1h", "-1h", "+10y", "-10y"])
def test_clock_jump(tmp_path, jump):
    """Sequences and times rise, what is leased stays leased, an id is known, nothing goes but what is then too old."""

    async def run():
        clock = JumpingClock()
        async with embedded.open(tmp_path / "d", options=SMALL, clock=clock) as streams:
            aged = StreamConfig(name="AGED", max_age=2 * HOUR / SECOND)
            stream, kept = await streams.create_stream(aged), await streams.create_stream(StreamConfig(name="KEPT"))
            consumer = await kept.create_consumer(ConsumerConfig(durable="c", ack_wait=60))
            session = consumer.session(SessionOptions())
            for each in ("AGED", "KEPT"):
                await streams.publish(each, b"before", msg_id="one")
            (held,) = await session.pull(5, 1)
            clock.jump = jump
            for each in ("AGED", "KEPT"):
                await streams.publish(each, b"after", msg_id="two")
            again = await streams.publish("KEPT", b"after", msg_id="two")
            assert (again.duplicate, again.sequence) == (True, 2)
            gone = jump > 2 * HOUR
            assert await bodies(stream) == ([b"after"] if gone else [b"before", b"after"])
            found = await kept.read()
            assert [each.data for each in found] == [b"before", b"after"]
            assert found[0].time <= found[1].time, "time falls as the sequence rises"
            got = await session.pull(5, 0)
            assert [msg.data for msg in got] == [b"after"], "the lease of the first one does not know the wall clock"
            assert held.metadata.num_delivered == got[0].metadata.num_delivered == 1
            clock.jump = 0
            assert (await streams.publish("KEPT", b"back")).sequence == 3
            times = [each.time for each in await kept.read()]
            assert times == sorted(times)
            for msg in (held, *got, *await session.pull(5, 0)):
                await msg.ack()
            assert await session.pull(1, 0) == []
        async with embedded.open(tmp_path / "d", options=SMALL) as streams:
            assert await bodies(await streams.stream("KEPT")) == [b"before", b"after", b"back"]
            info = await (await streams.consumer("KEPT", "c")).info()
            assert (info.ack_floor.stream, info.num_ack_pending) == (3, 0)
            assert (await streams.verify()).ok

    asyncio.run(run())


def test_clock_at_the_end_of_time(tmp_path):
    """In 2262 what fits is stored, what does not is refused in our own words; later everything is as before."""

    async def run():
        clock = JumpingClock()
        async with embedded.open(tmp_path / "d", options=SMALL, clock=clock) as streams:
            stream = await streams.create_stream(StreamConfig(name="S"))
            aged = await streams.create_stream(StreamConfig(name="AGED", max_age=60))
            consumer = await stream.create_consumer(ConsumerConfig(durable="c"))
            session = consumer.session(SessionOptions())
            await streams.publish("S", b"before")
            clock.to(LAST - 20 * SECOND)
            assert (await streams.publish("S", b"2262")).sequence == 2
            told = []
            for moment, stored in ((LAST - 20 * SECOND, "AGED"), (LAST + SECOND, "S"), (2 * LAST, "AGED")):
                clock.to(moment)
                try:
                    await streams.publish(stored, b"too late")
                except HeadraceError as error:
                    told.append(error)
            assert [msg.data for msg in await session.pull(5, 0)][:2] == [b"before", b"2262"]
            assert (await bodies(stream))[:2] == [b"before", b"2262"]
            clock.jump = 0
            last = await streams.publish("S", b"back")
            assert (await bodies(stream))[-1] == b"back"
            assert last.sequence == len(await bodies(stream)), "what was refused is not stored"
            assert len(await bodies(aged)) + last.sequence - 3 + len(told) == 3, "stored or refused"
            await session.aclose()
        async with embedded.open(tmp_path / "d", options=SMALL) as streams:
            assert (await bodies(await streams.stream("S")))[-1] == b"back"
            await streams.publish("AGED", b"again")
            assert (await streams.verify()).ok

    asyncio.run(run())


def test_an_age_longer_than_time():
    """What would expire behind 2262 is stored, and does not expire."""

    async def run():
        async with embedded.open(":memory:", options=SMALL) as streams:
            stream = await streams.create_stream(StreamConfig(name="S", max_age=timedelta(days=200_000)))
            await streams.publish("S", b"kept")
            assert await bodies(stream) == [b"kept"]

    asyncio.run(run())
