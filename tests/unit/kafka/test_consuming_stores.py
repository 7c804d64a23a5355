"""What a store of the user's may do, and what is kept in it when the log itself goes back."""

import asyncio

import pytest

from headrace.core.errors import ClosedError, StoreError
from headrace.flow.retry import RetryPolicy
from headrace.kafka.consuming.checkpoints import Checkpoints
from headrace.kafka.consuming.partition import Partition
from headrace.kafka.reading import KafkaPartitionOptions
from headrace.testing.virtual import virtual_time
from tests.unit.kafka.consuming_script import TOPIC, reading
from tests.unit.kafka.test_consuming_checkpoints import QUICK, Store, finish, saving


class PoolError(Exception):
    """As a database's own library raises: headrace does not know it."""


def checkpoints_of(store):
    options = KafkaPartitionOptions(partition=0, offset_store=store, reconnect=QUICK)
    return Checkpoints(reading(options), TOPIC, options)


def goes_back(stay, end, *offsets):
    """The log was cut at `end`; these records stand there now, and are handled."""
    stay.goes_on(end, 0)
    if offsets:
        finish(stay, *offsets)


@virtual_time
async def test_a_checkpoint_follows_a_log_that_was_cut():
    """Else a run that begins once the log has grown past the old place would leave out what came between."""
    store = Store()
    async with saving(store) as (subscription, checkpoints, done):
        done(*range(20))
        await checkpoints.confirm(5)
        goes_back(subscription.stays[0], 15, 15, 16)
        await checkpoints.confirm(5)
        assert store.values == [20, 17]
        await checkpoints.confirm(5)
        finish(subscription.stays[0], 17)
        await checkpoints.confirm(5)
    assert store.values == [20, 17, 18]


@virtual_time
async def test_a_checkpoint_follows_a_log_that_was_cut_while_nobody_read():
    store = Store()
    async with saving(store) as (subscription, checkpoints, done):
        done(*range(20))
        await checkpoints.confirm(5)
        subscription.stays[:] = [Partition(TOPIC, 0, 20)]  # it began anew there
        goes_back(subscription.stays[0], 15)
        await checkpoints.confirm(5)
    assert store.values == [20, 15]


@virtual_time
async def test_a_stay_that_begins_again_below_what_was_saved_takes_nothing_back():
    """The log is whole: what was saved is finished."""
    store = Store()
    async with saving(store) as (subscription, checkpoints, done):
        done(*range(20))
        await checkpoints.confirm(5)
        subscription.stays[:] = [Partition(TOPIC, 0, 10)]
        finish(subscription.stays[0], 10, 11)
        await checkpoints.confirm(5)
    assert store.values == [20]


@virtual_time
async def test_what_a_store_raises_of_its_own_is_tried_again():
    store = Store(saved=7)
    store.errors = [PoolError("exhausted"), RuntimeError("closed by the pool")]
    assert await checkpoints_of(store).load() == 7
    async with saving(store) as (_, checkpoints, done):
        store.errors = [PoolError("exhausted"), TypeError("a connection that has gone")]
        done(0, 1)
        await checkpoints.confirm(5)
    assert store.values == [2]


@virtual_time
async def test_a_call_that_is_cancelled_inside_of_a_store_is_tried_again():
    """As a pool does that closes: nobody here cancelled anything, and the task that saves must live on."""
    store = Store(saved=7)
    store.errors = [asyncio.CancelledError()]
    assert await checkpoints_of(store).load() == 7
    async with saving(store) as (_, _, done):
        store.errors = [asyncio.CancelledError()]
        done(0, 1)
        await asyncio.sleep(5)
        assert store.values == [2]
        done(2)
        await asyncio.sleep(5)
    assert store.values == [2, 3]


@pytest.mark.parametrize("error", [StoreError("damaged"), ClosedError("the store was closed")])
@virtual_time
async def test_what_a_store_says_is_final_is_not_tried_again(error):
    store = Store()
    store.errors = [error]
    with pytest.raises(type(error)):
        await checkpoints_of(store).load()
    async with saving(store) as (_, checkpoints, done):
        store.errors = [error]
        done(0)
        with pytest.raises(type(error)):
            await checkpoints.confirm(5)


@pytest.mark.parametrize("answer", [-1, -1001, "7", 7.0, True])
@virtual_time
async def test_an_answer_that_is_no_offset_is_refused(answer):
    """To the driver -1 is the end of the log: it would jump there without a word."""
    with pytest.raises(StoreError, match="gave"):
        await checkpoints_of(Store(saved=answer)).load()


@virtual_time
async def test_waits_are_spread_as_told():
    loop, waits = asyncio.get_running_loop(), set()
    for _ in range(20):
        began = loop.time()
        await Checkpoints.rest(RetryPolicy(initial=8.0, maximum=8.0, jitter=0.5), 1)
        waits.add(loop.time() - began)
    assert len(waits) > 1
    assert min(waits) >= 4
    assert max(waits) <= 8
