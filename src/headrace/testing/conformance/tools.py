"""What the broker checks have in common: names, messages, and pulling with an end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from headrace.core.broker import Broker, SubscribeOptions, Subscription
from headrace.core.delivery import Delivery
from headrace.core.errors import Fault, HeadraceError, PublishError
from headrace.core.message import Message, new_id
from headrace.testing.conformance.check import OpenBroker

__all__ = [
    "LEASE_SECONDS",
    "PATIENCE",
    "QUIET",
    "acknowledge",
    "bodies",
    "failure_of",
    "join",
    "message",
    "new_topic",
    "publish_bodies",
    "receive",
    "rejected",
    "stays_quiet",
    "two_members",
]

LEASE_SECONDS = 2.0
"""The lease under which checks wait for its end; short, because a real server takes real time."""
QUIET = 0.3
"""How long nothing must arrive for it to count as nothing; far below the lease."""
PATIENCE = 20.0
"""How long to wait for what must arrive."""
_OVERSIZED = 2_000


def new_topic(name: str) -> str:
    """A topic that no other check and no other run uses."""
    return f"check-{name}-{new_id()}"


def message(topic: str, body: bytes = b"", **fields: Any) -> Message:
    """A message."""
    return Message(topic=topic, body=body, **fields)


def join(group: str | None, **fields: Any) -> SubscribeOptions:
    """How to subscribe as a member of `group`; nothing is prefetched, so that members do not take each other's."""
    return replace(SubscribeOptions(group=group, prefetch=0), **fields)


@asynccontextmanager
async def two_members(
    open_broker: OpenBroker, name: str, *, publish: int, **fields: Any
) -> AsyncGenerator[tuple[Subscription, Subscription]]:
    """Two members of one group on a topic of their own, which has the messages ``0`` to ``publish - 1``."""
    topic, options = new_topic(name), join(name, **fields)
    async with (
        open_broker() as broker,
        broker.subscribe(topic, options) as one,
        broker.subscribe(topic, options) as other,
    ):
        await publish_bodies(broker, topic, range(publish))
        yield one, other


async def publish_bodies(broker: Broker, topic: str, values: Iterable[object], *, key: bytes | None = None) -> None:
    """Publish one message per value, its text as body."""
    for result in await broker.publish_batch([message(topic, str(value).encode(), key=key) for value in values]):
        assert not isinstance(result, Exception), f"publish failed: {result!r}"


async def receive(
    subscription: Subscription, count: int, *, wait: float = PATIENCE, limit: int | None = None
) -> list[Delivery]:
    """`count` deliveries, none of them settled; less is a failure."""
    got: list[Delivery] = []
    while len(got) < count:
        pulled = await subscription.pull(limit or count - len(got), wait)
        assert pulled, f"{len(got)} of {count} arrived: {bodies(got)}"
        got.extend(pulled)
    return got


async def acknowledge(subscription: Subscription, count: int, *, wait: float = PATIENCE) -> list[Delivery]:
    """`count` deliveries, started and acknowledged one by one."""
    got = await receive(subscription, count, wait=wait)
    for delivery in got:
        assert delivery.start(), f"{delivery.message.id}: start() is False under a fresh lease"
        delivery.ack()
    return got


async def stays_quiet(subscription: Subscription, seconds: float = QUIET) -> None:
    """Nothing arrives for so long."""
    got = await subscription.pull(_OVERSIZED, seconds)
    assert not got, f"arrived, and should not: {bodies(got)}"


def bodies(deliveries: Sequence[Delivery]) -> list[bytes]:
    """Their bodies."""
    return [delivery.message.body for delivery in deliveries]


def rejected(result: object) -> PublishError:
    """The result as a ``PublishError`` that says ``REJECTED``; a failure if it is something else."""
    assert isinstance(result, PublishError), f"a PublishError expected, got {result!r}"
    assert result.fault is Fault.REJECTED, f"REJECTED expected, got {result.fault}: {result!r}"
    return result


async def failure_of(call: Callable[[], Awaitable[object]], *kinds: type[HeadraceError]) -> HeadraceError:
    """The error of one of `kinds` that the call raises; a failure if it raises none."""
    names = " or ".join(kind.__name__ for kind in kinds)
    try:
        result = await call()
    except kinds as error:
        return error
    raise AssertionError(f"{names} expected, got {result!r}")
