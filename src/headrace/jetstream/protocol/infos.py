"""What a server says of streams, consumers and accounts: its JSON as the plain facts of `streams.info`.

`StreamError` for nonsense: what must be there is missing, or a value is of another kind.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from headrace.jetstream.protocol.configs import consumer_config_from_json, stream_config_from_json
from headrace.jetstream.protocol.values import (
    flag,
    length,
    optional,
    record,
    required,
    section,
    sections,
    text,
    time,
    whole,
    wholes,
)
from headrace.streams.errors import StreamError
from headrace.streams.info import (
    AccountInfo,
    AccountLimits,
    AccountTier,
    APIStats,
    ClusterInfo,
    ConsumerInfo,
    PeerInfo,
    PriorityGroupInfo,
    SequenceInfo,
    StreamInfo,
    StreamSourceInfo,
    StreamState,
)

__all__ = ["account_info", "consumer_info", "stream_info"]


def stream_info(data: dict[str, Any]) -> StreamInfo:
    """The answer to a create, update or info of a stream, or one entry of a list."""
    where = "stream info"
    created = required(data, "created", time, where)
    if created is None:
        raise StreamError(f"{where}: created must be a time, got {data['created']!r}")
    return StreamInfo(
        config=stream_config_from_json(required(data, "config", record, where)),
        created=created,
        state=_state(required(data, "state", record, where)),
        cluster=_cluster(data, where),
        mirror=optional(data, "mirror", _source, None, where),
        sources=tuple(_source(each, where) for each in sections(data, "sources", where)),
        timestamp=optional(data, "ts", time, None, where),
    )


def consumer_info(data: dict[str, Any]) -> ConsumerInfo:
    """The answer to a create or info of a consumer, or one entry of a list."""
    where = "consumer info"
    created = required(data, "created", time, where)
    if created is None:
        raise StreamError(f"{where}: created must be a time, got {data['created']!r}")
    groups = sections(data, "priority_groups", where)
    return ConsumerInfo(
        stream=required(data, "stream_name", text, where),
        name=required(data, "name", text, where),
        created=created,
        config=consumer_config_from_json(required(data, "config", record, where)),
        delivered=_sequence(data, "delivered", where),
        ack_floor=_sequence(data, "ack_floor", where),
        num_ack_pending=optional(data, "num_ack_pending", whole, 0, where),
        num_redelivered=optional(data, "num_redelivered", whole, 0, where),
        num_waiting=optional(data, "num_waiting", whole, 0, where),
        num_pending=optional(data, "num_pending", whole, 0, where),
        cluster=_cluster(data, where),
        push_bound=optional(data, "push_bound", flag, False, where),
        paused=optional(data, "paused", flag, False, where),
        pause_remaining=optional(data, "pause_remaining", length, None, where),
        priority_groups=tuple(_group(each, f"{where}: priority_groups") for each in groups),
    )


def account_info(data: dict[str, Any]) -> AccountInfo:
    """The answer to INFO. Where an account has tiers, its limits are theirs."""
    where = "account info"
    api = section(data, "api", where)
    tiers = section(data, "tiers", where)
    return AccountInfo(
        memory=required(data, "memory", whole, where),
        storage=required(data, "storage", whole, where),
        streams=required(data, "streams", whole, where),
        consumers=required(data, "consumers", whole, where),
        domain=optional(data, "domain", text, "", where),
        api=APIStats(
            total=optional(api, "total", whole, 0, where),
            errors=optional(api, "errors", whole, 0, where),
            level=optional(api, "level", whole, 0, where),
        ),
        limits=_limits(data, where),
        tiers={name: _tier(record(tier, where), f"{where}: {name}") for name, tier in tiers.items()},
    )


def _state(data: dict[str, Any]) -> StreamState:
    where = "stream state"
    nothing: tuple[int, ...] = ()
    deleted = optional(data, "deleted", wholes, nothing, where)
    subjects = section(data, "subjects", where)
    return StreamState(
        messages=required(data, "messages", whole, where),
        bytes=required(data, "bytes", whole, where),
        first_sequence=required(data, "first_seq", whole, where),
        first_time=optional(data, "first_ts", time, None, where),
        last_sequence=required(data, "last_seq", whole, where),
        last_time=optional(data, "last_ts", time, None, where),
        consumers=optional(data, "consumer_count", whole, 0, where),
        deleted=deleted,
        num_deleted=optional(data, "num_deleted", whole, len(deleted), where),
        num_subjects=optional(data, "num_subjects", whole, len(subjects), where),
        subjects={name: whole(count, f"{where}: subjects") for name, count in subjects.items()},
    )


def _sequence(data: dict[str, Any], name: str, where: str) -> SequenceInfo:
    given = required(data, name, record, where)
    where = f"{where}: {name}"
    return SequenceInfo(
        consumer=required(given, "consumer_seq", whole, where),
        stream=required(given, "stream_seq", whole, where),
        last_active=optional(given, "last_active", time, None, where),
    )


def _cluster(data: dict[str, Any], where: str) -> ClusterInfo | None:
    given = section(data, "cluster", where)
    if not given:
        return None
    where = f"{where}: cluster"
    return ClusterInfo(
        name=optional(given, "name", text, "", where),
        leader=optional(given, "leader", text, "", where),
        replicas=tuple(_peer(each, where) for each in sections(given, "replicas", where)),
    )


def _peer(data: dict[str, Any], where: str) -> PeerInfo:
    return PeerInfo(
        name=required(data, "name", text, where),
        current=optional(data, "current", flag, False, where),
        offline=optional(data, "offline", flag, False, where),
        active=optional(data, "active", length, timedelta(), where),
        lag=optional(data, "lag", whole, 0, where),
    )


def _source(value: object, where: str) -> StreamSourceInfo:
    data = record(value, where)
    active = optional(data, "active", length, None, where)
    return StreamSourceInfo(
        name=required(data, "name", text, where),
        lag=optional(data, "lag", whole, 0, where),
        active=None if active is None or active < timedelta() else active,  # -1: no contact yet
    )


def _group(data: dict[str, Any], where: str) -> PriorityGroupInfo:
    return PriorityGroupInfo(
        group=required(data, "group", text, where),
        pinned_client_id=optional(data, "pinned_client_id", text, "", where),
        pinned_time=optional(data, "pinned_ts", time, None, where),
    )


def _tier(data: dict[str, Any], where: str) -> AccountTier:
    return AccountTier(
        memory=optional(data, "memory", whole, 0, where),
        storage=optional(data, "storage", whole, 0, where),
        streams=optional(data, "streams", whole, 0, where),
        consumers=optional(data, "consumers", whole, 0, where),
        limits=_limits(data, where),
    )


def _limits(data: dict[str, Any], where: str) -> AccountLimits:
    given = section(data, "limits", where)
    where = f"{where}: limits"

    def most(name: str) -> int | None:
        """-1 is no limit; 0 is one of its own ("nothing")."""
        limit = optional(given, name, whole, -1, where)
        return limit if limit >= 0 else None

    return AccountLimits(
        max_memory=most("max_memory"),
        max_storage=most("max_storage"),
        max_streams=most("max_streams"),
        max_consumers=most("max_consumers"),
        max_ack_pending=most("max_ack_pending"),
        memory_max_stream_bytes=most("memory_max_stream_bytes"),
        storage_max_stream_bytes=most("storage_max_stream_bytes"),
        max_bytes_required=optional(given, "max_bytes_required", flag, False, where),
    )
