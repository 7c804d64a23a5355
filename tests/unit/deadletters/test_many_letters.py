"""Thousands of letters: all of them are seen, what stays is not lost, and nothing goes on for ever."""

import asyncio

import pytest

from headrace.connect import connect
from headrace.core.broker import Groups, Start, SubscribeOptions
from headrace.core.delivery import Position
from headrace.core.errors import BrokerTimeoutError, ConfigError, Fault, PublishError, UnsupportedError
from headrace.deadletters import DeadLetters, RedriveReport
from headrace.testing.virtual import virtual_time
from tests.unit.deadletters.stored import DEAD, StoringBroker, a_letter, bury, queue, redriven
from tests.unit.flow.scripted import ScriptedBroker

MANY = 3_000
engines = pytest.mark.parametrize("engine", [StoringBroker, queue])


def is_even(letter):
    return int(letter.message.body) % 2 == 0


# -- all are seen ------------------------------------------------------------------------------------------------------


@engines
@virtual_time
async def test_all_are_seen(engine):
    broker = engine()
    await bury(broker, MANY, lambda number: "even" if number % 2 == 0 else "odd")
    room = DeadLetters(broker, DEAD)
    assert len(await room.read(limit=MANY + 1)) == MANY
    assert len(await room.read(limit=700)) == 700
    assert (await room.get(f"o{MANY - 1}")).message.body == b"%d" % (MANY - 1)
    assert {group.reason: group.count for group in await room.by_error()} == {"even": MANY // 2, "odd": MANY // 2}
    assert await room.redrive(dry_run=True) == RedriveReport(MANY, 0, 0)
    assert await room.redrive(dry_run=True, where=is_even) == RedriveReport(MANY // 2, MANY // 2, 0)
    assert redriven(broker) == []
    assert await room.redrive() == RedriveReport(MANY, 0, 0)
    assert redriven(broker) == list(range(MANY))
    assert await room.redrive() == RedriveReport(0, 0, 0)


@virtual_time
async def test_a_stream_shows_all():
    async with connect(":memory:") as broker:
        await bury(broker, 1_000)
        room = DeadLetters(broker, DEAD)
        assert len(await room.read(limit=2_000)) == 1_000
        assert await room.redrive(where=is_even) == RedriveReport(500, 500, 0)
        assert len(await room.read(limit=2_000)) == 500


@virtual_time
async def test_a_group_that_joins_slowly_is_not_at_its_end():
    broker = StoringBroker()
    broker.joining = 45
    await bury(broker, 3)
    assert await DeadLetters(broker, DEAD).redrive() == RedriveReport(3, 0, 0)


@virtual_time
async def test_the_end_is_known_and_not_waited_for():
    broker = StoringBroker()
    await bury(broker, 3)
    began = asyncio.get_running_loop().time()
    assert len(await DeadLetters(broker, DEAD).read()) == 3
    assert await DeadLetters(broker, "dead.none").read() == []
    assert await DeadLetters(broker, DEAD).redrive() == RedriveReport(3, 0, 0)
    assert asyncio.get_running_loop().time() == began


@virtual_time
async def test_nothing_is_kept_in_flight_by_looking():
    broker = StoringBroker()
    await bury(broker, MANY)
    seen = 0
    async for _ in DeadLetters(broker, DEAD)._source.look(None):
        seen += 1
        (subscription,) = broker.subscriptions
    assert (seen, subscription.out, broker.done) == (MANY, 0, {})
    assert subscription.most_out <= 256


# -- what stays --------------------------------------------------------------------------------------------------------


@engines
@virtual_time
async def test_what_is_not_wanted_stays(engine):
    broker = engine()
    await bury(broker, 900, lambda number: "a" if number // 10 % 2 else "b")
    room = DeadLetters(broker, DEAD)
    assert await room.redrive(where=lambda letter: letter.reason == "a") == RedriveReport(450, 450, 0)
    assert await room.redrive(where=lambda letter: letter.id == "o7") == RedriveReport(1, 449, 0)
    assert await room.redrive() == RedriveReport(449, 0, 0)
    assert sorted(redriven(broker)) == list(range(900)), "one was lost, or sent twice"


@engines
@virtual_time
async def test_what_is_refused_stays(engine):
    broker = engine()
    await bury(broker, 3)
    room = DeadLetters(broker, DEAD)
    broker.refuse = [PublishError("no", fault=Fault.REJECTED)]
    assert await room.redrive() == RedriveReport(2, 0, 1)
    broker.refuse = [PublishError("down", fault=Fault.UNAVAILABLE)]
    with pytest.raises(PublishError) as raised:
        await room.redrive()
    assert raised.value.__notes__ == ["redrive stopped: 0 moved, 0 skipped, 0 failed"]
    assert await room.redrive() == RedriveReport(1, 0, 0)
    assert redriven(broker) == [1, 2, 0]


@engines
@virtual_time
async def test_what_somebody_else_got_is_not_moved(engine):
    broker = engine()
    await bury(broker, 3)
    broker.lost = {"orders.o1.g.dead"}
    assert await DeadLetters(broker, DEAD).redrive() == RedriveReport(2, 0, 0)
    assert redriven(broker) == [0, 2]


@virtual_time
async def test_more_gaps_than_a_group_remembers():
    broker = StoringBroker()
    await bury(broker, 4_000, lambda number: "a" if number // 2 % 2 else "b")  # by turns, in both sources
    room = DeadLetters(broker, DEAD)
    with pytest.raises(UnsupportedError, match="more than 300 gaps") as raised:
        await room.redrive(where=lambda letter: letter.reason == "a")
    (note,) = raised.value.__notes__
    moved = len(redriven(broker))
    assert moved >= 300
    assert f"{moved} moved" in note
    assert await room.redrive() == RedriveReport(4_000 - moved, 0, 0)
    assert sorted(redriven(broker)) == list(range(4_000)), "one was lost, or sent twice"


@virtual_time
async def test_gaps_of_earlier_times_count():
    broker = StoringBroker()
    await bury(broker, 4_000)
    room = DeadLetters(broker, DEAD)
    for turn in (2, 5, 9, 11):
        if turn == 11:
            with pytest.raises(UnsupportedError):
                await room.redrive(where=lambda letter, turn=turn: int(letter.message.body) // 2 % 13 == turn)
        else:
            await room.redrive(where=lambda letter, turn=turn: int(letter.message.body) // 2 % 13 == turn, limit=150)


@virtual_time
async def test_more_stays_than_may_be_unfinished():
    broker = StoringBroker()
    await bury(broker, 300)
    room = DeadLetters(broker, DEAD, subscribe=SubscribeOptions(max_in_flight=100, group="mine"))
    with pytest.raises(BrokerTimeoutError, match="200 more are there") as raised:
        await room.redrive(where=lambda letter: False)
    assert raised.value.__notes__ == ["redrive stopped: 0 moved, 100 skipped, 0 failed"]
    assert [group for _, group in broker.done] == ["mine"]


@virtual_time
async def test_a_queue_says_what_it_cannot_hold():
    broker = queue()
    await bury(broker, 101)
    room = DeadLetters(broker, DEAD, subscribe=SubscribeOptions(max_in_flight=100))
    with pytest.raises(UnsupportedError, match="100 letters"):
        await room.by_error()
    assert len(await room.read(limit=100)) == 100
    assert await room.redrive(limit=1) == RedriveReport(1, 0, 0)
    assert sum(group.count for group in await room.by_error()) == 100
    assert await room.redrive() == RedriveReport(100, 0, 0)
    with pytest.raises(UnsupportedError, match="no positions"):
        await room.read(after=Position("q", 1))


# -- it ends -----------------------------------------------------------------------------------------------------------


@virtual_time
async def test_what_dies_again_meanwhile_waits_for_the_next_time():
    broker = StoringBroker()
    await bury(broker, 10)

    async def dies_at_once(message):
        if message.topic == "orders":
            number = int(message.body)
            again = a_letter(number).replace(id=f"orders.{message.id}.g.dead")
            await ScriptedBroker.publish(broker, again)

    broker.on_publish = dies_at_once
    room = DeadLetters(broker, DEAD)
    assert await room.redrive() == RedriveReport(10, 0, 0)
    assert await room.redrive() == RedriveReport(10, 0, 0)


@virtual_time
async def test_leases_are_kept_however_slowly_letters_move():
    broker = queue()
    await bury(broker, 3)
    kept = []

    async def look(message):
        if message.topic == "orders":
            kept.append(broker.subscriptions[0].keeps)

    broker.on_publish = look
    assert await DeadLetters(broker, DEAD).redrive(rate=1 / 96) == RedriveReport(3, 0, 0)
    assert kept == [0, 9, 19]


# -- options -----------------------------------------------------------------------------------------------------------


@virtual_time
async def test_what_cannot_be_done_is_said_at_once():
    with pytest.raises(ConfigError, match="start"):
        DeadLetters(StoringBroker(), DEAD, subscribe=SubscribeOptions(start=Start.new()))
    for lacking in ({"groups": Groups.NONE}, {"broadcast": False}, {"replay": frozenset()}):
        with pytest.raises(UnsupportedError, match="without moving a group"):
            DeadLetters(StoringBroker(**lacking), DEAD)
    async with connect(":memory:") as broker:
        with pytest.raises(UnsupportedError, match="in place"):
            DeadLetters(broker, DEAD, subscribe=SubscribeOptions(max_in_flight=5))
