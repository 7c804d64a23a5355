"""Joining a group: the durable of a group and topic, or a private consumer (jetstream.md 3.8.4)."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta

from headrace.core.broker import Capabilities, Groups, Start, StartKind, SubscribeOptions
from headrace.core.delivery import Position
from headrace.core.duration import seconds_of
from headrace.core.errors import BrokerError, ClosedError, ConfigError, UnsupportedError
from headrace.streams.api import StreamManager
from headrace.streams.config import AckPolicy, ConsumerConfig, DeliverPolicy
from headrace.streams.consumer import Consumer
from headrace.streams.errors import ConsumerExistsError, ConsumerNameInUseError, ConsumerNotFoundError
from headrace.streams.subjects import escape_token

__all__ = ["Joined", "check_subscribe", "durable_name", "join"]

_LEASE = 30.0
_PRIVATE_THRESHOLD = timedelta(minutes=5)  # the default of 5 s loses it in a server's restart
_MOST_NAME = 255
_POLICIES = {
    StartKind.ALL: DeliverPolicy.ALL,
    StartKind.NEW: DeliverPolicy.NEW,
    StartKind.LAST: DeliverPolicy.LAST,
    StartKind.AT: DeliverPolicy.BY_START_SEQUENCE,
    StartKind.SINCE: DeliverPolicy.BY_START_TIME,
}


@dataclass(frozen=True, kw_only=True)
class Joined:
    """A consumer to read, its lease in seconds, and for a private one how to make it anew."""

    streams: StreamManager
    consumer: Consumer
    lease: float
    remake: Callable[[int], Awaitable[Consumer]] | None = None

    async def discard(self, consumer: Consumer) -> None:
        """Delete a private consumer, best effort: it goes by itself after five minutes."""
        try:
            await self.streams.delete_consumer(consumer.stream, consumer.name)
        except (BrokerError, ClosedError):
            return


def check_subscribe(options: SubscribeOptions, capabilities: Capabilities) -> None:
    """``UnsupportedError`` for what the engine lacks."""
    if options.group is not None and capabilities.groups is Groups.NONE:
        raise UnsupportedError(f"this engine has no groups, got {options.group!r}")
    if options.group is None and not capabilities.broadcast:
        raise UnsupportedError("this engine needs a group, got None")
    if options.start is not None and options.start.kind not in capabilities.replay:
        raise UnsupportedError(f"this engine cannot start at {options.start.kind.value}, got {options.start!r}")
    if options.lease is not None and not capabilities.extend:
        raise UnsupportedError(f"this engine has no leases, got {options.lease!r}")


def durable_name(group: str, topic: str) -> str:
    """The durable of a group and a topic: one durable cannot read two filters (10148). Over 255 bytes: its SHA-256."""
    name = f"{escape_token(group)}@{escape_token(topic)}"
    return name if len(name) <= _MOST_NAME else hashlib.sha256(name.encode()).hexdigest()


async def join(streams: StreamManager, stream: str, topic: str, options: SubscribeOptions) -> Joined:
    """The consumer of these options, made if it may be."""
    if options.group is None:
        return await _join_alone(streams, stream, topic, options)
    name = durable_name(options.group, topic)
    try:
        consumer = await streams.consumer(stream, name)
    except ConsumerNotFoundError:
        if options.create is False:
            raise
        lease = _LEASE if options.lease is None else seconds_of(options.lease, "lease")
        config = _started(_config(topic, lease), stream, options.start or Start.all())
        try:
            consumer = await streams.create_consumer(stream, replace(config, durable=name))
        except (ConsumerExistsError, ConsumerNameInUseError):
            # Another member made it meanwhile, with another start or lease: it keeps its place.
            consumer = await streams.consumer(stream, name)
    return await _take_over(streams, consumer, topic, options)


async def _take_over(streams: StreamManager, consumer: Consumer, topic: str, options: SubscribeOptions) -> Joined:
    """An existing group keeps its place; another lease is taken over."""
    config = consumer.cached_info.config
    if config.filters != (topic,) or config.ack_policy is not AckPolicy.EXPLICIT:
        raise ConfigError(
            f"group {options.group!r} is consumer {consumer.name} with filters {config.filters} and ack policy "
            f"{config.ack_policy.value}, not ({topic!r},) and explicit"
        )
    lease = config.waits[0].total_seconds()
    if options.lease is not None and seconds_of(options.lease, "lease") != lease:
        lease = seconds_of(options.lease, "lease")
        changed = replace(config, ack_wait=lease, backoff=())
        consumer = await streams.update_consumer(consumer.stream, changed)
    return Joined(streams=streams, consumer=consumer, lease=lease)


async def _join_alone(streams: StreamManager, stream: str, topic: str, options: SubscribeOptions) -> Joined:
    lease = _LEASE if options.lease is None else seconds_of(options.lease, "lease")
    config = replace(_config(topic, lease), inactive_threshold=_PRIVATE_THRESHOLD)

    async def remake(last: int) -> Consumer:
        anew = replace(config, deliver_policy=DeliverPolicy.BY_START_SEQUENCE, start_sequence=last + 1)
        return await streams.create_consumer(stream, anew)

    consumer = await streams.create_consumer(stream, _started(config, stream, options.start or Start.new()))
    return Joined(streams=streams, consumer=consumer, lease=lease, remake=remake)


def _config(topic: str, lease: float) -> ConsumerConfig:
    # No limit on what is unsettled: at 256, one member would hold all of them. No max_deliver: the worker is the judge.
    return ConsumerConfig(filter_subject=topic, ack_wait=lease, max_ack_pending=None)


def _started(config: ConsumerConfig, stream: str, start: Start) -> ConsumerConfig:
    sequence: int | None = None
    if start.kind is StartKind.AT:
        place = start.position
        if isinstance(place, Position) and place.source != stream:
            raise ConfigError(f"start is a position of {place.source!r}, the topic's stream is {stream!r}")
        value = place.value if isinstance(place, Position) else place
        sequence = max(1, value or 0)
    return replace(config, deliver_policy=_POLICIES[start.kind], start_sequence=sequence, start_time=start.time)
