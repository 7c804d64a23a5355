"""The end of a worker, also where the engine does not answer and where it is cancelled at any await (3.6.3-3.6.5)."""

import asyncio
import os
import signal
from contextlib import asynccontextmanager, suppress

import pytest

from headrace.connect import connect
from headrace.core.delivery import ACK, RELEASE, Delivery
from headrace.core.errors import HandlerError
from headrace.flow import STOP, RetryPolicy, Topic, Worker
from headrace.testing.idle import run_until_idle
from headrace.testing.recording import RecordingHandler
from headrace.testing.virtual import virtual_time
from tests.unit.flow.scripted import ScriptedBroker
from tests.unit.flow.tools import now, steps


async def fill(broker, count, key=None):
    for number in range(count):
        await Topic(broker, "orders").send(b"%d" % number, key=key)


async def sleeps(_):
    await asyncio.sleep(1_000)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@virtual_time
async def test_a_second_signal_stops_now(number):
    broker = ScriptedBroker()
    await fill(broker, 2, key="k")
    worker = Worker(broker, "orders", RecordingHandler(then=sleeps), group="g")
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(1)
    os.kill(os.getpid(), number)
    await asyncio.sleep(5)
    assert not running.done()
    os.kill(os.getpid(), number)
    with pytest.raises(TimeoutError):
        await running
    assert now() == 6
    assert broker.subscriptions[0].log == ["stop", "Release 0", "Release 1", "flush"]


@virtual_time
async def test_one_signal_is_late_after_30_seconds():
    broker = ScriptedBroker()
    await fill(broker, 1)
    worker = Worker(broker, "orders", RecordingHandler(then=sleeps), group="g")
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(TimeoutError):
        await running
    assert now() == 31


@virtual_time
async def test_two_workers_one_signal():
    broker = ScriptedBroker()
    await fill(broker, 1)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    ends = []

    async def run(seconds):
        async def handler(delivery: Delivery) -> None:
            await asyncio.sleep(seconds)

        await Worker(broker, "orders", handler, group=f"g{seconds}").run()
        ends.append((seconds, now()))
        installed = signal.getsignal(signal.SIGTERM) != before[1]
        assert installed is (len(ends) == 1), "the last one restores what was there"

    running = [asyncio.create_task(run(seconds)) for seconds in (5, 15)]
    await asyncio.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.gather(*running)
    assert ends == [(5, 5), (15, 15)]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@virtual_time
async def test_stop_lets_running_handlers_finish():
    broker, finished = ScriptedBroker(), []

    async def handler(delivery: Delivery) -> None:
        if delivery.message.body == b"0":
            await asyncio.sleep(1)
            raise ValueError("first")
        await asyncio.sleep(10 * int(delivery.message.body))
        finished.append(delivery.message.body)
        if delivery.message.body == b"2":
            raise KeyError("second")

    await fill(broker, 5)
    retry = RetryPolicy(max_attempts=1)
    worker = Worker(broker, "orders", handler, group="g", concurrency=5, retry=retry, on_exhausted=STOP)
    with pytest.raises(HandlerError, match="first") as caught:
        await worker.run()
    # told to stop at 1: what runs has 30 s, so the one of 40 s is cancelled and goes back
    assert finished == [b"1", b"2", b"3"]
    assert now() == 31
    assert ["second" in note for note in caught.value.__notes__] == [True]
    settled = dict(broker.subscriptions[0].settled)
    assert settled == {"0": RELEASE, "1": ACK, "2": RELEASE, "3": ACK, "4": RELEASE}


@virtual_time
async def test_shutdown_before_run():
    broker = ScriptedBroker()
    await fill(broker, 1)
    handler = RecordingHandler()
    worker = Worker(broker, "orders", handler, group="g")
    await worker.shutdown(0)
    await worker.run()
    assert (handler.bodies, broker.subscriptions, now()) == ([], [], 0)


