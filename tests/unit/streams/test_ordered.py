"""Ordered reading: everything once, whatever happens to the engine's consumers."""

import asyncio

import pytest

from headrace.core.errors import UnsupportedError
from headrace.streams.config import AckPolicy, DeliverPolicy, OrderedConsumerConfig, PullOptions
from headrace.streams.errors import (
    ConsumerDeletedError,
    ConsumerNotFoundError,
    OrderedConsumerBusyError,
    OrderedConsumerNotCreatedError,
    OrderedConsumerResetError,
    StreamNotFoundError,
    TemporarilyUnavailableError,
)
from headrace.streams.ordered import OrderedConsumer
from headrace.testing.virtual import virtual_time
from tests.unit.streams.scripted import ScriptedConsumer


class Engine:
    """A stream of so many messages; makes scripted consumers of it."""

    def __init__(self, messages):
        self.messages = messages
        self.made = []
        self.deleted = []
        self.failures = []

    async def create(self, config):
        if self.failures:
            raise self.failures.pop(0)
        first = config.start_sequence or 1
        if config.deliver_policy is DeliverPolicy.NEW:
            first = self.messages + 1
        consumer = ScriptedConsumer(config, start=first - 1, available=self.messages - first + 1, name=config.name)
        self.made.append(consumer)
        return consumer

    async def delete(self, name):
        self.deleted.append(name)
        raise ConsumerNotFoundError

    def ordered(self, **config):
        return OrderedConsumer("S", OrderedConsumerConfig(**config), self.create, self.delete)


async def tokens(batch):
    return [msg.token for msg in await batch]


@virtual_time
async def test_reads_go_on_where_the_last_ended():
    engine = Engine(9)
    consumer = engine.ordered(name_prefix="p")
    assert await tokens(consumer.fetch(2)) == [1, 2]
    assert (await consumer.next()).token == 3
    messages = consumer.messages(PullOptions(stop_after=2))
    assert [msg.token async for msg in messages] == [4, 5]
    await messages.wait_closed()
    seen = []
    await consumer.consume(lambda msg: seen.append(msg.token), PullOptions(stop_after=3)).wait_closed()
    assert seen == [6, 7, 8]
    assert await tokens(consumer.fetch(1)) == [9]


@virtual_time
async def test_a_whole_fetch_keeps_the_engines_consumer():
    engine = Engine(9)
    consumer = engine.ordered()
    await consumer.fetch(2)
    await consumer.fetch(2)
    assert len(engine.made) == 1


@virtual_time
async def test_the_engines_consumer_is_as_documented():
    engine = Engine(1)
    consumer = engine.ordered(filter_subjects=["a"], headers_only=True, name_prefix="p")
    with pytest.raises(OrderedConsumerNotCreatedError):
        await consumer.info()
    await consumer.next()
    config = engine.made[0].config
    assert (config.name, config.ack_policy, config.memory_storage, config.replicas) == ("p_1", AckPolicy.NONE, True, 1)
    assert (config.filter_subject, config.headers_only, config.inactive_threshold.seconds) == ("a", True, 300)
    assert (await consumer.info()).name == consumer.name == "p_1"


@virtual_time
async def test_a_deleted_consumer_is_made_anew_behind_the_cursor():
    engine = Engine(4)
    consumer = engine.ordered(name_prefix="p")
    messages = consumer.messages(PullOptions(stop_after=4, max_messages=1))
    assert (await messages.next()).token == 1
    assert (await messages.next()).token == 2
    engine.made[0].queue.appendleft(ConsumerDeletedError())
    assert [msg.token async for msg in messages] == [3, 4]
    assert engine.made[1].config.start_sequence == 3
    assert consumer.cached_info.name == "p_2"
    await messages.wait_closed()
    await asyncio.sleep(0.01)
    assert engine.deleted[:1] == ["p_1"]


@virtual_time
async def test_new_means_new_since_the_first_creation():
    engine = Engine(0)
    consumer = engine.ordered(deliver_policy=DeliverPolicy.NEW)
    messages = consumer.messages()
    waiter = asyncio.create_task(messages.next())
    await asyncio.sleep(1)
    engine.messages = 2
    engine.made[0].add(ConsumerDeletedError())
    assert (await waiter).token == 1
    assert engine.made[1].config.start_sequence == 1
    messages.stop()
    await messages.wait_closed()


@virtual_time
async def test_one_session_at_a_time():
    consumer = Engine(1).ordered()
    messages = consumer.messages()
    with pytest.raises(OrderedConsumerBusyError):
        consumer.messages()
    with pytest.raises(OrderedConsumerBusyError):
        await consumer.next()
    messages.stop()
    await messages.wait_closed()
    assert (await consumer.next()).token == 1


@virtual_time
async def test_failures_to_make_it_are_repeated_with_growing_waits():
    engine = Engine(1)
    engine.failures = [TemporarilyUnavailableError() for _ in range(3)]
    errors = []
    consumer = engine.ordered()
    async with consumer.messages(error_handler=lambda _, error: errors.append(error)) as messages:
        assert (await messages.next()).token == 1
    assert asyncio.get_running_loop().time() == pytest.approx(7, abs=0.1)
    assert [type(error) for error in errors] == [OrderedConsumerResetError] * 3


@virtual_time
async def test_the_last_failure_is_terminal():
    engine = Engine(1)
    engine.failures = [TemporarilyUnavailableError() for _ in range(5)]
    consumer = engine.ordered(max_reset_attempts=2)
    messages = consumer.messages(error_handler=lambda *_: None)
    with pytest.raises(OrderedConsumerResetError, match="try 2"):
        await messages.next()
    with pytest.raises(OrderedConsumerResetError):
        await messages.wait_closed()


@virtual_time
async def test_a_missing_stream_is_terminal_at_once():
    engine = Engine(1)
    engine.failures = [StreamNotFoundError()]
    with pytest.raises(StreamNotFoundError):
        await engine.ordered().next()


@virtual_time
async def test_settling_is_a_mark_and_pausing_is_not_there():
    consumer = Engine(1).ordered()
    msg = await consumer.next()
    await msg.ack()
    assert msg.settled
    with pytest.raises(UnsupportedError):
        await consumer.resume()


@virtual_time
async def test_last_per_subject_without_a_filter_reads_everything():
    engine = Engine(3)
    consumer = engine.ordered(deliver_policy=DeliverPolicy.LAST_PER_SUBJECT)
    await consumer.fetch(1)
    consumer.drop()
    assert await tokens(consumer.fetch(2)) == [2, 3]
    assert [made.config.deliver_policy for made in engine.made] == [DeliverPolicy.LAST_PER_SUBJECT] * 2
    assert engine.made[0].config.filter_subject == ">"
    consumer.drop()
    engine.messages = 4
    assert await tokens(consumer.fetch(1)) == [4]
    assert engine.made[2].config.start_sequence == 4


@virtual_time
async def test_what_drain_found_and_nobody_took_is_read_by_the_next():
    engine = Engine(5)
    consumer = engine.ordered()
    async with consumer.messages() as messages:
        assert (await messages.next()).token == 1
        await messages.drain()
    assert await tokens(consumer.fetch(4)) == [2, 3, 4, 5]


@pytest.mark.parametrize("asked", [3, 5])
@virtual_time
async def test_what_a_fetch_gives_back_is_read_by_the_next(asked):
    engine = Engine(5)
    consumer = engine.ordered()
    async with consumer.fetch(asked) as batch:
        assert (await anext(batch)).token == 1
    assert await tokens(consumer.fetch(4)) == [2, 3, 4, 5]
