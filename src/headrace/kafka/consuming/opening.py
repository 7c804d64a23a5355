"""Opening a subscription: what is looked up before a member joins, its poller, and how it counts what is left."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from headrace.core.broker import Start, StartKind
from headrace.core.clock import Clock
from headrace.core.delivery import Position
from headrace.core.errors import BrokerTimeoutError, ClosedError
from headrace.kafka import driver
from headrace.kafka.consuming.checkpoints import Checkpoints, Reconnecting
from headrace.kafka.consuming.handing import Handing
from headrace.kafka.consuming.listener import Listener
from headrace.kafka.consuming.outofrange import OutOfRange
from headrace.kafka.consuming.places import Key, place
from headrace.kafka.consuming.plans import FixedPlan, GroupPlan
from headrace.kafka.consuming.poller import Plan, Poller
from headrace.kafka.consuming.positions import Positions
from headrace.kafka.consuming.subscription import KafkaSubscription
from headrace.kafka.errors import UnknownTopicError
from headrace.kafka.log import DriverLog
from headrace.kafka.options import KafkaOptions
from headrace.kafka.reading import KafkaPartitionOptions, KafkaReadOptions, KafkaSubscribeOptions
from headrace.kafka.topics import Topics

__all__ = ["Opening"]

_IN_FLIGHT = 256
_PREFETCH = 1_000
_CONFIRM = 10.0
_ONE_PARTITION = "partition"


@dataclass(frozen=True)
class Opening:
    """What a broker has for those who read."""

    servers: Sequence[str]
    options: KafkaOptions
    topics: Topics
    log: DriverLog
    clock: Clock
    create: bool

    @asynccontextmanager
    async def group(
        self, names: Sequence[str], options: KafkaSubscribeOptions
    ) -> AsyncGenerator[KafkaSubscription, None]:
        """A member of a group, or (``group=None``) a reader of all partitions of its own."""
        create = self.create if options.create is None else options.create
        await self.topics.ensure(names, create=create)
        positions = Positions(self.topics)
        subscription = self.subscription(options)
        if options.group is None:
            plan: Plan = await self._all(positions, names, options)
        else:
            plan = await self._join(positions, names, options, create=create)
        poller = self.poller(plan, subscription, options)
        subscription.attach(poller)
        subscription.confirm = lambda: _confirm(poller, grouped=options.group is not None)
        subscription.count = lambda: _backlog(positions, subscription, names, options)
        try:
            await _started(poller, subscription)
            yield subscription
        finally:
            await subscription.aclose()

    @asynccontextmanager
    async def partition(self, name: str, options: KafkaPartitionOptions) -> AsyncGenerator[KafkaSubscription, None]:
        """A reader of one partition, from its checkpoint."""
        create = self.create if options.create is None else options.create
        await self.topics.ensure([name], create=create)
        key, positions = (name, options.partition), Positions(self.topics)
        subscription = self.subscription(options)
        checkpoints = Checkpoints(subscription, name, options)

        async def make(listener: Reconnecting) -> Poller:
            if options.partition >= await self.topics.partitions(name):
                raise UnknownTopicError(f"topic {name!r} has no partition {options.partition}")
            offset = await checkpoints.load()
            if offset is None:
                offset = await _first(positions, key, options.start)
            return self.poller(FixedPlan({key: offset}, out_of_range=OutOfRange(options)), listener, options)

        reconnecting = Reconnecting(subscription, checkpoints, options, make)
        subscription.confirm = lambda: checkpoints.confirm(_CONFIRM)
        subscription.count = lambda: _left(positions, subscription, key, options)
        await reconnecting.open()
        async with AsyncExitStack() as stack:
            stack.push_async_callback(subscription.aclose)
            stack.push_async_callback(checkpoints.stop)
            stack.push_async_callback(reconnecting.stop)
            checkpoints.start()
            yield subscription

    def subscription(self, options: KafkaReadOptions) -> KafkaSubscription:
        """One that has no poller yet. What reads one partition says so where others name their group."""
        group = _ONE_PARTITION if isinstance(options, KafkaPartitionOptions) else options.group
        handing = Handing(options, id_header=self.options.id_header)
        return KafkaSubscription(
            handing, group=group, max_in_flight=_in_flight(options), client_id=self.options.client_id
        )

    def poller(self, plan: Plan, listener: Listener, options: KafkaReadOptions) -> Poller:
        """The thread of a subscription, not started."""
        in_flight = _in_flight(options)
        prefetch = min(_PREFETCH, in_flight) if options.prefetch is None else min(options.prefetch, in_flight)

        def make(on_error: Callable[..., None], on_commit: Callable[..., None]) -> Any:
            config = driver.consumer_config(self.servers, self.options, options)
            return driver.consumer({**config, "on_commit": on_commit}, self.log, on_error)

        return Poller(
            make,
            plan,
            listener,
            prefetch=prefetch,
            commit_interval=options.seconds("commit_interval"),
            session=_session(options),
            clock=self.clock,
        )

    async def _join(
        self, positions: Positions, names: Sequence[str], options: KafkaSubscribeOptions, *, create: bool
    ) -> GroupPlan:
        """Where a new group would begin is worked out before it is asked: a race can only repeat records."""
        start = Start.all() if options.start is None else options.start
        return GroupPlan(
            options.group or "",
            names,
            starts=await positions.starts(await positions.keys(names), start),
            create=create,
            protocol=options.group_protocol,
            static=options.group_instance_id is not None,
            drain_timeout=options.seconds("drain_timeout"),
            out_of_range=OutOfRange(options),
        )

    async def _all(self, positions: Positions, names: Sequence[str], options: KafkaSubscribeOptions) -> FixedPlan:
        start = options.start or Start.new()
        starts = await positions.starts(await positions.keys(names), start)
        return FixedPlan(
            starts, out_of_range=OutOfRange(options), added=lambda consumer, there: _added(consumer, names, there)
        )


def _in_flight(options: KafkaReadOptions) -> int:
    return _IN_FLIGHT if options.max_in_flight is None else options.max_in_flight


def _session(options: KafkaReadOptions) -> float | None:
    if isinstance(options, KafkaSubscribeOptions) and options.group is not None:
        return options.session_seconds
    return None


async def _first(positions: Positions, key: Key, start: Start | None) -> int:
    """Where a partition without a checkpoint begins."""
    if start is not None and start.kind is StartKind.AT:
        position = start.position
        return position.value if isinstance(position, Position) else position or 0
    return (await positions.starts([key], Start.all() if start is None else start))[key]


async def _left(positions: Positions, subscription: KafkaSubscription, key: Key, options: KafkaPartitionOptions) -> int:
    """Of one partition: end - position."""
    position = next((stay.position for stay in subscription.stays if stay.position >= 0), -1)
    return await _until_end(positions, {key: position}, options)


async def _until_end(positions: Positions, places: Mapping[Key, int], options: KafkaReadOptions) -> int:
    return await positions.left(
        places, committed=options.isolation == "read_committed", from_end=options.on_out_of_range == "latest"
    )


async def _started(poller: Poller, subscription: KafkaSubscription) -> None:
    try:
        await poller.start()
    except BaseException as error:
        subscription.failed(error)
        raise


def _added(consumer: Any, names: Sequence[str], there: frozenset[Key]) -> list[Key]:
    """Partitions of these topics that are not there yet. On the driver's thread."""
    found: list[Key] = []
    for name in names:
        topic = consumer.list_topics(name, timeout=5.0).topics.get(name)
        found += [
            (name, number) for number in (topic.partitions if topic is not None else ()) if (name, number) not in there
        ]
    return found


