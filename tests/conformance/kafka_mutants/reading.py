"""What members of a group promise of their commits and of a revoke, as checks; and engines that do not keep it."""

import asyncio

from headrace.kafka.consuming.commits import Commits
from headrace.kafka.consuming.partition import Epoch, Partition
from headrace.kafka.consuming.plans import GroupPlan
from headrace.kafka.consuming.poller import Poller
from headrace.kafka.consuming.subscription import KafkaSubscription
from headrace.kafka.tracker import OffsetTracker
from headrace.testing.virtual import virtual_time
from tests.conformance.kafka_mutants.group import group
from tests.differential.mutants import instead, nothing
from tests.unit.kafka import test_consuming_commits, test_consuming_revoke, test_tracker
from tests.unit.kafka.consuming_script import Stepped, member, pulled
from tests.unit.kafka.test_consuming_revoke import LONG, in_loop, until

INTERVAL = 1.0
PATIENCE = 2.0
"""Seconds in which a revoke that waits for nobody is over, on a machine that has much else to do."""


# --- checks --------------------------------------------------------------------------------------


@virtual_time
async def a_commit_covers_what_is_finished():
    """The second of four ends first: nothing to commit. Then the first: two, whoever asks, and not the fourth."""
    with group() as made:
        stepped, (first, second, third, fourth) = await holding(made.member())
        script = stepped.script
        script.begin(first, second, third, fourth)
        script.finish(second)
        await an_interval(stepped)
        script.finish(first, fourth)
        await an_interval(stepped)
        await flushed(stepped)
        script.take_away(0)
        await stepped.turn()
        made.kept()
        assert made.committed() == 2


@virtual_time
async def nothing_is_committed_after_a_revoke():
    """One leaves while it runs the second record; the next is far ahead when that ends, and nothing goes back."""
    with group() as made:
        left, (first, second, *_) = await holding(made.member())
        left.script.begin(first, second)
        left.script.finish(first)
        left.script.take_away(0)
        await left.turn()
        left.script.finish(second)
        ahead, rest = await holding(made.member())
        ahead.script.begin(*rest)
        ahead.script.finish(*rest)
        await an_interval(ahead)
        await an_interval(left)
        ahead.script.take_away(0)
        await ahead.turn()
        last, again = await holding(made.member())
        last.script.begin(*again)
        made.kept_to_the_end()


@virtual_time
async def nothing_is_committed_before_the_end_is_heard_of():
    """The thread has answered the revoke, and the loop does not know of it yet: what ends now still counts there."""
    with group() as made:
        left, (first, second, *_) = await holding(made.member())
        left.script.begin(first, second)
        left.script.finish(first)
        left.script.take_away(0)
        left.poller._turn(left.script)
        left.script.finish(second)
        left.poller.commits._next = left.poller.now()  # another interval is over
        left.poller._turn(left.script)
        made.kept()
        assert made.committed() == 1


@in_loop
async def a_revoke_waits_for_what_runs():
    """Of both partitions that go: one run ends at once, the other when nobody else may have begun the same record."""
    with group(partitions=2, count=2) as made:
        giving, taking = made.member(), made.member()
        async with member(giving, drain_timeout=LONG) as giver, member(taking) as taker:
            giving.give(0, 1)
            short, long = (one for one in await pulled(giver, 4) if not one.offset)
            giving.begin(short, long)
            stays = list(giver.stays)
            giving.take_away(0, 1)
            await until(lambda: not any(stay.live for stay in stays))
            giving.finish(short)
            worked_off = asyncio.create_task(work_off(giving, taking, taker))
            await asyncio.wait([worked_off], timeout=PATIENCE)
            giving.finish(long)
            await worked_off
        made.kept_to_the_end()


async def holding(script):
    """Who is given the log and moves when it is told to; and what of it there is to do."""
    stepped = Stepped(script, commit_interval=INTERVAL)
    script.give(0)
    await stepped.turn(2)
    return stepped, await stepped.subscription.pull(10, 1)


async def an_interval(stepped):
    await asyncio.sleep(INTERVAL)
    await stepped.turn(2)


async def flushed(stepped):
    flushing = asyncio.create_task(stepped.subscription.flush())
    await asyncio.sleep(0)
    await stepped.turn()
    await flushing


async def work_off(giving, taking, subscription):
    """As the coordinator does it: what one has let go is the other's, who does all of it."""
    await until(lambda: not giving.assigned)
    taking.give(0, 1)
    await until(lambda: len(subscription.stays) == 2)
    while any(stay.position < 2 for stay in subscription.stays):
        found = await subscription.pull(4, 1)
        taking.begin(*found)
        taking.finish(*found)


# --- mutants -------------------------------------------------------------------------------------


def committing(which):
    """A tracker that tells the highest one in place of the run from the first on, and of nothing beyond."""

    def mutate(patch):
        patch.setattr(OffsetTracker, "committable", property(which))
        patch.setattr(OffsetTracker, "ahead", property(lambda self: []))

    return mutate