class HangingBroker(ScriptedBroker):
    """Its engine does not answer to some calls any more."""

    def __init__(self, where):
        super().__init__()
        self.where = where

    def subscribe(self, topics, options):
        return self._hanging(topics, options)

    @asynccontextmanager
    async def _hanging(self, topics, options):
        async with super().subscribe(topics, options) as subscription:
            for name in ("stop", "flush"):
                if name in self.where:
                    setattr(subscription, name, self._hang)
            try:
                yield subscription
            finally:
                if "leave" in self.where:
                    await self._hang()

    @staticmethod
    async def _hang():
        await asyncio.Event().wait()


@pytest.mark.parametrize("where", ["stop", "flush", "leave", "stop, leave", "flush, leave"])
@pytest.mark.parametrize("cancels", [1, 2])
@virtual_time
async def test_handing_back_takes_5_seconds_at_most(where, cancels):
    broker = HangingBroker(where)
    await fill(broker, 1)
    worker = Worker(broker, "orders", RecordingHandler(then=sleeps), group="g")
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(1)
    for _ in range(cancels):
        running.cancel()
        await asyncio.sleep(1)
    with pytest.raises(asyncio.CancelledError):
        await running
    assert now() <= 1 + 5.5


@pytest.mark.parametrize("where", ["stop", "flush", "leave", "stop, leave", "flush, leave"])
@virtual_time
async def test_a_late_shutdown_does_not_wait_for_the_engine(where):
    broker = HangingBroker(where)
    await fill(broker, 1)
    worker = Worker(broker, "orders", RecordingHandler(then=sleeps), group="g")
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(1)
    with pytest.raises(TimeoutError):
        await worker.shutdown(2)
    with pytest.raises(TimeoutError):
        await running
    assert now() <= 1 + 2 + 5.5


@pytest.mark.parametrize("again", [None, 0, 1, 3])
@virtual_time
async def test_cancelled_at_every_await_of_run(again):
    """Each message is settled once, or was never taken; nothing runs on."""
    ends = set()
    for place in range(60):
        broker, handler = ScriptedBroker(), RecordingHandler(then=lambda _: steps(3))
        await fill(broker, 6, key="k")
        worker = Worker(broker, "orders", handler, group="g", concurrency=2)
        running = asyncio.create_task(worker.run())
        await steps(place)
        running.cancel()
        if again is not None:
            await steps(again)
            running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert len(asyncio.all_tasks()) == 1, place
        ends.add(len(handler.deliveries))
        if not broker.subscriptions:
            continue
        (subscription,) = broker.subscriptions
        settled = [body for body, _ in subscription.settled]
        left = [delivery.message.body.decode() for delivery in subscription.available]
        assert sorted(settled + left) == [str(number) for number in range(6)], place
        assert worker.stats.held == worker.stats.running == 0
        acked = [body for body, outcome in subscription.settled if outcome == ACK]
        assert acked == sorted(acked), "in order"
    assert ends >= {0, 1, 6}, "it was cancelled before, between and after the runs"


@pytest.mark.parametrize("again", [None, 1])
@virtual_time
async def test_cancelled_at_every_await_on_the_embedded_engine(again):
    """What one worker acknowledged the next does not see, and it sees all the rest."""
    done_before = set()
    for place in range(0, 80, 2):
        async with connect(":memory:") as broker:
            await fill(broker, 5, key="k")
            acked, seen, begun = [], RecordingHandler(), asyncio.Event()

            async def handler(delivery: Delivery, acked=acked, begun=begun) -> None:
                begun.set()
                await steps(2)
                acked.append(delivery.message.body)

            running = asyncio.create_task(Worker(broker, "orders", handler, group="g").run())
            if (
                place >= 40
            ):  # turns of the loop say nothing of how far the threads are: from here on since the first run
                await begun.wait()
            await steps(place % 40)
            running.cancel()
            if again is not None:
                await steps(again)
                running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            await run_until_idle(Worker(broker, "orders", seen, group="g"))
            assert acked + seen.bodies == [b"%d" % number for number in range(5)], (place, acked)
            done_before.add(len(acked))
    assert {0, 5} <= done_before or len(done_before) > 2, "it was cancelled at different places"
