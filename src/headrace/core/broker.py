"""Broker: the seam. All that an engine implements, and all that a feature may ask of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Protocol, runtime_checkable

import msgspec

from headrace.core.clock import Clock
from headrace.core.delivery import Delivery, Outcome, Position
from headrace.core.duration import Duration, seconds_or_none
from headrace.core.errors import ConfigError, PublishError
from headrace.core.message import Message, check_group

__all__ = [
    "Broker",
    "Capabilities",
    "Expect",
    "Groups",
    "KeyOrder",
    "PublishOptions",
    "Publisher",
    "Receipt",
    "Start",
    "StartKind",
    "SubscribeOptions",
    "Subscription",
    "TopicOptions",
]


class KeyOrder(Enum):
    """In which scope one key is never handled twice at once, and in order."""

    NONE = "none"
    MEMBER = "member"
    """Inside one subscription."""
    GROUP = "group"
    """Over all members of the group."""


class Groups(Enum):
    """What named groups an engine has."""

    NONE = "none"
    ONE = "one"
    """The topic is itself the one group (a queue); the name is only a label."""
    MANY = "many"
    """Each message goes to one member of each named group; positions survive restarts."""


class StartKind(Enum):
    """Where a new group begins."""

    ALL = "all"
    NEW = "new"
    LAST = "last"
    AT = "at"
    SINCE = "since"


@dataclass(frozen=True)
class Start:
    """Where a new group begins; an existing one keeps its place."""

    kind: StartKind
    position: int | Position | None = None
    time: datetime | None = None

    @classmethod
    def all(cls) -> Start:
        """At the oldest message there is."""
        return cls(StartKind.ALL)

    @classmethod
    def new(cls) -> Start:
        """At the first message published from now on."""
        return cls(StartKind.NEW)

    @classmethod
    def last(cls) -> Start:
        """At the newest message there is."""
        return cls(StartKind.LAST)

    @classmethod
    def at(cls, position: int | Position) -> Start:
        """At this position of the source."""
        value = position.value if isinstance(position, Position) else position
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ConfigError(f"position must be an integer >= 0 or a Position, got {position!r}")
        return cls(StartKind.AT, position=position)

    @classmethod
    def since(cls, time: datetime) -> Start:
        """At the first message stored at or after `time`, which must be aware."""
        if not isinstance(time, datetime) or time.tzinfo is None:
            raise ConfigError(f"time must be an aware datetime, got {time!r}")
        return cls(StartKind.SINCE, time=time)


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What an engine promises. Each field is an exact promise; what it lacks is ``UnsupportedError``."""

    key_order: KeyOrder = KeyOrder.NONE
    ordered: bool = False
    """First deliveries of one topic and key come to one member in publish order."""
    counts: bool = False
    """Deliveries are counted by the broker, and the count survives the consumer; hand-backs may count."""
    durable: bool = False
    """An acknowledged publish survives the death of the process."""
    groups: Groups = Groups.NONE
    broadcast: bool = False
    """``group=None`` sees everything from now on, alone, and leaves nothing behind."""
    delayed_nak: bool = False
    """``Nak(delay)`` is honoured, up to `max_nak_delay` (``None`` = no limit)."""
    max_nak_delay: timedelta | None = None
    extend: bool = False
    """Deliveries have a lease, and `Delivery.extend` prolongs it; without: nothing expires."""
    replay: frozenset[StartKind] = frozenset()
    """Where a new group may begin."""
    wildcards: bool = False
    """``*`` and ``>`` when subscribing."""
    many_topics: bool = False
    """One subscription may read several topics."""
    dedup: bool = False
    """The same id on the same topic is stored once within the window; the second receipt says ``duplicate``."""
    expect: bool = False
    """`PublishOptions.expect`."""
    ttl: bool = False
    """`PublishOptions.ttl`."""
    batch_key_order: bool = False
    """Inside a batch a failed item is never overtaken by a later one of its key."""
    max_body: int | None = None
    """Bytes; a larger body is ``REJECTED`` before the wire. ``None``: no limit is known."""
    max_delay: timedelta | None = None
    """Longest `PublishOptions.delay` (``timedelta.max`` = no limit); ``None``: no delay at all."""
    time_resolution: timedelta = timedelta(microseconds=1)
    """The step in which ``Message.time_ns`` survives."""


@dataclass(frozen=True, kw_only=True)
class Expect:
    """What must hold for a publish to be stored; otherwise it is ``REJECTED``.

    ``last``: position of the newest message of the source, ``last_for_topic``: of the newest on the topic (0 = must
    be empty), ``last_id``: id of the newest message.
    """

    last: int | Position | None = None
    last_for_topic: int | Position | None = None
    last_id: str | None = None

    def __post_init__(self) -> None:
        for name in ("last", "last_for_topic"):
            given = getattr(self, name)
            value = given.value if isinstance(given, Position) else given
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
                raise ConfigError(f"{name} must be an integer >= 0 or a Position, got {given!r}")
        if self.last_id == "":
            raise ConfigError("last_id must not be empty, got ''")


@dataclass(frozen=True, kw_only=True)
class PublishOptions:
    """Options of one publish. What the engine lacks is ``UnsupportedError`` before any I/O.

    ``delay``: not handed out before; ``ttl``: gone after; ``timeout``: longest wait for the receipt.
    """

    expect: Expect | None = None
    delay: Duration | None = None
    ttl: Duration | None = None
    timeout: Duration | None = None

    def __post_init__(self) -> None:
        for name in ("delay", "ttl", "timeout"):
            seconds_or_none(getattr(self, name), name)


