"""Rules: which consumer configs are taken, what their defaults are, what an update may change (the server's codes)."""

from __future__ import annotations

import secrets
from dataclasses import fields, replace
from datetime import timedelta

import apsw

from headrace.core.errors import UnsupportedError
from headrace.embedded.consumers.rows import consumers_of, settings_of
from headrace.embedded.streams.catalog import StreamRecord
from headrace.streams.config import AckPolicy, ConsumerConfig, DeliverPolicy, ReplayPolicy, RetentionPolicy
from headrace.streams.errors import ApiError, error_for
from headrace.streams.subjects import overlaps

__all__ = ["check_new", "check_supported", "check_update", "complete", "refused", "same"]

_EPHEMERAL = timedelta(seconds=5)
_ACK_WAIT = timedelta(seconds=30)
_MAX_WAITING = 512
_FIXED = {
    "deliver_policy": "deliver policy can not be updated",
    "start_sequence": "start sequence can not be updated",
    "start_time": "start time can not be updated",
    "ack_policy": "ack policy can not be updated",
    "replay_policy": "replay policy can not be updated",
    "max_waiting": "max waiting can not be updated",
    "memory_storage": "storage can not be updated",
}
_LATER = ("max_request_batch", "max_request_expires", "max_request_max_bytes", "pause_until")
_SERVER_ONLY = ("sample_frequency", "pinned_ttl")


def refused(err_code: int, description: str) -> ApiError:
    """The error of a refused request."""
    return error_for(400, err_code, description)


def check_supported(config: ConsumerConfig) -> None:
    """``UnsupportedError`` for what only a server has, or what is not built yet."""
    config.require_writable()
    for name in (*_SERVER_ONLY, *_LATER):
        if getattr(config, name) is not None:
            raise UnsupportedError(name)
    if config.priority_groups:
        raise UnsupportedError("priority_groups")
    if (config.replicas or 1) > 1:
        raise UnsupportedError("replicas")
    if config.replay_policy is ReplayPolicy.ORIGINAL:
        raise UnsupportedError("replay_policy=ORIGINAL")
    if config.extra:
        raise UnsupportedError(", ".join(config.extra))


def complete(config: ConsumerConfig) -> ConsumerConfig:
    """With its defaults written in, as a server shows it."""
    none = config.ack_policy is AckPolicy.NONE
    wait = config.waits[0] if config.backoff else (config.ack_wait or _ACK_WAIT)
    threshold = config.inactive_threshold
    if threshold is None and config.durable is None:
        threshold = _EPHEMERAL
    filters = config.filters
    return replace(
        config,
        name=config.effective_name or secrets.token_hex(6),
        ack_wait=None if none else wait,
        max_ack_pending=None if none else config.max_ack_pending,
        max_waiting=config.max_waiting or _MAX_WAITING,
        inactive_threshold=threshold,
        filter_subject=filters[0] if len(filters) == 1 else None,
        filter_subjects=filters if len(filters) > 1 else (),
        metadata=config.metadata or None,
        replicas=None,
    )


def same(one: ConsumerConfig, other: ConsumerConfig) -> bool:
    """Whether two complete configs say the same."""
    return one == replace(other, name=one.name) and one.durable == other.durable


def check_new(connection: apsw.Connection, record: StreamRecord, config: ConsumerConfig) -> None:
    """Refuse what a server refuses at creation."""
    _check_start(config)
    _check_retention(connection, record, config, None)
    most = record.config.max_consumers
    if most is not None and len(consumers_of(connection, record.id)) >= most:
        raise refused(10026, "maximum consumers limit reached")


def check_update(
    connection: apsw.Connection, record: StreamRecord, old: ConsumerConfig, new: ConsumerConfig, name: str
) -> None:
    """Refuse what must stay as it is."""
    for field in fields(ConsumerConfig):
        if field.name in _FIXED and getattr(old, field.name) != getattr(new, field.name):
            raise refused(10012, _FIXED[field.name])
    _check_retention(connection, record, new, name)


def _check_start(config: ConsumerConfig) -> None:
    if config.deliver_policy is DeliverPolicy.LAST_PER_SUBJECT and not config.filters:
        raise refused(10094, "consumer delivery policy is deliver last per subject, but filter subject is not set")


def _check_retention(
    connection: apsw.Connection, record: StreamRecord, config: ConsumerConfig, name: str | None
) -> None:
    if record.config.retention is not RetentionPolicy.WORKQUEUE:
        return
    if config.ack_policy is AckPolicy.NONE:
        raise refused(10084, "consumer in pull mode requires explicit ack policy on workqueue stream")
    if config.ack_policy is not AckPolicy.EXPLICIT:
        raise refused(10098, "workqueue stream requires explicit ack")
    if config.deliver_policy is not DeliverPolicy.ALL:
        raise refused(10101, "consumer must be deliver all on workqueue stream")
    for row in consumers_of(connection, record.id):
        if row.name == name:
            continue
        filters = settings_of(row.config).config.filters
        if not config.filters:
            raise refused(10099, "multiple non-filtered consumers not allowed on workqueue stream")
        if not filters or any(overlaps(one, other) for one in filters for other in config.filters):
            raise refused(10100, "filtered consumer not unique on workqueue stream")
