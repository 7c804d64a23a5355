"""Checks of groups and of the worker over an engine: who gets what, where a group begins, and the whole way."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta

from headrace.core.broker import Broker, KeyOrder, Start, StartKind
from headrace.core.delivery import Delivery
from headrace.core.errors import HandlerError
from headrace.flow.judge import DeadLetter
from headrace.flow.retry import RetryPolicy
from headrace.flow.worker import Worker
from headrace.streams.broker import StreamBroker
from headrace.testing.conformance.check import (
    BROADCAST,
    COUNTS,
    DEDUP,
    DURABLE,
    MANY_GROUPS,
    NAMED_GROUPS,
    ONE_BY_ONE,
    REPLAY,
    SOME_KEY_ORDER,
    BrokerCheck,
    OpenBroker,
)
from headrace.testing.conformance.tools import (
    LEASE_SECONDS,
    PATIENCE,
    QUIET,
    acknowledge,
    bodies,
    join,
    message,
    new_topic,
    publish_bodies,
    receive,
    stays_quiet,
)

__all__ = ["CHECKS", "HANDLED_BEFORE"]

HANDLED_BEFORE: ContextVar[str | None] = ContextVar("HANDLED_BEFORE", default=None)
"""What `contextvar_not_seen_by_next` sets; an engine that leaks contexts shows it to the next message."""


@BrokerCheck.of(NAMED_GROUPS)
async def each_message_to_one_member(open_broker: OpenBroker) -> None:
    """What one member of a group has acknowledged no other gets, however they come and go."""
    topic, got = new_topic("one"), list[bytes]()

    async def work(broker: Broker) -> None:
        async with broker.subscribe(topic, join("one")) as subscription:
            while len(set(got)) < 40:
                for delivery in await subscription.pull(3, QUIET):
                    if delivery.start():
                        got.append(delivery.message.body)
                        delivery.ack()

    async with open_broker() as broker, asyncio.timeout(PATIENCE * 2):
        for key in range(10):
            await publish_bodies(broker, topic, range(4 * key, 4 * key + 4), key=b"%d" % key)
        await asyncio.gather(work(broker), work(broker))
    assert sorted(got) == sorted(b"%d" % n for n in range(40)), f"got more than once: {Counter(got).most_common(3)}"


@BrokerCheck.of(NAMED_GROUPS, ONE_BY_ONE)
async def two_members_share(open_broker: OpenBroker) -> None:
    """Two members of a group get each message once, between them."""
    topic = new_topic("share")
    async with (
        open_broker() as broker,
        broker.subscribe(topic, join("share", max_in_flight=2)) as first,
        broker.subscribe(topic, join("share", max_in_flight=2)) as second,
    ):
        await publish_bodies(broker, topic, range(4))
        got = bodies(await receive(first, 2)) + bodies(await receive(second, 2))
        assert sorted(got) == [b"0", b"1", b"2", b"3"], f"between them the two got {got}"


@BrokerCheck.of(MANY_GROUPS)
async def third_group_sees_all(open_broker: OpenBroker) -> None:
    """Each group gets every message, whatever the others do."""
    topic = new_topic("groups")
    async with open_broker() as broker:
        await publish_bodies(broker, topic, range(3), key=b"k")
        for group in ("one", "two", "three"):
            async with broker.subscribe(topic, join(group)) as subscription:
                got = bodies(await acknowledge(subscription, 3))
                assert got == [b"0", b"1", b"2"], f"group {group} got {got}"


@BrokerCheck.of(NAMED_GROUPS, ONE_BY_ONE)
async def member_leaves_hands_over(open_broker: OpenBroker) -> None:
    """A member that leaves hands over what it never started, at once and in order."""
    topic = new_topic("leave")
    async with open_broker() as broker, broker.subscribe(topic, join("leave")) as stays:
        async with broker.subscribe(topic, join("leave")) as leaves:
            await publish_bodies(broker, topic, range(4))
            await receive(leaves, 4)
            await leaves.stop()
        got = [each for _ in range(4) for each in await stays.pull(4, QUIET)]
        assert bodies(got) == [b"0", b"1", b"2", b"3"], f"handed over were {bodies(got)}"


@BrokerCheck.of(NAMED_GROUPS, DURABLE)
async def group_resumes_after_reopen(open_broker: OpenBroker) -> None:
    """Closed and opened again, a group goes on where it stopped."""
    topic = new_topic("resume")
    async with open_broker() as broker, broker.subscribe(topic, join("resume")) as subscription:
        await publish_bodies(broker, topic, range(5), key=b"k")
        await acknowledge(subscription, 2)
    async with open_broker() as broker, broker.subscribe(topic, join("resume")) as subscription:
        got = bodies(await acknowledge(subscription, 3))
        assert got == [b"2", b"3", b"4"], f"after opening again came {got}"
        await stays_quiet(subscription)


@BrokerCheck.of(MANY_GROUPS, REPLAY)
async def start_positions(open_broker: OpenBroker) -> None:
    """A new group begins where it was told to."""
    topic = new_topic("begin")
    async with open_broker() as broker:
        receipts = [await broker.publish(message(topic, b"%d" % n, key=b"k")) for n in range(3)]
        await asyncio.sleep(0.01)
        between = datetime.fromtimestamp(broker.clock.now_ns() / 1e9, UTC)
        await asyncio.sleep(0.01)
        receipts += [await broker.publish(message(topic, b"%d" % n, key=b"k")) for n in range(3, 5)]
        second = receipts[1].position
        wanted: dict[StartKind, tuple[Start | None, list[bytes]]] = {
            StartKind.ALL: (Start.all(), [b"0", b"1", b"2", b"3", b"4", b"new"]),
            StartKind.NEW: (Start.new(), [b"new"]),
            StartKind.LAST: (Start.last(), [b"4", b"new"]),
            StartKind.AT: (Start.at(second) if second else None, [b"1", b"2", b"3", b"4", b"new"]),
            StartKind.SINCE: (Start.since(between), [b"3", b"4", b"new"]),
        }
        kinds = [kind for kind in wanted if kind in broker.capabilities.replay]
        for kind in kinds:
            async with broker.subscribe(topic, join(f"begin-{kind.value}", start=wanted[kind][0])):
                pass
        await publish_bodies(broker, topic, ["new"], key=b"k")
        for kind in kinds:
            async with broker.subscribe(topic, join(f"begin-{kind.value}")) as subscription:
                got = bodies(await acknowledge(subscription, len(wanted[kind][1])))
                assert got == wanted[kind][1], f"from {kind.value} came {got}"
                await stays_quiet(subscription, 0.05)


@BrokerCheck.of(MANY_GROUPS, REPLAY)
async def existing_group_ignores_start(open_broker: OpenBroker) -> None:
    """A group that exists keeps its place, whatever start is asked for."""
    topic = new_topic("again")
    async with open_broker() as broker:
        async with broker.subscribe(topic, join("again")) as subscription:
            await publish_bodies(broker, topic, range(3), key=b"k")
            await acknowledge(subscription, 1)
        for start in (Start.all(), Start.new()):
            async with broker.subscribe(topic, join("again", start=start)) as subscription:
                got = bodies(await acknowledge(subscription, 1))
                assert got == [b"1" if start == Start.all() else b"2"], f"with {start} came {got}"


@BrokerCheck.of(BROADCAST)
async def broadcast_leaves_nothing(open_broker: OpenBroker) -> None:
    """Without a group everything from now on is seen, alone, and nothing stays behind."""
    topic = new_topic("cast")
    async with open_broker() as broker:
        await publish_bodies(broker, topic, ["before"])
        async with broker.subscribe(topic, join(None)) as first, broker.subscribe(topic, join(None)) as second:
            await publish_bodies(broker, topic, ["now"])
            for subscription in (first, second):
                got = bodies(await acknowledge(subscription, 1))
                assert got == [b"now"], f"without a group came {got}"
        await publish_bodies(broker, topic, ["between"])
        async with broker.subscribe(topic, join(None)) as subscription:
            await stays_quiet(subscription)
        if isinstance(broker, StreamBroker):
            stream = await broker.streams.stream(await broker.streams.stream_name_by_subject(topic))
            left = [name async for name in stream.consumer_names()]
            assert not left, f"consumers are left behind: {left}"


async def _run_until(worker: Worker, done: asyncio.Event) -> None:
    """Run it until `done`, or fail."""
    running = asyncio.create_task(worker.run())
    waiting = asyncio.create_task(done.wait())
    try:
        await asyncio.wait((running, waiting), timeout=PATIENCE * 5, return_when=asyncio.FIRST_COMPLETED)
        assert done.is_set() or running.done(), "the worker did not get there in time"
        if running.done():
            await running
        assert done.is_set(), "the worker ended by itself"
        await worker.shutdown()
        await running
    finally:
        for task in (running, waiting):
            task.cancel()
        await asyncio.gather(running, waiting, return_exceptions=True)


def _counted(
    count: int, run: Callable[[Delivery], Awaitable[None]]
) -> tuple[asyncio.Event, Callable[[Delivery], Awaitable[None]]]:
    """`run` as a handler, and an event that is set once so many runs have ended well."""
    done, ended = asyncio.Event(), Counter[str]()

    async def handler(delivery: Delivery) -> None:
        await run(delivery)
        ended["well"] += 1
        if ended["well"] == count:
            done.set()

    return done, handler


@BrokerCheck.of(SOME_KEY_ORDER, NAMED_GROUPS)
async def key_never_twice_at_once(open_broker: OpenBroker) -> None:
    """In the declared scope (one member, or the whole group) no two messages of a key are handled at once."""
    topic, running, overlaps = new_topic("twice"), Counter[bytes](), list[bytes]()

    async def run(delivery: Delivery) -> None:
        key = delivery.message.key or b""
        running[key] += 1
        if running[key] > 1:
            overlaps.append(delivery.message.body)
        await asyncio.sleep(0.01)
        running[key] -= 1

    async with open_broker() as broker:
        for key in (b"a", b"b", b"c"):
            await publish_bodies(broker, topic, [f"{key.decode()}{n}" for n in range(10)], key=key)
        done, handler = _counted(30, run)
        members = 2 if broker.capabilities.key_order is KeyOrder.GROUP else 1
        workers = [Worker(broker, topic, handler, group="twice", concurrency=8) for _ in range(members)]
        await asyncio.gather(*(_run_until(worker, done) for worker in workers))
    assert not overlaps, f"handled while another one of its key was: {overlaps}"


@BrokerCheck.of(COUNTS, NAMED_GROUPS)
async def hand_back_never_exhausts(open_broker: OpenBroker) -> None:
    """However often a message was handed back, it runs here before it is out of attempts."""
    topic, runs = new_topic("handback"), list[int]()

    async def run(delivery: Delivery) -> None:
        runs.append(delivery.attempt)

    async with open_broker() as broker:
        async with broker.subscribe(topic, join("handback")) as subscription:
            await publish_bodies(broker, topic, [1])
            for _ in range(6):
                (delivery,) = await receive(subscription, 1)
                delivery.nak()
        done, handler = _counted(1, run)
        retry = RetryPolicy(max_attempts=2, initial=0.01)
        await _run_until(Worker(broker, topic, handler, group="handback", retry=retry, on_exhausted=DeadLetter()), done)
    assert len(runs) == 1, f"the handler ran {len(runs)} times"


@BrokerCheck.of(DEDUP, MANY_GROUPS)
async def dead_letter_into_dedup_stored(open_broker: OpenBroker) -> None:
    """Two groups bury the same message in one topic: both letters are stored, although its id is known there."""
    topic = new_topic("dead")
    dead = f"{topic}.dead"

    async def fail(delivery: Delivery) -> None:
        raise HandlerError(f"told to fail: {delivery.message.id}")

    async with open_broker() as broker:
        one = message(topic, b"poison")
        await broker.publish(one)
        await broker.publish(one.replace(topic=dead))
        async with broker.subscribe(dead, join("reader")) as letters:
            await acknowledge(letters, 1)
            for group in ("one", "two"):
                ending = DeadLetter(dead)
                worker = Worker(
                    broker, topic, fail, group=group, retry=RetryPolicy(max_attempts=1), on_exhausted=ending
                )
                running = asyncio.create_task(worker.run())
                try:
                    (letter,) = await acknowledge(letters, 1, wait=PATIENCE)
                    assert letter.message.body == b"poison", f"the letter says {letter.message.body!r}"
                    await worker.shutdown()
                finally:
                    running.cancel()
                    await asyncio.gather(running, return_exceptions=True)


@BrokerCheck.of(NAMED_GROUPS)
async def contextvar_not_seen_by_next(open_broker: OpenBroker) -> None:
    """What one message sets in its context, the next one does not see."""
    topic, seen = new_topic("context"), list[str | None]()

    async def run(delivery: Delivery) -> None:
        seen.append(HANDLED_BEFORE.get())
        HANDLED_BEFORE.set(delivery.message.id)
        await asyncio.sleep(0)
        if HANDLED_BEFORE.get() != delivery.message.id:
            seen.append("lost while it waited")

    async with open_broker() as broker:
        await publish_bodies(broker, topic, range(20), key=b"k")
        done, handler = _counted(20, run)
        await _run_until(Worker(broker, topic, handler, group="context", concurrency=1), done)
    assert seen == [None] * 20, f"seen from before: {[each for each in seen if each]}"


@BrokerCheck.of(NAMED_GROUPS)
async def worker_end_to_end(open_broker: OpenBroker) -> None:
    """10,000 messages, 10 at once, one in a hundred fails once: each ends well exactly once, and nothing is left."""
    topic, count, ended = new_topic("end"), 10_000, Counter[bytes]()
    failed: set[bytes] = set()

    async def run(delivery: Delivery) -> None:
        body = delivery.message.body
        if int(body) % 100 == 0 and body not in failed:
            failed.add(body)
            raise HandlerError("once")
        ended[body] += 1

    async with open_broker() as broker:
        for first in range(0, count, 1_000):
            await _publish_thousand(broker, topic, first)
        done, handler = _counted(count, run)
        retry = RetryPolicy(schedule=[timedelta(milliseconds=10)])
        await _run_until(Worker(broker, topic, handler, group="end", concurrency=10, retry=retry), done)
        lease = LEASE_SECONDS if broker.capabilities.extend else None
        async with broker.subscribe(topic, join("end", lease=lease)) as subscription:
            await stays_quiet(subscription)
    assert len(ended) == count, f"{count} were published, {len(ended)} ended well"
    assert len(failed) == count // 100, f"{len(failed)} failed once"
    assert set(ended.values()) == {1}, f"ended well more than once: {[body for body, n in ended.items() if n > 1][:5]}"


async def _publish_thousand(broker: Broker, topic: str, first: int) -> None:
    batch = [message(topic, b"%d" % n, key=b"%d" % (n % 97)) for n in range(first, first + 1_000)]
    for result in await broker.publish_batch(batch):
        assert not isinstance(result, Exception), f"publish failed: {result!r}"


CHECKS: tuple[BrokerCheck, ...] = (
    each_message_to_one_member,
    two_members_share,
    third_group_sees_all,
    member_leaves_hands_over,
    group_resumes_after_reopen,
    start_positions,
    existing_group_ignores_start,
    broadcast_leaves_nothing,
    key_never_twice_at_once,
    hand_back_never_exhausts,
    dead_letter_into_dedup_stored,
    contextvar_not_seen_by_next,
    worker_end_to_end,
)
