"""Plans: where a group begins, what was added, who decides it when several begin at once."""

import asyncio
from datetime import UTC, datetime

import pytest
from confluent_kafka import KafkaError as DriverError
from confluent_kafka import KafkaException

from headrace.core.broker import Start
from headrace.core.delivery import Position
from headrace.core.errors import ConfigError, UnsupportedError
from headrace.kafka import driver
from headrace.kafka.broker import check_start
from headrace.kafka.codes import Code
from headrace.kafka.consuming.outofrange import OutOfRange
from headrace.kafka.consuming.plans import FixedPlan, GroupPlan
from headrace.kafka.errors import AuthorizationError, UnknownGroupError
from headrace.kafka.reading import KafkaPartitionOptions, KafkaSubscribeOptions
from headrace.testing.virtual import virtual_time
from tests.unit.kafka.consuming_script import TOPIC, Script, Stepped, joined, options
from tests.unit.kafka.test_consuming_revoke import in_loop

WHEN = datetime(2026, 1, 1, tzinfo=UTC)


def plan_of(given, starts, *, create=True, topics=(TOPIC,)):
    return GroupPlan(
        given.group, list(topics), starts=starts, create=create,
        protocol=given.group_protocol, static=False, drain_timeout=0, out_of_range=OutOfRange(given),
    )  # fmt: skip


def begun(script, starts, *, create=True, **given):
    given = options(drain_timeout=0, **given)
    plan = plan_of(given, {(TOPIC, number): offset for number, offset in starts.items()}, create=create)
    return Stepped(script, plan=plan)


class Noting(Script):
    """One whose commits before the start are kept in `first`."""

    def subscribe(self, topics, **callbacks):
        self.first = [commit[:2] for commit in self.commits]
        super().subscribe(topics, **callbacks)


@pytest.mark.parametrize(
    ("start", "partition", "error"),
    [
        (None, False, None),
        (Start.all(), False, None),
        (Start.new(), False, None),
        (Start.since(WHEN), False, None),
        (Start.last(), False, UnsupportedError),
        (Start.at(3), False, UnsupportedError),
        (Start.at(Position("orders/1", 3)), False, UnsupportedError),
        (None, True, None),
        (Start.all(), True, None),
        (Start.new(), True, None),
        (Start.since(WHEN), True, None),
        (Start.at(3), True, None),
        (Start.at(Position("orders/1", 3)), True, None),
        (Start.at(Position("orders/0", 3)), True, ConfigError),
        (Start.at(Position("others/1", 3)), True, ConfigError),
        (Start.last(), True, UnsupportedError),
    ],
)
@pytest.mark.parametrize("group", ["billing", None])
def test_start_matrix(start, partition, error, group):
    if partition and group:
        with pytest.raises(ConfigError, match="group must be None"):
            KafkaPartitionOptions(partition=1, start=start, group=group)
        return
    given = (
        KafkaPartitionOptions(partition=1, start=start)
        if partition
        else KafkaSubscribeOptions(start=start, group=group)
    )
    if error is None:
        check_start([TOPIC], given)
    else:
        with pytest.raises(error):
            check_start([TOPIC], given)


def test_one_partition_is_of_one_topic():
    with pytest.raises(ConfigError, match="one topic"):
        check_start([TOPIC, "others"], KafkaPartitionOptions(partition=0))


@virtual_time
async def test_new_group_has_all_its_places_before_it_is_joined():
    script = Noting(3)
    stepped = begun(script, {0: 7, 1: 0, 2: 9})
    assert script.first == [(0, 7), (1, 0), (2, 9)]
    script.give(0, 2)
    await stepped.turn()
    assert script.assigned == {(TOPIC, 0): 7, (TOPIC, 2): 9}
    assert not script.commits


@virtual_time
async def test_group_that_exists_keeps_its_place():
    script = Noting(2, stored={(TOPIC, 0): (3, ""), (TOPIC, 1): (4, "")})
    stepped = begun(script, {0: 70, 1: 70})
    assert script.first == []
    script.give(0, 1)
    await stepped.turn()
    assert script.assigned == {(TOPIC, 0): 3, (TOPIC, 1): 4}


@virtual_time
async def test_added_partition_from_beginning():
    """Beside others that have a place: whatever `start` says, nothing in it is passed over."""
    script = Noting(2, stored={(TOPIC, 0): (3, "")})
    stepped = begun(script, {0: 70, 1: 70})
    script.give(0, 1)
    await stepped.turn()
    assert script.assigned == {(TOPIC, 0): 3, (TOPIC, 1): driver.OFFSET_BEGINNING}
    assert script.first == []
    assert not script.commits


