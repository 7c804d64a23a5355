"""Deadlines stand in the boot clock; after a reboot what was left of them by the wall clock is left (3.7.3)."""

import asyncio
from contextlib import asynccontextmanager, closing

import apsw
import pytest

from headrace import embedded
from headrace.core.clock import current_clock
from headrace.embedded import CorruptedError
from headrace.embedded.consumers import reboot
from headrace.streams.config import ConsumerConfig, ReplayPolicy, StreamConfig
from headrace.streams.errors import ConsumerNotFoundError
from headrace.streams.msg import time_of_ns
from headrace.streams.session import SessionOptions
from headrace.testing.virtual import virtual_time

DAY = 86_400
YEAR = 365 * DAY


class Boot:
    """The virtual clock, as a machine shows it that has been up for this long, and whose wall clock is off by that."""

    def __init__(self, up=0.0, wall=0.0):
        self._inner = current_clock()
        self._up = up - self._inner.monotonic()
        self._wall = int(wall * 1e9)

    def now_ns(self):
        return self._inner.now_ns() + self._wall

    def monotonic(self):
        return self._inner.monotonic() + self._up

    def begin(self):
        self._inner.begin()

    def end(self):
        self._inner.end()


@asynccontextmanager
async def booted(path, **clock):
    async with embedded.open(path, clock=Boot(**clock)) as streams:
        yield streams, (await streams.consumer("S", "c")).session(SessionOptions())


@asynccontextmanager
async def first_boot(path, count=2, *, up=30 * DAY, **config):
    """The consumer's ack wait is 100 s."""
    async with embedded.open(path, clock=Boot(up)) as streams:
        stream = await streams.create_stream(StreamConfig(name="S"))
        if not config:
            config["ack_wait"] = 100
        consumer = await stream.create_consumer(ConsumerConfig(durable="c", **config))
        for _ in range(count):
            await streams.publish("S", b"x")
        yield streams, consumer.session(SessionOptions())


async def hold_one_nak_one(session):
    """Sequence 1 is leased for 100 s, 2 waits 500 s."""
    _, naked = await session.pull(2, 1)
    await naked.nak(500)
    await session.flush()


async def came(session, within):
    messages = await session.pull(2, within)
    for message in messages:
        await message.double_ack()
    return [message.metadata.sequence.stream for message in messages]


@virtual_time
async def test_what_was_left_by_the_wall_clock_is_left(tmp_path):
    async with first_boot(tmp_path / "d") as (_, session):
        await hold_one_nak_one(session)
    await asyncio.sleep(40)
    async with booted(tmp_path / "d") as (_, session):
        assert await came(session, 59) == []
        assert await came(session, 2) == [1]
        assert await came(session, 398) == []
        assert await came(session, 2) == [2]


@virtual_time
async def test_another_boot_id_is_another_boot(tmp_path, monkeypatch):
    async with first_boot(tmp_path / "d", up=60) as (_, session):
        await hold_one_nak_one(session)
    (tmp_path / "boot_id").write_text("another\n")
    monkeypatch.setattr(reboot, "BOOT_ID", tmp_path / "boot_id")
    async with booted(tmp_path / "d", up=DAY) as (_, session):
        assert await came(session, 50) == []
    async with booted(tmp_path / "d", up=DAY + 50) as (_, session):  # the same boot: nothing moves
        assert await came(session, 49) == []
        assert await came(session, 2) == [1]


@pytest.mark.parametrize(("set_by", "first", "second"), [(10 * YEAR, 0, 0), (-10 * YEAR, 100, 500)])
def test_never_less_than_nothing_or_more_than_the_full_length(tmp_path, set_by, first, second):
    """The wall clock was set meanwhile, by years."""

    @virtual_time
    async def run():
        async with first_boot(tmp_path / "d") as (_, session):
            await hold_one_nak_one(session)
        async with booted(tmp_path / "d", wall=set_by) as (_, session):
            got, waited = [], []
            while len(got) < 2:
                begun = asyncio.get_running_loop().time()
                messages = await session.pull(1, 1000)
                waited.append(round(asyncio.get_running_loop().time() - begun))
                got += [message.metadata.sequence.stream for message in messages]
                await messages[0].double_ack()
        assert (got, waited) == ([1, 2], [first, second - first])

    run()


@virtual_time
async def test_the_full_length_is_that_of_the_last_delivery(tmp_path):
    async with first_boot(tmp_path / "d", 1, backoff=[100, 200, 300]) as (_, session):
        for _ in range(2):
            assert len(await session.pull(1, 101)) == 1
    async with booted(tmp_path / "d", wall=-YEAR) as (_, session):
        assert await came(session, 199) == []
        assert await came(session, 2) == [1]


@virtual_time
async def test_exhausted_ones_stay_so(tmp_path):
    async with first_boot(tmp_path / "d", 1, ack_wait=100, max_deliver=1) as (_, session):
        assert len(await session.pull(1, 1)) == 1
        assert await session.pull(1, 110) == []
    async with booted(tmp_path / "d", wall=YEAR) as (_, session):
        assert await came(session, 110) == []


@virtual_time
async def test_an_idle_consumer_goes_in_time(tmp_path):
    async with first_boot(tmp_path / "d", inactive_threshold=60):
        pass
    await asyncio.sleep(30)
    async with booted(tmp_path / "d") as (streams, _):
        await asyncio.sleep(25)
        await streams.consumer("S", "c")
        await asyncio.sleep(10)
        with pytest.raises(ConsumerNotFoundError):
            await streams.consumer("S", "c")


@virtual_time
async def test_a_backup_is_restored_on_another_machine(tmp_path):
    async with first_boot(tmp_path / "d", up=60) as (streams, session):
        await hold_one_nak_one(session)
        await streams.backup(tmp_path / "b")
    await embedded.restore(tmp_path / "b", tmp_path / "e")
    async with booted(tmp_path / "e", up=DAY) as (_, session):
        # who held the first is not there: it is due at once
        assert await came(session, 1) == [1]
        assert await came(session, 490) == []
        assert await came(session, 11) == [2]


@virtual_time
async def test_a_moment_that_makes_no_sense_is_named(tmp_path):
    async with embedded.open(tmp_path / "d"):
        pass
    with closing(apsw.Connection(str(tmp_path / "d" / "consumers.db"))) as connection:
        connection.execute("UPDATE moment SET wall = 'yesterday'")
    with pytest.raises(CorruptedError, match=r"consumers\.db.*moment"):
        await embedded.opened(tmp_path / "d")


@virtual_time
async def test_a_replay_goes_on_and_a_pause_ends_by_the_wall_clock(tmp_path):
    async with first_boot(tmp_path / "d", 1, replay_policy=ReplayPolicy.ORIGINAL) as (streams, session):
        await asyncio.sleep(300)
        await streams.publish("S", b"x")
        assert await came(session, 1) == [1]
        await session.flush()
    await asyncio.sleep(100)
    async with booted(tmp_path / "d", up=60) as (streams, session):
        assert await came(session, 195) == []
        consumer = await streams.consumer("S", "c")
        await consumer.pause(time_of_ns(streams.clock.now_ns() + 50_000_000_000))
    async with booted(tmp_path / "d", up=5 * DAY) as (_, session):
        assert await came(session, 45) == []
        assert await came(session, 10) == [2]
