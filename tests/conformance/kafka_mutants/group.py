"""A group over scripted consumers: one log, one coordinator's memory for all members, journals, and their judge.

A commit is taken from whoever is a member, as Kafka's coordinator does: it does not ask who owns the partition.
"""

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

from tests.faults.kafka.journal import Journal, judge
from tests.unit.kafka.consuming_script import TOPIC, Record, Script


class Group:
    """The log has `count` records in each partition, each of a key of its own."""

    def __init__(self, folder, partitions, count):
        self.folder = Path(folder)
        self.published = {
            part: {number: b"%d-%d" % (part, number) for number in range(count)} for part in range(partitions)
        }
        self.stored = {}
        self.journals = []
        self.strange = []
        """Commits of what was not its member's any more."""

    def member(self):
        """The driver's consumer of one more."""
        self.journals.append(Journal(self.folder / f"m{len(self.journals)}.journal"))
        return Recorded(self)

    def committed(self, partition=0):
        return self.stored[TOPIC, partition][0]

    def close(self):
        for journal in self.journals:
            os.close(journal._file)

    def kept(self, *, whole=False):
        """All that the judge knows of, so far."""
        verdict = judge(self.folder, self.published, {}, whole=whole)
        wrong = verdict.wrong + self.strange
        assert not wrong, "; ".join(wrong)
        return verdict

    def kept_to_the_end(self):
        """And everything was handled, and something of it committed."""
        verdict = self.kept(whole=True)
        assert verdict.commits > len(self.published), f"no commit but of where the group begins: {verdict}"


@contextmanager
def group(*, partitions=1, count=4):
    with tempfile.TemporaryDirectory() as folder:
        made = Group(folder, partitions, count)
        try:
            yield made
        finally:
            made.close()


class Recorded(Script):
    """A script that is fed from the group's log, and writes down what is assigned, committed and confirmed."""

    def __init__(self, group):
        super().__init__(len(group.published))
        self.stored = group.stored
        self.journal = group.journals[-1]
        self._group = group
        self._name = f"m{len(group.journals) - 1}"

    def incremental_assign(self, places):
        super().incremental_assign(places)
        for each in places:
            self.journal.write("B", each.partition, each.offset)
            keys = self._group.published[each.partition]
            self.arrive(*(Record(n, partition=each.partition, key=key) for n, key in keys.items() if n >= each.offset))

    def commit(self, offsets, asynchronous):
        for each in offsets:
            self.journal.write("C", each.partition, each.offset)
            if self._callbacks and (each.topic, each.partition) not in self.assigned:
                self._group.strange.append(f"{self._name} committed {each.offset} of {each.partition} after its revoke")
        answered = super().commit(offsets, asynchronous)
        for each in offsets:
            self.journal.write("A", each.partition, each.offset)
        return answered

    # -- what handlers do --------------------------------------------------------------------------------------------

    def begin(self, *deliveries):
        for delivery in deliveries:
            assert delivery.start()
            self.journal.write("S", delivery.partition, delivery.offset, delivery.message.key)

    def finish(self, *deliveries):
        for delivery in deliveries:
            self.journal.write("F", delivery.partition, delivery.offset, delivery.message.key)
            delivery.ack()
