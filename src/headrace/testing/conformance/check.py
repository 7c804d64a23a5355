"""Check: one promise of a contract as a plain coroutine, and the capability without which it does not apply."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from headrace.core.broker import Broker, Capabilities, Groups, KeyOrder, StartKind
from headrace.streams.api import StreamManager

__all__ = [
    "BATCH_KEY_ORDER",
    "BROADCAST",
    "COUNTS",
    "DEDUP",
    "DELAYED_NAK",
    "DURABLE",
    "EXPECT",
    "LEASE",
    "MANY_GROUPS",
    "MAX_BODY",
    "NAMED_GROUPS",
    "ORDERED",
    "REPLAY",
    "SOME_KEY_ORDER",
    "TTL",
    "BrokerCheck",
    "Check",
    "Need",
    "OpenBroker",
    "OpenStreams",
    "StreamCheck",
    "excluded_by",
]

OpenBroker = Callable[[], AbstractAsyncContextManager[Broker]]
"""Opens the engine under test; each call opens the same store again, which keeps what it had if it is durable."""
OpenStreams = Callable[[], AbstractAsyncContextManager[StreamManager]]
"""The same for the stream model."""

Opener = TypeVar("Opener", OpenBroker, OpenStreams)


@dataclass(frozen=True)
class Need:
    """What a check asks of an engine, by the name of the capability."""

    name: str
    holds: Callable[[Capabilities], bool]


@dataclass(frozen=True)
class Check(Generic[Opener]):
    """One promise. ``await check.run(open)`` returns, or raises ``AssertionError`` (or whatever the engine raised).

    ``excluded`` says aloud why the engine at hand is not asked to keep it; ``None`` = run it.
    """

    name: str
    run: Callable[[Opener], Awaitable[None]]
    needs: tuple[Need, ...] = ()
    excluded: str | None = None

    @classmethod
    def of(cls, *needs: Need) -> Callable[[Callable[[Any], Awaitable[None]]], Check[Opener]]:
        """Make a check of a coroutine function, named like it."""
        return lambda function: cls(getattr(function, "__name__", "?"), function, needs)


BrokerCheck = Check[OpenBroker]
StreamCheck = Check[OpenStreams]

BATCH_KEY_ORDER = Need("batch_key_order", lambda capabilities: capabilities.batch_key_order)
BROADCAST = Need("broadcast", lambda capabilities: capabilities.broadcast)
COUNTS = Need("counts", lambda capabilities: capabilities.counts)
DEDUP = Need("dedup", lambda capabilities: capabilities.dedup)
DELAYED_NAK = Need("delayed_nak", lambda capabilities: capabilities.delayed_nak)
DURABLE = Need("durable", lambda capabilities: capabilities.durable)
EXPECT = Need("expect", lambda capabilities: capabilities.expect)
LEASE = Need("extend (a lease)", lambda capabilities: capabilities.extend)
MANY_GROUPS = Need("groups=MANY", lambda capabilities: capabilities.groups is Groups.MANY)
MAX_BODY = Need("max_body", lambda capabilities: capabilities.max_body is not None)
NAMED_GROUPS = Need("groups", lambda capabilities: capabilities.groups is not Groups.NONE)
ORDERED = Need("ordered", lambda capabilities: capabilities.ordered)
REPLAY = Need("replay with new", lambda capabilities: StartKind.NEW in capabilities.replay)
ONE_BY_ONE = Need("members that share one by one", lambda capabilities: capabilities.key_order is not KeyOrder.GROUP)
"""An engine that keeps the order of keys over a whole group gives its members keys, or partitions of them."""
SOME_KEY_ORDER = Need("key_order", lambda capabilities: capabilities.key_order is not KeyOrder.NONE)
TTL = Need("ttl", lambda capabilities: capabilities.ttl)


def excluded_by(check: Check[Opener], capabilities: Capabilities) -> Check[Opener]:
    """The check as it stands for an engine of these capabilities."""
    missing = [need.name for need in check.needs if not need.holds(capabilities)]
    return replace(check, excluded=f"{check.name} needs {', '.join(missing)}: not promised") if missing else check
