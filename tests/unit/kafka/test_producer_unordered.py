"""Ordering.NONE of a Producer, on librdkafka's mock cluster: nobody waits for anybody, everybody has one result."""

import asyncio
import itertools
from contextlib import asynccontextmanager

import pytest

from headrace.core.errors import Fault, PublishError
from headrace.core.message import Message
from headrace.flow.judge import FailureStage
from headrace.flow.keyed import Ordering
from headrace.flow.retry import RetryPolicy
from headrace.kafka import KafkaBroker, ProduceBatchError, Producer, ProduceResult
from headrace.testing.kafka.mock import KafkaMock

PATIENCE = 30


@asynccontextmanager
async def producing(ordering=Ordering.NONE, **settings):
    """A producer that has stored one message, at offset 0: what is waited for in the tests is nobody's beginning."""
    with KafkaMock(1) as mock:
        mock.create_topic("orders", 1)
        async with Producer(KafkaBroker(mock.bootstrap, create=False), ordering=ordering, **settings) as producer:
            try:
                await producer.produce(Message(topic="orders", key=b"first", body=b"first"))
                yield producer
            finally:
                await producer.aclose(flush=False)


def run(story):
    asyncio.run(asyncio.wait_for(story, PATIENCE))


def message(number=0, key=b"k"):
    return Message(topic="orders", key=key, body=b"%d" % number)


class Held:
    """A middleware that holds the messages with these bodies until `go`."""

    def __init__(self, *bodies):
        self.bodies = bodies
        self.go = asyncio.Event()
        self.inside = 0
        self.most = 0

    async def __call__(self, item, call_next):
        self.inside += 1
        self.most = max(self.most, self.inside)
        if item.body in self.bodies:
            await self.go.wait()
        self.inside -= 1
        return await call_next(item)


@pytest.mark.parametrize(
    ("ordering", "offsets"), [(Ordering.NONE, [3, 1, 2]), (Ordering.KEY, [1, 2, 3]), (Ordering.TOTAL, [1, 2, 3])]
)
def test_the_next_one_of_a_key_overtakes(ordering, offsets):
    """Only with NONE; with the others it stands behind the one that is held, until that one goes on."""

    async def story():
        held = Held(b"0")
        async with producing(ordering, middleware=[held]) as producer:
            futures = [await producer.produce_async(message(number)) for number in range(3)]
            if ordering is Ordering.NONE:
                await asyncio.wait(futures[1:])
                assert not futures[0].done()
            else:
                done, _ = await asyncio.wait(futures, timeout=0.3)
                assert not done
            held.go.set()
            assert [(await future).offset for future in futures] == offsets

    run(story())


def test_a_report_is_in_the_order_of_the_call_whoever_overtook():
    async def story():
        held = Held(b"0", b"2")
        async with producing(middleware=[held]) as producer:
            many = asyncio.ensure_future(producer.produce_many([message(number) for number in range(5)]))
            while (await producer.produce(message(9))).offset < 4:  # until the three free ones are stored
                await asyncio.sleep(0.01)
            assert not many.done()
            held.go.set()
            results = await many
            bodies = {results[number].offset: number for number in range(5)}
            assert [bodies[offset] for offset in sorted(bodies)][:3] == [1, 3, 4]
            assert len(bodies) == 5

    run(story())


def test_every_way_of_sending_has_one_result_each():
    async def story():
        seen = itertools.count()

        async def shuffling(item, call_next):
            for _ in range(next(seen) * 7 % 5):
                await asyncio.sleep(0)
            return await call_next(item)

        for middleware in ([], [shuffling]):
            async with producing(middleware=middleware, max_outstanding=20) as producer:
                keys = (b"a", b"b", None)
                given = [message(number, keys[number % 3]) for number in range(120)]
                calls = [asyncio.ensure_future(producer.produce_many(given[first : first + 30])) for first in (0, 30)]
                futures = [await producer.produce_async(one) for one in given[60:90]]
                calls += [asyncio.ensure_future(producer.produce(one)) for one in given[90:]]
                results = [*itertools.chain(*await asyncio.gather(*calls[:2])), *await asyncio.gather(*futures)]
                results += await asyncio.gather(*calls[2:])
                assert all(isinstance(result, ProduceResult) for result in results)
                assert sorted(result.offset for result in results) == list(range(1, 121))

    run(story())


def test_no_more_than_its_places_are_on_their_way():
    async def story():
        held = Held(*(b"%d" % number for number in range(20)))
        async with producing(middleware=[held], max_outstanding=4) as producer:
            many = asyncio.ensure_future(producer.produce_many([message(number) for number in range(20)]))
            while held.most < 4:
                await asyncio.sleep(0)
            await asyncio.sleep(0.1)
            assert (held.most, held.inside) == (4, 4)  # four of one key at once, and no fifth
            held.go.set()
            assert len({result.offset for result in await many}) == 20

    run(story())


def test_one_in_backoff_holds_nobody_and_a_bad_one_fails_alone():
    async def story():
        events, tries = [], itertools.count(1)

        async def failing(item, call_next):
            if item.body == b"bad" or (item.body == b"1" and next(tries) < 3):
                raise RuntimeError("not this time")
            return await call_next(item)

        retry = RetryPolicy(max_attempts=3, initial=0.2, maximum=0.2, jitter=0)
        async with producing(middleware=[failing], retry=retry, on_failure=events.append) as producer:
            bad = Message(topic="orders", key=b"k", body=b"bad")
            results = await producer.produce_many([message(0), message(1), bad, message(2), message(3)])
            places = [result.offset if isinstance(result, ProduceResult) else result.fault for result in results]
            assert places == [1, 4, Fault.REJECTED, 2, 3]  # 2 and 3 went ahead of the two that were tried again
            assert results[1].attempt == 3
            stages = [event.stage for event in events if event.message.id == bad.id]
            assert stages == [FailureStage.RETRY] * 3 + [FailureStage.EXHAUSTED, FailureStage.STOP]

    run(story())


def test_a_batch_still_goes_one_after_another():
    async def story():
        async def failing(item, call_next):
            await asyncio.sleep(0.05 if item.body == b"0" else 0)
            if item.body == b"2":
                raise RuntimeError("no")
            return await call_next(item)

        async with producing(middleware=[failing]) as producer:
            with pytest.raises(ProduceBatchError, match="produce batch index 2: ") as raised:
                await producer.produce_batch([message(number) for number in range(5)])
            assert [result.offset for result in raised.value.results] == [1, 2]
            assert (await producer.produce(message(9))).offset == 3  # nothing behind the failure was handed over

    run(story())


def test_a_close_waits_for_all_of_a_key():
    async def story():
        held = Held(b"0", b"1")
        async with producing(middleware=[held]) as producer:
            futures = [await producer.produce_async(message(number)) for number in range(3)]
            asyncio.get_running_loop().call_later(0.2, held.go.set)
            await producer.aclose(timeout=10)
            results = [future.exception() or future.result() for future in futures]
            assert not [result for result in results if isinstance(result, PublishError)]
            assert sorted(result.offset for result in results) == [1, 2, 3]

    run(story())
