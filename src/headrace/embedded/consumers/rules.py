"""Rules: which consumer configs are taken, what their defaults are, what an update may change (the server's codes)."""

from __future__ import annotations

import secrets
from dataclasses import fields, replace
from datetime import timedelta

import apsw

from headrace.core.errors import UnsupportedError
from headrace.embedded.consumers.rows import consumers_of, nanoseconds, settings_of
from headrace.embedded.streams.catalog import StreamRecord
from headrace.streams.config import AckPolicy, ConsumerConfig, ConsumerLimits, DeliverPolicy, RetentionPolicy
from headrace.streams.errors import ApiError, error_for
from headrace.streams.subjects import overlaps

__all__ = [
    "check_config",
    "check_consumers",
    "check_new",
    "check_supported",
    "check_update",
    "complete",
    "going_on",
    "refused",
    "same",
]

_EPHEMERAL = timedelta(seconds=5)
_ACK_WAIT = timedelta(seconds=30)
_MAX_WAITING = 512
_DEFAULT_ACK_PENDING = ConsumerConfig.max_ack_pending
_LEAST_EXPIRES = 1_000_000
_NO_LIMITS = ConsumerLimits()
_FIXED = {
    "deliver_policy": "deliver policy can not be updated",
    "start_sequence": "start sequence can not be updated",
    "start_time": "start time can not be updated",
    "ack_policy": "ack policy can not be updated",
    "replay_policy": "replay policy can not be updated",
    "max_waiting": "max waiting can not be updated",
    "memory_storage": "storage can not be updated",
}
_SERVER_ONLY = ("sample_frequency", "pinned_ttl")


def refused(err_code: int, description: str) -> ApiError:
    """The error of a refused request."""
    return error_for(400, err_code, description)


def check_supported(config: ConsumerConfig) -> None:
    """``UnsupportedError`` for what only a server has."""
    config.require_writable()
    for name in _SERVER_ONLY:
        if getattr(config, name) is not None:
            raise UnsupportedError(name)
    if config.priority_groups:
        raise UnsupportedError("priority_groups")
    if (config.replicas or 1) > 1:
        raise UnsupportedError("replicas")
    if config.extra:
        raise UnsupportedError(", ".join(config.extra))


def complete(config: ConsumerConfig, limits: ConsumerLimits | None) -> ConsumerConfig:
    """With its defaults written in, as a server shows it. What the stream limits has its limit as default."""
    limits = limits or _NO_LIMITS
    none = config.ack_policy is AckPolicy.NONE
    wait = config.waits[0] if config.backoff else (config.ack_wait or (None if none else _ACK_WAIT))
    threshold = config.inactive_threshold
    if threshold is None:
        threshold = limits.inactive_threshold or (_EPHEMERAL if config.durable is None else None)
    most = config.max_ack_pending
    if most == _DEFAULT_ACK_PENDING and (none or limits.max_ack_pending is not None):
        most = limits.max_ack_pending
    filters = config.filters
    return replace(
        config,
        name=config.effective_name or secrets.token_hex(6),
        ack_wait=wait,
        max_ack_pending=most,
        max_waiting=config.max_waiting or _MAX_WAITING,
        inactive_threshold=threshold,
        filter_subject=filters[0] if len(filters) == 1 else None,
        filter_subjects=filters if len(filters) > 1 else (),
        metadata=config.metadata or None,
        replicas=None,
    )


def going_on(old: ConsumerConfig, new: ConsumerConfig) -> ConsumerConfig:
    """A pause outlives an update, and is not changed by one."""
    if new.pause_until not in {None, old.pause_until}:
        raise UnsupportedError(f"pause_until of an existing consumer: use pause and resume, got {new.pause_until}")
    return replace(new, pause_until=old.pause_until)


def same(one: ConsumerConfig, other: ConsumerConfig) -> bool:
    """Whether two complete configs say the same."""
    return one == replace(other, name=one.name) and one.durable == other.durable


def check_config(record: StreamRecord, config: ConsumerConfig) -> None:
    """Refuse what no consumer of the stream may be, there already or not. All checks stand in a server's order."""
    if record.config.retention is RetentionPolicy.WORKQUEUE and config.ack_policy is AckPolicy.NONE:
        raise refused(10084, "consumer in pull mode requires explicit ack policy on workqueue stream")
    if (nanoseconds(config.max_request_expires) or _LEAST_EXPIRES) < _LEAST_EXPIRES:
        raise refused(10115, "consumer max request expires needs to be >= 1ms")
    over = _exceeded(record.config.consumer_limits, config)
    if over is not None:
        raise refused(*over)
    if config.deliver_policy is DeliverPolicy.LAST_PER_SUBJECT and not config.filters:
        raise refused(10094, "consumer delivery policy is deliver last per subject, but filter subject is not set")


def check_new(connection: apsw.Connection, record: StreamRecord, config: ConsumerConfig) -> None:
    """Refuse what a server refuses at creation."""
    most = record.config.max_consumers
    if most is not None and len(consumers_of(connection, record.id)) >= most:
        raise refused(10026, "maximum consumers limit reached")
    if record.config.retention is RetentionPolicy.WORKQUEUE:
        if config.ack_policy is not AckPolicy.EXPLICIT:
            raise refused(10098, "workqueue stream requires explicit ack")
        if config.deliver_policy is not DeliverPolicy.ALL:
            raise refused(10101, "consumer must be deliver all on workqueue stream")
    _check_retention(connection, record, config, None)


def check_update(
    connection: apsw.Connection, record: StreamRecord, old: ConsumerConfig, new: ConsumerConfig, name: str
) -> None:
    """Refuse what must stay as it is."""
    _check_retention(connection, record, new, name)
    for field in fields(ConsumerConfig):
        if field.name in _FIXED and getattr(old, field.name) != getattr(new, field.name):
            raise error_for(500, 10012, _FIXED[field.name])


def check_consumers(connection: apsw.Connection, record: StreamRecord) -> None:
    """No consumer of a stream may exceed its new limits."""
    limits = record.config.consumer_limits
    found = [
        row.name for row in consumers_of(connection, record.id) if _exceeded(limits, settings_of(row.config).config)
    ]
    if found:
        raise error_for(500, 10069, f"change to limits violates consumers: {', '.join(found)}")


def _exceeded(limits: ConsumerLimits | None, config: ConsumerConfig) -> tuple[int, str] | None:
    """What of the stream's limits a consumer exceeds, as code and text; no limit of its own exceeds none."""
    if limits is None:
        return None
    most, longest = limits.max_ack_pending, nanoseconds(limits.inactive_threshold)
    if most is not None and (config.max_ack_pending or 0) > most:
        return 10121, f"consumer max ack pending exceeds system limit of {most}"
    if longest is not None and (nanoseconds(config.inactive_threshold) or 0) > longest:
        return 10153, f"consumer inactive threshold exceeds system limit of {longest / 1e9:g}s"
    return None


def _check_retention(
    connection: apsw.Connection, record: StreamRecord, config: ConsumerConfig, name: str | None
) -> None:
    """No message of a workqueue has two consumers."""
    if record.config.retention is not RetentionPolicy.WORKQUEUE:
        return
    for row in consumers_of(connection, record.id):
        if row.name == name:
            continue
        filters = settings_of(row.config).config.filters
        if not config.filters:
            raise refused(10099, "multiple non-filtered consumers not allowed on workqueue stream")
        if not filters or any(overlaps(one, other) for one in filters for other in config.filters):
            raise refused(10100, "filtered consumer not unique on workqueue stream")
