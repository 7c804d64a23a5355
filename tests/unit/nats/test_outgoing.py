"""Outgoing: one write per turn of the loop, frames that can be taken back, bounds, and back-pressure."""

import asyncio

import pytest

from headrace.core.errors import ClosedError, ConnectionLostError
from headrace.nats.info import ConnectionStats
from headrace.nats.outgoing import PING, Outgoing

FRAME = len(b"PUB a 1\r\nx\r\n")


class Wire:
    """A transport that only writes down what it is handed."""

    def __init__(self):
        self.writes = []
        self.limits = None

    def set_write_buffer_limits(self, high):
        self.limits = high

    def write(self, data):
        self.writes.append(data)


def outgoing(*, write_limit=1000, away_limit=100):
    return Outgoing(ConnectionStats(), write_limit=write_limit, away_limit=away_limit)


def attached(**limits):
    out, wire = outgoing(**limits), Wire()
    out.start(out.attach(wire, asyncio.get_running_loop()))
    return out, wire


def send(out, subject=b"a"):
    return out.send(subject, b"", b"", b"x")


def run(test):
    return lambda: asyncio.run(asyncio.wait_for(test(), 20))


@run
async def test_write_once_per_turn():
    out, wire = attached()
    numbers = [out.send(b"a", b"", b"", b"1"), out.send(b"b", b"r", b"", b""), out.send(b"c", b"r", b"A: 1\r\n", b"xy")]
    out.control(PING)
    assert wire.writes == []
    assert out.flushed == 0
    await asyncio.sleep(0)
    assert wire.writes == [b"PUB a 1\r\n1\r\nPUB b r 0\r\n\r\nHPUB c r 18 20\r\nNATS/1.0\r\nA: 1\r\n\r\nxy\r\nPING\r\n"]
    assert numbers == [1, 2, 3]
    assert out.flushed == 4
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(wire.writes) == 1
    send(out)
    await asyncio.sleep(0)
    assert len(wire.writes) == 2
    assert out._stats.out_messages == 4
    assert out._stats.out_bytes == sum(map(len, wire.writes))


@run
async def test_a_frame_is_taken_back_until_it_is_written():
    out, wire = attached()
    one, two, three = send(out, b"a"), send(out, b"b"), send(out, b"c")
    assert out.withdraw(two)
    assert not out.withdraw(two)
    await asyncio.sleep(0)
    assert wire.writes == [b"PUB a 1\r\nx\r\nPUB c 1\r\nx\r\n"]
    assert not out.withdraw(one)
    assert not out.withdraw(three)
    assert not out.withdraw(99)
    four = send(out)
    assert out.withdraw(four)
    await asyncio.sleep(0)
    assert len(wire.writes) == 1
    send(out, b"e")
    await asyncio.sleep(0)
    assert wire.writes[1] == b"PUB e 1\r\nx\r\n"


@run
async def test_away_the_buffer_is_bounded_and_what_is_refused_leaves_no_trace():
    out = outgoing(away_limit=3 * FRAME)
    numbers = [send(out) for _ in range(3)]
    with pytest.raises(ConnectionLostError, match="reconnect buffer"):
        send(out)
    assert out.size == 3 * FRAME
    assert out.withdraw(numbers[0])
    send(out, b"d")
    wire = Wire()
    out.start(out.attach(wire, asyncio.get_running_loop()))
    assert wire.writes == [b"PUB a 1\r\nx\r\n" * 2 + b"PUB d 1\r\nx\r\n"]


@run
async def test_what_is_sent_while_a_link_is_taken_over_goes_first():
    out = outgoing(away_limit=1000)
    kept = send(out, b"kept")
    wire = Wire()
    mark = out.attach(wire, asyncio.get_running_loop())
    late = send(out, b"late")
    assert out.flushed == 0
    out.start(mark)
    assert wire.writes == [b"PUB late 1\r\nx\r\nPUB kept 1\r\nx\r\n"]
    assert out.flushed == late > kept
    await asyncio.sleep(0)
    assert len(wire.writes) == 1


@run
async def test_a_lost_link_leaves_the_messages_and_drops_what_is_said_anew():
    out, _ = attached(away_limit=1000)
    out.pause()
    out.control(b"SUB x 1\r\n")
    send(out, b"a")
    out.control(PING)
    out.send(b"b", b"", b"A: 1\r\n", b"")
    out.control(b"UNSUB 1\r\n")
    out.detach()
    wire = Wire()
    out.start(out.attach(wire, asyncio.get_running_loop()))
    assert wire.writes == [b"PUB a 1\r\nx\r\nHPUB b 18 18\r\nNATS/1.0\r\nA: 1\r\n\r\n\r\n"]
    assert out._stats.out_messages == 2


@run
async def test_a_transport_that_is_full_gets_nothing_until_it_says_so():
    out, wire = attached()
    assert wire.limits == 1000
    out.pause()
    number = send(out)
    await asyncio.sleep(0)
    assert wire.writes == []
    assert out.full
    waiting = asyncio.ensure_future(out.room())
    await asyncio.sleep(0)
    assert out.withdraw(number)
    send(out, b"b")
    assert not waiting.done()
    out.resume()
    await waiting
    assert wire.writes == [b"PUB b 1\r\nx\r\n"]


@run
async def test_senders_wait_over_the_limit_and_go_on_after_the_write():
    out, _ = attached(write_limit=2 * FRAME)
    await out.room()
    for _ in range(3):
        send(out)
    assert out.full
    waiting = [asyncio.ensure_future(out.room()) for _ in range(3)]
    waiting[1].cancel()
    await asyncio.wait(waiting)
    assert not out.full
    assert [each.cancelled() for each in waiting] == [False, True, False]
    assert not out._waiting


@run
async def test_the_end_writes_what_is_collected_and_refuses_the_rest():
    out, wire = attached()
    out.pause()
    waiting = asyncio.ensure_future(out.room())
    await asyncio.sleep(0)
    send(out)
    out.end()
    assert wire.writes == [b"PUB a 1\r\nx\r\n"]
    for call in (lambda: send(out), lambda: out.control(PING)):
        with pytest.raises(ClosedError):
            call()
    with pytest.raises(ClosedError):
        await waiting
    assert out.size == 0


@run
async def test_data_that_is_no_bytes_leaves_no_trace():
    out, _ = attached()
    for data in ("text", None, 3):
        with pytest.raises(TypeError):
            out.send(b"a", b"", b"", data)
    assert out.size == 0
    assert send(out) == 1
