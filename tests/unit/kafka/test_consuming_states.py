"""A member in any order of events: records, pulls, runs, outcomes, rebalances, losses, steps back, failed commits.

The model knows the logs and what was finished. After each step: no commit passes what was not finished, none goes back
within an epoch, every count is exact, nothing is out twice. At the end: everything that was published is finished.
"""

import asyncio

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headrace.core.delivery import ACK, RELEASE, Nak, Reject
from headrace.kafka.codes import Code
from headrace.testing.virtual import VirtualLoop
from tests.unit.kafka.consuming_script import EOF, TOPIC, Record, Script, Stepped, failed

PARTITIONS = (0, 1)
MOST = 12
SPAN = 8
FAILURES = [Code.REBALANCE_IN_PROGRESS, Code.REQUEST_TIMED_OUT, Code.ILLEGAL_GENERATION, Code.UNKNOWN_MEMBER_ID]


class Log:
    """One partition, as the brokers and the driver have it."""

    def __init__(self):
        self.offsets = []
        self.end = 0
        self.finished = set()
        """By anybody, ever."""
        self.fetch = None
        """Where the driver reads on; `None`: it is not ours."""
        self.stay = 0
        self.epoch = 1
        """The newest that something was handed out of, in this stay."""
        self.leader = 1


class Member(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.loop = VirtualLoop()
        self.logs = {number: Log() for number in PARTITIONS}
        self.held = []
        """(delivery, its stay, its epoch)"""
        self.late = 0
        self.last = {}
        self.looked_at = 0

    @initialize()
    def begin(self):
        async def make():
            return Stepped(Script(len(PARTITIONS)), max_in_flight=MOST, max_span=SPAN, commit_interval=1.0)

        self.stepped = self.run(make())
        self.script, self.subscription = self.stepped.script, self.stepped.subscription
        self.poller = self.stepped.poller
        commit = self.script.commit

        def committed(offsets, asynchronous):
            for each in offsets:
                self.look_at(each)
            return commit(offsets, asynchronous)

        self.script.commit = committed

    def run(self, work):
        asyncio.set_event_loop(self.loop)
        return self.loop.run_until_complete(work)

    def turn(self, count=1):
        self.run(self.stepped.turn(count))

    def look_at(self, place):
        """A commit, at the moment in which it is handed to the driver."""
        log, epoch = self.logs[place.partition], self.poller.stays[TOPIC, place.partition].epoch
        passed = [offset for offset in log.offsets if offset < place.offset and offset not in log.finished]
        assert not passed, f"{place.offset} is committed, not finished: {passed}"
        before = self.last.get(epoch, 0)
        assert place.offset >= before, f"{place.offset} after {before}"
        self.last[epoch] = place.offset

    def is_live(self, delivery, stay, epoch):
        log = self.logs[delivery.partition]
        return log.fetch is not None and (stay, epoch) == (log.stay, log.epoch)

    def live(self):
        return [each for each in self.held if self.is_live(*each)]

    # -- what the cluster does -----------------------------------------------------------------------------------------

    @rule(number=st.sampled_from(PARTITIONS), count=st.integers(1, 6), gap=st.integers(0, 2))
    def publish(self, number, count, gap):
        log = self.logs[number]
        log.end += gap  # what compaction and markers leave out
        log.offsets += range(log.end, log.end + count)
        log.end += count

    @rule(number=st.sampled_from(PARTITIONS), count=st.integers(1, 8), to_end=st.booleans())
    def deliver(self, number, count, to_end):
        log = self.logs[number]
        if log.fetch is None:
            return
        coming = [offset for offset in log.offsets if offset >= log.fetch][:count]
        self.script.arrive(*(Record(o, partition=number, key=b"%d" % (o % 3), leader=log.leader) for o in coming))
        if coming:
            log.fetch = coming[-1] + 1
        if to_end and not any(offset >= log.fetch for offset in log.offsets):
            log.fetch = log.end
            self.script.arrive(failed(EOF, partition=number, offset=log.end))
        self.turn()

    @rule(number=st.sampled_from(PARTITIONS), new_leader=st.booleans(), count=st.integers(0, 8))
    def go_back(self, number, new_leader, count):
        """The log is read again, from what is not finished or before."""
        log = self.logs[number]
        stay = self.poller.stays.get((TOPIC, number))
        if stay is None or log.fetch is None or not log.offsets:
            return
        log.leader += new_leader
        log.fetch = min(log.fetch, max(0, stay.unfinished_from()))
        if count:
            self.deliver(number, count, to_end=False)
            self.pull(10)

    @rule(number=st.sampled_from(PARTITIONS))
    def assign(self, number):
        log = self.logs[number]
        if log.fetch is None:
            self.script.give(number)
            self.turn()
            log.fetch = max(0, self.script.assigned[TOPIC, number])
            log.stay, log.epoch = log.stay + 1, 1

    @rule(number=st.sampled_from(PARTITIONS), lost=st.booleans(), waits=st.booleans())
    def take_away(self, number, lost, waits):
        log = self.logs[number]
        if log.fetch is None:
            return
        if waits and not lost:  # as the loop does while the thread waits
            self.poller.stays[TOPIC, number].epoch.sum_up()
        self.script.take_away(number, lost=lost)
        self.turn()
        log.fetch = None

    @rule(code=st.sampled_from([*FAILURES, None]))
    def refuse(self, code):
        self.script.refuse.append(code)

    @rule(seconds=st.sampled_from([0.1, 1.0, 3.0]))
    def time(self, seconds):
        self.run(asyncio.sleep(seconds))
        self.turn(2)

    # -- what a worker does --------------------------------------------------------------------------------------------

    @rule(limit=st.integers(1, 10))
    def pull(self, limit):
        found = self.run(self.subscription.pull(limit, 0.001))
        assert len(found) <= limit
        self.turn()  # pauses
        for delivery in found:
            log = self.logs[delivery.partition]
            assert delivery.offset in log.offsets
            epoch = delivery.attributes()["headrace.kafka.epoch"]
            log.epoch = max(log.epoch, epoch)
            self.held.append((delivery, log.stay, epoch))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def start(self, data):
        each = data.draw(st.sampled_from(self.held))
        assert each[0].start() is self.is_live(*each)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), outcome=st.sampled_from([ACK, ACK, ACK, Reject("no"), RELEASE, Nak(0.0), Nak(2.0)]))
    def settle(self, data, outcome):
        each = data.draw(st.sampled_from(self.held))
        self.held.remove(each)
        delivery = each[0]
        if outcome == ACK or isinstance(outcome, Reject):
            self.logs[delivery.partition].finished.add(delivery.offset)
        if not self.is_live(*each):
            self.late += 1

        async def settle():
            delivery.settle(outcome)

        self.run(settle())

    # -- what holds after each -----------------------------------------------------------------------------------------

    @invariant()
    def counts_are_exact(self):
        if not hasattr(self, "subscription"):
            return
        live = self.live()
        assert self.subscription._out == len(live) <= MOST
        for stay in self.subscription.stays:
            ours = [delivery for delivery, *_ in live if delivery.partition == stay.number]
            assert stay.held_bytes == sum(delivery.token.size for delivery in ours)
            assert {held.offset for held in stay.started} <= {
                delivery.offset for delivery, *_ in self.held if delivery.partition == stay.number
            }
        waiting = sum(len(run.records) - run.at for run in self.subscription._runs)
        assert self.poller._taken - self.poller.pulled == waiting
        assert self.subscription.late_settles == self.late
        assert self.poller.failure is None

    @invariant()
    def nothing_is_out_twice(self):
        out = [(delivery.partition, delivery.offset) for delivery, *_ in self.live()]
        assert len(out) == len(set(out))

    def teardown(self):
        if hasattr(self, "subscription"):
            self.finish()
        self.loop.close()

    def finish(self):
        """No more faults: everything that was published gets finished, and that is committed."""
        self.script.refuse.clear()
        for number in PARTITIONS:
            self.assign(number)
        for _ in range(200):
            for delivery, *each in list(self.held):
                self.held.remove((delivery, *each))
                if self.is_live(delivery, *each):
                    self.logs[delivery.partition].finished.add(delivery.offset)
                delivery.settle(ACK)
            self.late = self.subscription.late_settles
            for number in PARTITIONS:
                self.deliver(number, 8, to_end=False)
            self.pull(10)
            self.time(1.0)
            if all(set(log.offsets) <= log.finished for log in self.logs.values()) and not self.held:
                break
        for _ in range(3):
            self.time(1.0)
            self.pull(10)
        for number, log in self.logs.items():
            assert set(log.offsets) == log.finished, f"lost: {set(log.offsets) - log.finished}"
            if log.offsets:
                assert log.offsets[-1] < self.script.stored[TOPIC, number][0] <= log.end
        self.counts_are_exact()


TestMember = Member.TestCase
TestMember.settings = settings(
    max_examples=80,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
