"""Stream configs as this engine takes them: what it lacks is refused aloud; what may change, what is a default."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from headrace.core.errors import UnsupportedError
from headrace.embedded.streams.catalog import window_of
from headrace.streams.config import Compression, DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
from headrace.streams.errors import error_for
from headrace.streams.subjects import overlaps

__all__ = ["check_new", "check_overlap", "check_update", "completed", "settled"]

SERVER_ONLY = (
    "no_ack", "republish", "placement", "mirror", "sources", "mirror_direct", "subject_transform",
    "subject_delete_marker_ttl", "allow_message_counter", "allow_message_schedules", "allow_batched", "extra",
)  # fmt: skip
_LEAST_AGE = 0.1
LONGEST_DESCRIPTION = 4_096
LARGEST_METADATA = 128 * 1024
_RESERVED = {"$JS.>": "jetstream", "$JSC.>": "jetstream", "$NRG.>": "jetstream", "$SYS.>": "system"}
"""Subjects that a server needs for itself."""
_FREE = ("$JS.EVENT.", "$SYS.ACCOUNT.")
"""What of them a stream may have."""


def completed(config: StreamConfig, *, in_memory: bool) -> StreamConfig:
    """The config as it is kept and shown; ``UnsupportedError`` naming the field that this engine lacks."""
    config.require_writable()
    for name in SERVER_ONLY:
        if getattr(config, name):
            raise UnsupportedError(f"{name}: only a server has it, got {getattr(config, name)!r}")
    if config.compression is not Compression.NONE:
        raise UnsupportedError(f"compression: only a server has it, got {config.compression!r}")
    if config.replicas > 1:
        raise UnsupportedError(f"replicas: there is no cluster, got {config.replicas!r}")
    if config.storage is StorageType.MEMORY and not in_memory:
        raise UnsupportedError("storage=MEMORY: processes share files only; open ':memory:'")
    age: Any = config.max_age
    window: Any = config.duplicate_window
    for name, length in (("max age", age), ("duplicates window", window)):
        if length is not None and length.total_seconds() < _LEAST_AGE:
            raise error_for(500, 10052, f"{name} needs to be >= 100ms")
    if config.allow_rollup and config.deny_purge:
        raise error_for(500, 10052, "roll-ups require the purge permission")
    config = replace(config, subjects=config.subjects or (config.name,), duplicate_window=window_of(config))
    _check_reserved(config.subjects)
    _check_sizes(config)
    return config


def _check_reserved(subjects: Iterable[str]) -> None:
    for subject in subjects:
        for reserved, api in _RESERVED.items():
            if overlaps(subject, reserved) and not subject.startswith(_FREE):
                raise error_for(500, 10052, f"subjects that overlap with {api} api require no-ack to be true")


def _check_sizes(config: StreamConfig) -> None:
    if len((config.description or "").encode()) > LONGEST_DESCRIPTION:
        text = f"stream description is too long, maximum allowed is {LONGEST_DESCRIPTION}"
        raise error_for(500, 10052, text)
    metadata = config.metadata or {}
    if sum(len(key.encode()) + len(value.encode()) for key, value in metadata.items()) > LARGEST_METADATA:
        raise error_for(500, 10052, f"stream metadata exceeds maximum size of {LARGEST_METADATA} bytes")


def settled(config: StreamConfig) -> StreamConfig:
    """The config as it is kept: in a sealed stream nothing comes or goes any more, not even by age."""
    if not config.sealed:
        return config
    return replace(
        config, max_age=None, discard=DiscardPolicy.NEW, deny_delete=True, deny_purge=True, allow_rollup=False
    )


def check_new(config: StreamConfig) -> None:
    """What only a creation refuses."""
    if config.sealed:
        raise error_for(500, 10052, "stream configuration for create can not be sealed")


def check_overlap(config: StreamConfig, others: list[StreamConfig]) -> None:
    """Subjects of streams do not overlap."""
    for other in others:
        for theirs in other.subjects:
            if other.name != config.name and any(overlaps(theirs, ours) for ours in config.subjects):
                raise error_for(400, 10065, "subjects overlap with an existing stream")


def check_update(old: StreamConfig, new: StreamConfig) -> None:
    """What an update may not change: 10052 with the reason."""
    reason = None
    if old.storage is not new.storage:
        reason = "stream configuration update can not change storage type"
    elif old.retention is not new.retention and RetentionPolicy.WORKQUEUE in (old.retention, new.retention):
        reason = "stream configuration update can not change retention policy to/from workqueue"
    elif old.first_sequence != new.first_sequence:
        reason = "stream configuration update can not change first sequence"
    else:
        for name, text in (
            ("sealed", "unseal a sealed stream"),
            ("deny_delete", "cancel deny message deletes"),
            ("deny_purge", "cancel deny purge"),
            ("allow_message_ttl", "disable message TTL"),
        ):
            if getattr(old, name) and not getattr(new, name):
                reason = f"stream configuration update can not {text}"
    if reason is not None:
        raise error_for(500, 10052, reason)