def highest_finished(tracker):
    """All before the oldest unfinished one are swept."""
    finished = [offset for offset in tracker._order if offset not in tracker._unfinished]
    last = finished[-1] if finished else tracker._swept
    return None if last is None else last + 1


def highest_handed_out(tracker):
    return None if tracker.begun is None else tracker.begun + 1


def highest_in_the_end(original):
    def sum_up(self):
        original(self)
        ahead = self.tracker.ahead
        if self.last is not None and ahead:
            self.last = ahead[-1] + 1, ""

    return sum_up


def told_only(_):
    """The thread does not know that they are gone."""
    return lambda self, stays, *, lost: self.tell(lambda: self.listener.gone(stays, lost=lost))


def the_stay_lives_on(patch):
    """Nothing of what ends a stay is done: it is still asked what has grown, and what is settled in it counts."""
    instead(Poller, "drop", told_only)(patch)
    patch.setattr(Partition, "ended", lambda self: setattr(self, "live", False))


def the_last_commit_comes_later(patch):
    """The revoke is answered, and what it was to confirm is sent with the next interval."""
    kept = []
    due = Commits.send_due

    def send_due(self, consumer, *, grouped):
        for commits, offsets in list(kept):
            if commits is self:
                kept.remove((commits, offsets))
                consumer.commit(offsets=offsets, asynchronous=True)
        due(self, consumer, grouped=grouped)

    patch.setattr(Commits, "wait", lambda self, consumer, stays: kept.append((self, self._last(stays))))
    patch.setattr(Commits, "send_due", send_due)


def lost_is_revoked(original):
    def lost(self, consumer, given):
        self._poller.commits.wait(consumer, self._stays_of(given))
        original(self, consumer, given)

    return lost


def quiet_at_once(original):
    def revoking(self, stays, quiet):
        original(self, stays, quiet)
        quiet()

    return revoking


def quiet_with_the_first(original):
    def revoking(self, stays, quiet):
        original(self, stays, quiet)
        for stay in stays:
            if stay.on_quiet is not None:
                stay.on_quiet = quiet

    return revoking


def runs_unnoted(original):
    def start(self, delivery):
        begun = original(self, delivery)
        delivery.token.epoch.partition.started.discard(delivery.token)
        return begun

    return start


EARLY = r"m0 committed [234] of 0 while [02] was not done"
AFTERWARDS = r"m0 committed 2 of 0 after its revoke"
BACK = r"m2 began [12] of 0 below the commit 4"
TWICE = r"key b'1-0' twice at once: \('m0', 1, 0\) and \('m1', 1, 0\)"

MUTANTS = {
    "commit highest seen": {
        "the finished one": (committing(highest_finished), a_commit_covers_what_is_finished, EARLY),
        "the one handed out": (committing(highest_handed_out), a_commit_covers_what_is_finished, EARLY),
        "the finished one, at a flush": (
            instead(Epoch, "sum_up", highest_in_the_end),
            a_commit_covers_what_is_finished,
            EARLY,
        ),
        "the finished one, each interval": (
            committing(highest_finished),
            test_consuming_commits.test_sent_only_when_it_grew_and_once_an_interval,
            r"\[\(0, 2\)\] == \[\]",
        ),
        "the finished one, the vector": (
            committing(highest_finished),
            test_tracker.test_nothing_is_committable_before_the_first_is_finished,
            r"12 is None",
        ),
    },
    "commit after revoke": {
        "the stay lives on": (the_stay_lives_on, nothing_is_committed_after_a_revoke, BACK),
        "until the loop has heard of it": (
            instead(Poller, "drop", told_only),
            nothing_is_committed_before_the_end_is_heard_of,
            AFTERWARDS,
        ),
        "the last one is sent later": (the_last_commit_comes_later, nothing_is_committed_after_a_revoke, BACK),
        "of what is lost": (
            instead(GroupPlan, "_lost", lost_is_revoked),
            test_consuming_revoke.test_lost_partition_is_neither_waited_for_nor_committed,
            r"not \[\(0, 1, '', False\)\]",
        ),
    },
    "revoke that does not wait": {
        "for nobody": (instead(GroupPlan, "_await", nothing), a_revoke_waits_for_what_runs, TWICE),
        "told at once that all is quiet": (
            instead(KafkaSubscription, "revoking", quiet_at_once),
            a_revoke_waits_for_what_runs,
            TWICE,
        ),
        "for the first partition only": (
            instead(KafkaSubscription, "revoking", quiet_with_the_first),
            a_revoke_waits_for_what_runs,
            TWICE,
        ),
        "for runs that it does not know of": (
            instead(KafkaSubscription, "start", runs_unnoted),
            a_revoke_waits_for_what_runs,
            TWICE,
        ),
    },
}