@dataclass(frozen=True, kw_only=True)
class TopicOptions:
    """Options of a topic. ``None`` = as it is; a given value that differs from what exists is a ``ConfigError``."""

    partitions: int | None = None
    replication: int | None = None
    max_age: Duration | None = None
    max_bytes: int | None = None
    dedup_window: Duration | None = None

    def __post_init__(self) -> None:
        for name in ("max_age", "dedup_window"):
            seconds_or_none(getattr(self, name), name)
        for name in ("partitions", "replication", "max_bytes"):
            _check_count(getattr(self, name), name, least=1)


@dataclass(frozen=True, kw_only=True)
class SubscribeOptions:
    """How to subscribe. An engine may add its own in a subclass.

    ``group=None``: private, from now, gone on close. ``start``: where a *new* group begins (default: all).
    ``lease``: seconds until an unsettled message goes to somebody else (default 30). ``max_in_flight``: handed out and
    unsettled (default 256). ``prefetch``: what the engine may hold beyond (default: its choice; 0 = none).
    ``create``: ``None`` = topics as the broker's, groups are made; ``False`` = both must exist.
    """

    group: str | None = None
    start: Start | None = None
    lease: Duration | None = None
    max_in_flight: int | None = None
    prefetch: int | None = None
    create: bool | None = None

    def __post_init__(self) -> None:
        if self.group is not None:
            check_group(self.group)
        seconds_or_none(self.lease, "lease", least=0.001)
        _check_count(self.max_in_flight, "max_in_flight", least=1)
        _check_count(self.prefetch, "prefetch", least=0)


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """The broker has custody. ``duplicate``: a message with this id was stored before, at this position."""

    position: Position | None = None
    duplicate: bool = False

    def attributes(self) -> Mapping[str, str | int]:
        """The engine's facts for logs and spans."""
        return {"headrace.position": str(self.position)} if self.position is not None else {}


@runtime_checkable
class Publisher(Protocol):
    """Whatever takes messages: a broker, a topic, the outbox' messenger."""

    @property
    def capabilities(self) -> Capabilities:
        """What it promises; known before it is opened, but for what only a server knows."""
        ...

    @property
    def clock(self) -> Clock:
        """Its source of time."""
        ...

    async def publish(self, message: Message, options: PublishOptions | None = None) -> Receipt:
        """Hand the message over; returns once the broker has custody. Raises ``PublishError`` with a fault."""
        ...

    async def publish_batch(self, messages: Sequence[Message]) -> list[Receipt | PublishError]:
        """One result per item, in order; an item fails alone. Raises only for misuse and cancellation."""
        ...


class Subscription(Protocol):
    """An open subscription: what a worker pulls from, and the owner of the deliveries it hands out.

    Leaving its ``async with`` releases in order what was never started, leaves what was started and is not settled to
    its lease, and flushes.
    """

    group: str | None
    lease: float | None

    @property
    def late_settles(self) -> int:
        """Outcomes that were recorded after their lease was over."""
        ...

    async def pull(self, limit: int, wait: float) -> Sequence[Delivery]:
        """1..`limit` deliveries as soon as there is one, none once `wait` seconds have passed (0 asks once).

        Cancel-safe: nothing is awaited between taking and returning. Final failures are raised. One pull at a time.
        """
        ...

    def start(self, delivery: Delivery) -> bool:
        """See `Delivery.start`."""
        ...

    def settle(self, delivery: Delivery, outcome: Outcome) -> None:
        """See `Delivery.settle`."""
        ...

    def settle_acked(self, deliveries: Sequence[Delivery]) -> None:
        """See `DeliveryOwner.settle_acked`."""
        ...

    def extend(self, delivery: Delivery) -> None:
        """See `Delivery.extend`."""
        ...

    def position(self, delivery: Delivery) -> Position | None:
        """See `Delivery.position`."""
        ...

    def attributes(self, delivery: Delivery) -> Mapping[str, str | int]:
        """See `Delivery.attributes`."""
        ...

    def keep(self) -> None:
        """Prolong every lease it holds, buffered or handed out."""
        ...

    async def stop(self) -> None:
        """Nothing new arrives from here on; what is held stays."""
        ...

    async def flush(self) -> None:
        """All outcomes so far are confirmed by the engine, or it raises."""
        ...

    async def backlog(self) -> int | None:
        """This group's unfinished messages that are not held here, never too low; ``None``: the engine cannot say."""
        ...


@runtime_checkable
class Broker(Publisher, Protocol):
    """An engine behind the seam."""

    async def declare(self, topic: str, options: TopicOptions = ...) -> None:
        """What must exist exists afterwards. Idempotent."""
        ...

    def subscribe(
        self, topics: str | Sequence[str], options: SubscribeOptions = ...
    ) -> AbstractAsyncContextManager[Subscription]:
        """Open a subscription; several topics only with ``many_topics``."""
        ...

    async def aclose(self) -> None:
        """Close. Twice is fine; any use after is ``ClosedError``; open publishes end with a result."""
        ...


def _check_count(value: int | None, name: str, *, least: int) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
        raise ConfigError(f"{name} must be an integer >= {least}, got {value!r}")
