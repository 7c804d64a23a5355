"""The room of dead letters, over the scripted engine (a log) and over the embedded one (a stream)."""

import asyncio
import importlib.util
from contextlib import asynccontextmanager

import pytest

from headrace.core.errors import BrokerError, ConfigError, Fault, PublishError, UsageError
from headrace.deadletters import DeadLetters, RedriveReport
from headrace.flow import DeadLetter, RetryPolicy, Topic, Worker
from headrace.testing.idle import run_until_idle
from headrace.testing.virtual import virtual_time
from tests.unit.flow.scripted import ScriptedBroker


@asynccontextmanager
async def scripted():
    yield ScriptedBroker()


@asynccontextmanager
async def memory():
    from headrace.connect import connect

    async with connect(":memory:") as broker:
        yield broker


HAS_MEMORY = importlib.util.find_spec("headrace.connect") is not None
ENGINES = [scripted, pytest.param(memory, marks=pytest.mark.skipif(not HAS_MEMORY, reason="no connect yet"))]
engines = pytest.mark.parametrize("engine", ENGINES)


class RefusedError(Exception):
    """What the handler raises."""


async def die(broker, *bodies):
    async def handler(body: bytes) -> None:
        raise RefusedError(body.decode()[:1])

    for body in bodies:
        await Topic(broker, "orders").send(body, key="k", id=body.decode())
    retry = RetryPolicy(max_attempts=1)
    await run_until_idle(Worker(broker, "orders", handler, group="g", retry=retry, on_exhausted=DeadLetter()))


async def orders(broker):
    seen = []

    async def handler(body: bytes) -> None:
        seen.append(body)

    await run_until_idle(Worker(broker, "orders", handler, group="again"))
    return seen


@engines
@virtual_time
async def test_read_leaves_everything_as_it_was(engine):
    async with engine() as broker:
        assert await DeadLetters(broker, "dead.orders").read() == []
        await die(broker, b"a1", b"a2", b"b1")
        room = DeadLetters(broker, "dead.orders")
        letters = await room.read()
        assert [letter.message.body for letter in letters] == [b"a1", b"a2", b"b1"]
        assert await room.read() == letters
        first = letters[0]
        assert (first.id, first.source, first.group, first.attempts, first.passes) == ("a1", "orders", "g", 1, 1)
        assert first.error.endswith("RefusedError")
        assert first.reason == "a"
        assert await room.read(limit=1, after=first.position) == letters[1:2]
        assert (await room.get("a2")) == letters[1]
        assert (await room.get(letters[2].message.id)) == letters[2]
        assert await room.get("nobody") is None
        with pytest.raises(ConfigError):
            await room.read(limit=0)


@engines
@virtual_time
async def test_by_error(engine):
    async with engine() as broker:
        await die(broker, b"b1", b"a1", b"a2")
        groups = await DeadLetters(broker, "dead.orders").by_error()
        assert [(group.reason, group.count, group.example.id) for group in groups] == [("a", 2, "a2"), ("b", 1, "b1")]


@engines
@virtual_time
async def test_redrive_edits_and_filters(engine):
    async with engine() as broker:
        await die(broker, b"a1", b"a2", b"b1")
        room = DeadLetters(broker, "dead.orders")
        assert await room.redrive(dry_run=True) == RedriveReport(3, 0, 0)
        report = await room.redrive(
            where=lambda letter: letter.reason == "a", edit=lambda message: message.replace(body=b"new")
        )
        assert report == RedriveReport(2, 1, 0)
        assert (await orders(broker))[-2:] == [b"new", b"new"]


@virtual_time
async def test_redrive_keeps_its_pace_and_its_limit():
    broker = ScriptedBroker()
    await die(broker, *(b"%d" % number for number in range(10)))
    began = asyncio.get_running_loop().time()
    report = await DeadLetters(broker, "dead.orders").redrive(rate=2, limit=5, to="elsewhere")
    assert report == RedriveReport(5, 0, 0)
    assert asyncio.get_running_loop().time() - began == 2
    assert [message.id for message in broker.stored["elsewhere"]] == [f"{n}.r1" for n in range(5)]
    with pytest.raises(ConfigError):
        await DeadLetters(broker, "dead.orders").redrive(rate=0)


@virtual_time
async def test_what_is_refused_stays_and_the_first_other_error_stops_it():
    broker = ScriptedBroker()
    await die(broker, b"a1", b"a2", b"a3")
    room = DeadLetters(broker, "dead.orders")
    broker.refuse = [PublishError("no", fault=Fault.REJECTED)]
    assert await room.redrive() == RedriveReport(2, 0, 1)
    broker.refuse = [PublishError("down", fault=Fault.UNAVAILABLE)]
    with pytest.raises(BrokerError) as caught:
        await room.redrive()
    assert "0 moved" in caught.value.__notes__[0]


@virtual_time
async def test_a_strangers_message_stays():
    broker = ScriptedBroker()
    await Topic(broker, "dead.orders").send(b"x")
    room = DeadLetters(broker, "dead.orders")
    (letter,) = await room.read()
    assert letter.source is None
    with pytest.raises(UsageError):
        letter.restore()
    assert await room.redrive() == RedriveReport(0, 0, 1)


@pytest.mark.skipif(not HAS_MEMORY, reason="no connect yet")
@virtual_time
async def test_on_a_stream_what_was_moved_is_gone_and_a_crash_in_between_stores_one():
    async with memory() as broker:
        await die(broker, b"a1")
        room = DeadLetters(broker, "dead.orders")
        (letter,) = await room.read()
        await broker.publish(letter.restore())  # published, and killed before the letter was removed
        assert await room.redrive() == RedriveReport(1, 0, 0)
        assert await room.read() == []
        assert await orders(broker) == [b"a1", b"a1"]