async def _confirm(poller: Poller, *, grouped: bool) -> None:
    if not grouped:
        return
    given_up = threading.Event()

    def turn() -> bool:
        poller.fence.alive()
        return given_up.is_set()

    def settle(consumer: Any) -> None:
        poller.commits.settled(consumer, _CONFIRM, lambda one: poller.take(consumer, [one]), turn)

    longest = poller.commits.longest(_CONFIRM)
    time_out = asyncio.timeout(longest)
    try:
        async with time_out:
            await poller.call(settle)
    except TimeoutError as error:
        if not time_out.expired():
            raise
        raise BrokerTimeoutError(f"the brokers did not answer within {longest:g} s: nothing is confirmed") from error
    finally:
        given_up.set()


def _committed(consumer: Any, places: list[Any]) -> dict[Key, int]:
    """On the driver's thread."""
    if not places:
        return {}
    try:
        found = consumer.committed(places, timeout=_CONFIRM)
    except driver.KafkaException as error:
        raise driver.translated(error) from error
    for each in found:
        if each.error is not None:
            raise driver.translated(each.error)
    return {(each.topic, each.partition): each.offset for each in found if each.offset >= 0}


async def _backlog(
    positions: Positions, subscription: KafkaSubscription, names: Sequence[str], options: KafkaSubscribeOptions
) -> int:
    """The sum over all partitions of end - position; of others' partitions what is not committed."""
    keys = await positions.keys(names)
    ours = {stay.key: stay.position for stay in subscription.stays if stay.position >= 0}
    committed: dict[Key, int] = {}
    if options.group is not None:
        others = [place(*key) for key in keys if key not in ours]
        poller = subscription.poller
        try:
            committed = await poller.call(lambda consumer: _committed(consumer, others))
        except ClosedError:
            if poller.failure is not None:  # why it has ended says more than that it has
                raise poller.failure from None
            raise
    return await _until_end(positions, {key: ours.get(key, committed.get(key, -1)) for key in keys}, options)