@virtual_time
async def test_new_group_position_race():
    """Others are in the group already: the first assignment stores its own, and what they have stored counts."""
    script = Noting(3)
    script.refuse.append(Code.UNKNOWN_MEMBER_ID)
    stepped = begun(script, {0: 7, 1: 8, 2: 9})
    assert script.first == [(0, 7), (1, 8), (2, 9)]
    assert not script.stored
    script.stored[TOPIC, 1] = 5, ""  # by another member, meanwhile
    script.give(0, 1)
    await stepped.turn()
    assert script.assigned == {(TOPIC, 0): 7, (TOPIC, 1): 5}
    assert script.stored[TOPIC, 0][0] == 7
    assert (TOPIC, 2) not in script.stored
    script.give(2)
    await stepped.turn()
    assert script.assigned[TOPIC, 2] == 9


@virtual_time
async def test_place_that_could_not_be_stored_is_read_from_all_the_same(caplog):
    script = Noting(1)
    script.refuse.extend([Code.UNKNOWN_MEMBER_ID, Code.REBALANCE_IN_PROGRESS])
    stepped = begun(script, {0: 7})
    script.give(0)
    await stepped.turn()
    assert script.assigned == {(TOPIC, 0): 7}
    assert "was not stored" in caplog.text
    assert stepped.poller.failure is None


@virtual_time
async def test_group_that_is_not_to_be_made():
    with pytest.raises(UnknownGroupError, match="group 'billing' has no place in orders"):
        begun(Noting(1), {0: 7}, create=False)


@pytest.mark.parametrize("where", ["raised", "answered"])
@virtual_time
async def test_failed_read_of_places_is_repeated(where, monkeypatch, caplog):
    """An answer that did not come is no "none": the group would begin anew."""
    script = Noting(1, stored={(TOPIC, 0): (3, "")})
    stepped = begun(script, {0: 70})
    monkeypatch.setattr(stepped.poller, "rest", lambda seconds: None)
    real, left = script.committed, [1, 1, 1]

    def committed(places, timeout):
        if left:
            left.pop()
            if where == "raised":
                raise KafkaException(DriverError(Code.COORDINATOR_NOT_AVAILABLE))
            return [Failed(each) for each in places]
        return real(places, timeout)

    script.committed = committed
    script.give(0)
    await stepped.turn()
    assert not left
    assert script.assigned == {(TOPIC, 0): 3}
    assert len([one for one in caplog.records if "asked again" in one.getMessage()]) == 1


class Failed:
    """An answer with an error of its own."""

    def __init__(self, place):
        self.topic, self.partition, self.offset, self.metadata = place.topic, place.partition, -1001, None
        self.error = DriverError(Code.COORDINATOR_LOAD_IN_PROGRESS)


@in_loop
async def test_places_that_may_not_be_read_end_the_start():
    script = Script()

    def committed(places, timeout):
        raise KafkaException(DriverError(Code.GROUP_AUTHORIZATION_FAILED))

    script.committed = committed
    subscription = joined(script, options())
    with pytest.raises(AuthorizationError):
        await subscription.poller.start()
    subscription.failed(AuthorizationError("told"))
    await subscription.aclose()
    assert script.closed


@virtual_time
async def test_eager_takes_and_gives_all():
    script = Noting(2, stored={(TOPIC, 0): (3, ""), (TOPIC, 1): (4, "")})
    stepped = begun(script, {0: 0, 1: 0}, group_protocol="eager")
    script.give(0, 1)
    await stepped.turn()
    assert len(stepped.poller.stays) == 2
    script.take_away(0, 1)
    await stepped.turn()
    assert not script.assigned
    assert not stepped.poller.stays
    script.give(1)
    await stepped.turn()
    assert [stay.source for stay in stepped.subscription.stays] == ["orders/1"]


@virtual_time
async def test_partitions_added_to_a_reader_of_all(caplog):
    asked = []

    def added(consumer, there):
        asked.append(sorted(there))
        if len(asked) == 1:
            raise KafkaException(DriverError(Code.LOCAL_TRANSPORT))
        return [] if len(there) == 2 else [(TOPIC, 1)]

    plan = FixedPlan({(TOPIC, 0): 5}, out_of_range=OutOfRange(options()), added=added)
    script = Script(2)
    stepped = Stepped(script, plan=plan)
    for _ in range(4):
        await asyncio.sleep(30)
        await stepped.turn(2)
    assert script.assigned == {(TOPIC, 0): 5, (TOPIC, 1): driver.OFFSET_BEGINNING}
    assert asked == [[(TOPIC, 0)], [(TOPIC, 0)], [(TOPIC, 0), (TOPIC, 1)], [(TOPIC, 0), (TOPIC, 1)]]
    assert "could not be asked for" in caplog.text
    assert len(stepped.subscription.stays) == 2
