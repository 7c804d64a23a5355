"""What partition mode promises of its checkpoints: one save at a time, in order. And savers that do not keep it."""

import asyncio
import tempfile
import threading
from contextlib import nullcontext

from headrace.kafka import stores
from headrace.kafka.consuming.checkpoints import Checkpoints
from headrace.kafka.stores import DirectoryOffsetStore
from headrace.testing.virtual import virtual_time
from tests.differential.mutants import instead
from tests.unit.kafka import test_consuming_checkpoints
from tests.unit.kafka.consuming_script import TOPIC
from tests.unit.kafka.test_consuming_checkpoints import Store, saving
from tests.unit.kafka.test_consuming_revoke import in_loop, until

PATIENCE = 1.0
"""Seconds in which a thread that waits for nobody has saved, on a machine that has much else to do."""


# --- checks --------------------------------------------------------------------------------------


class Slowing(Store):
    """Its first save takes longer than those behind it."""

    async def save(self, topic, partition, next_offset):
        self.delay = 0.1 if self.values or self.at_once else 3.0
        await super().save(topic, partition, next_offset)


@virtual_time
async def a_save_left_on_its_way_is_not_overtaken():
    """It lands after its caller was cancelled, and would leave the older value behind."""
    store = Slowing()
    async with saving(store) as (_, checkpoints, done):
        done(0)
        await asyncio.sleep(1.5)
        await checkpoints.stop()
        done(1)
        await checkpoints.confirm(20)
        await asyncio.sleep(20)
    assert store.values == [1, 2], f"saved in this order: {store.values}"


class Held(DirectoryOffsetStore):
    """What it is asked first waits in its thread, for something else to be done before."""

    def __init__(self, path):
        super().__init__(path)
        self.asked = threading.Event()
        self.done = []
        self._passed = threading.Event()

    def _do(self, work):
        if not self.asked.is_set():
            self.asked.set()
            self._passed.wait(PATIENCE)
        found = super()._do(work)
        self.done.append(found)
        self._passed.set()
        return found


@in_loop
async def a_cancelled_save_undoes_no_later_one():
    """The directory's store: its thread is still at work for a caller that is gone."""
    with tempfile.TemporaryDirectory() as folder:
        store = Held(folder)
        first = asyncio.create_task(store.save(TOPIC, 0, 1))
        await until(store.asked.is_set)
        first.cancel()
        await store.save(TOPIC, 0, 2)
        await until(lambda: len(store.done) == 2)
        found = await store.load(TOPIC, 0)
        await store.aclose()
    assert found == 2, f"{found} is kept, and 2 was saved last"


# --- mutants -------------------------------------------------------------------------------------


def without_a_turn(original):
    def init(self, *arguments):
        original(self, *arguments)
        self._turn = nullcontext()

    return init


def not_waited_for(_):
    async def landed(self):
        pass

    return landed


def one_thread_more(original):
    return lambda count, **further: original(count + 1, **further)


MUTANTS = {
    "save out of order": {
        "several saves at once": (
            instead(Checkpoints, "__init__", without_a_turn),
            test_consuming_checkpoints.test_save_monotonic_single_flight,
            r"\[3, 5, 5, 5\] == \[3, 5\]",
        ),
        "a save beside one that was cancelled": (
            instead(Checkpoints, "_landed", not_waited_for),
            test_consuming_checkpoints.test_save_that_is_cancelled_is_still_the_only_one,
            r"2 == 1\n.*most_at_once",
        ),
        "a save overtakes one that was cancelled": (
            instead(Checkpoints, "_landed", not_waited_for),
            a_save_left_on_its_way_is_not_overtaken,
            r"in this order: \[2, 1\]",
        ),
        "a store's thread overtakes the other": (
            instead(stores, "ThreadPoolExecutor", one_thread_more),
            a_cancelled_save_undoes_no_later_one,
            r"1 is kept, and 2 was saved last",
        ),
    },
}
