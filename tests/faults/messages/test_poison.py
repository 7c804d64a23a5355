"""One message that never succeeds, and a dead-letter topic that is down for a while: the others do not notice."""

import asyncio

from headrace.core.delivery import Delivery
from headrace.core.errors import RejectError
from headrace.flow import DeadLetter, RetryPolicy, Worker
from headrace.testing.faulty import Faulty
from headrace.testing.idle import run_until_idle
from headrace.testing.virtual import virtual_time
from tests.faults.messages.shop import GROUP, TOPIC, Ledger, opened, orders

KEYS = 1_000


def recorded(ledger, fails):
    async def handle(delivery: Delivery):
        ledger.begin(delivery)
        done = False
        try:
            await asyncio.sleep(0.01)
            error = fails(delivery)
            if error is not None:
                raise error
            done = True
        finally:
            ledger.end(delivery, done=done)

    return handle


@virtual_time
async def test_a_poison_key_beside_999_good_ones():
    """Its own followers wait for it, in order; everybody else is done as if it was not there."""
    ledger, cured = Ledger(), asyncio.Event()

    def fails(delivery):
        poison = delivery.message.key == b"k13" and not cured.is_set()
        return ValueError("poison") if poison else None

    async with opened() as broker:
        await broker.publish_batch(orders(3 * KEYS, KEYS))
        retry = RetryPolicy(initial=1.0, maximum=10.0, jitter=0)
        async with Worker(broker, TOPIC, recorded(ledger, fails), group=GROUP, retry=retry) as worker:
            good = {number for number in range(3 * KEYS) if number % KEYS != 13}
            async with asyncio.timeout(60):
                while ledger.done.keys() < good:
                    await asyncio.sleep(0.1)
            await asyncio.sleep(120)
            assert ledger.done.keys() == good
            assert all(ledger.begun[number] == 1 for number in good), "somebody else was run again"
            assert ledger.begun[13] > 10, "it is tried on and on"
            assert ledger.begun[KEYS + 13] == ledger.begun[2 * KEYS + 13] == 0, "its followers wait"
            cured.set()
            async with asyncio.timeout(60):
                await worker.idle()
        assert ledger.done.keys() == set(range(3 * KEYS))
        assert not ledger.wrong, ledger.wrong[:5]


@virtual_time
async def test_a_dead_topic_that_is_down_and_up_again():
    """The letter is published again until it is stored, once; the handler is not run again for it."""
    ledger, down = Ledger(), 25

    def fails(delivery):
        return RejectError("no") if int(delivery.message.body) % 10 == 4 else None

    async with opened() as broker:
        dead = Faulty(broker)
        dead.fail("publish", *range(1, down + 1))
        await broker.publish_batch(orders(50, 5))
        worker = Worker(broker, TOPIC, recorded(ledger, fails), group=GROUP, on_exhausted=DeadLetter(broker=dead))
        await run_until_idle(worker)
        rejected = [number for number in range(50) if number % 10 == 4]
        assert dead.calls["publish"] == down + len(rejected), "each failed publish was made up for, none done twice"
        assert [ledger.begun[number] for number in rejected] == [1] * len(rejected)
        assert ledger.done.keys() | set(rejected) == set(range(50))
        letters = await (await broker.streams.stream("dead")).read(limit=100)
        assert sorted(int(each.data) for each in letters) == rejected
        info = await (await broker.streams.consumer(TOPIC, f"{GROUP}@{TOPIC}")).info()
        assert (info.num_pending, info.num_ack_pending) == (0, 0)
        assert not ledger.wrong, ledger.wrong[:5]
