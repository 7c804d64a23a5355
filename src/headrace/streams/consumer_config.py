"""ConsumerConfig and OrderedConsumerConfig. Import from `headrace.streams.config`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from headrace.core.duration import Duration
from headrace.core.errors import ConfigError, UnsupportedError
from headrace.streams.checks import (
    check_count,
    check_flags,
    check_kind,
    check_text,
    check_time,
    set_duration,
    set_mapping,
    set_texts,
    timedelta_of,
)
from headrace.streams.errors import InvalidConsumerNameError
from headrace.streams.subjects import overlaps, validate_consumer_name, validate_filter

__all__ = [
    "AckPolicy",
    "ConsumerConfig",
    "DeliverPolicy",
    "OrderedConsumerConfig",
    "PriorityPolicy",
    "ReplayPolicy",
]

_DEFAULT_ACK_WAIT = timedelta(seconds=30)


class DeliverPolicy(Enum):
    """Where a consumer begins."""

    ALL = "all"
    LAST = "last"
    NEW = "new"
    BY_START_SEQUENCE = "by_start_sequence"
    BY_START_TIME = "by_start_time"
    LAST_PER_SUBJECT = "last_per_subject"


class AckPolicy(Enum):
    """What an acknowledgement covers."""

    EXPLICIT = "explicit"
    """Its one message."""
    ALL = "all"
    """All up to its message."""
    NONE = "none"
    """There are none: delivered is done."""


class ReplayPolicy(Enum):
    """How fast stored messages come."""

    INSTANT = "instant"
    ORIGINAL = "original"
    """In the rhythm in which they were stored."""


class PriorityPolicy(Enum):
    """Which pull of a priority group is served first [S]."""

    NONE = "none"
    OVERFLOW = "overflow"
    PINNED_CLIENT = "pinned_client"
    PRIORITIZED = "prioritized"


@dataclass(frozen=True, kw_only=True)
class ConsumerConfig:
    """What a consumer is. ``None`` = default or no limit; lengths of time read as ``timedelta``.

    ``durable`` survives; ``name`` alone is ephemeral unless `inactive_threshold` is long; both must be equal; neither:
    the engine makes a name. ``ack_wait`` (30 s): until an unsettled message comes again; ``backoff`` replaces it, its
    last entry repeats. ``max_deliver``: deliveries in all. ``max_ack_pending`` (1000): delivered and unsettled, over
    all readers. ``inactive_threshold``: gone after so long without a reader (ephemeral: 5 s). [S] server only.
    """

    name: str | None = None
    durable: str | None = None
    description: str | None = None
    deliver_policy: DeliverPolicy = DeliverPolicy.ALL
    start_sequence: int | None = None
    start_time: datetime | None = None
    ack_policy: AckPolicy = AckPolicy.EXPLICIT
    ack_wait: Duration | None = None
    max_deliver: int | None = None
    backoff: Sequence[Duration] = ()
    filter_subject: str | None = None
    filter_subjects: Sequence[str] = ()
    replay_policy: ReplayPolicy = ReplayPolicy.INSTANT
    rate_limit: int | None = None
    max_waiting: int | None = None
    max_ack_pending: int | None = 1000
    headers_only: bool = False
    max_request_batch: int | None = None
    max_request_expires: Duration | None = None
    max_request_max_bytes: int | None = None
    inactive_threshold: Duration | None = None
    memory_storage: bool = False
    metadata: Mapping[str, str] | None = None
    replicas: int | None = None
    sample_frequency: int | None = None
    pause_until: datetime | None = None
    priority_groups: Sequence[str] = ()
    priority_policy: PriorityPolicy = PriorityPolicy.NONE
    pinned_ttl: Duration | None = None
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        self._check_names()
        _check_start(self)
        check_kind(self, "ack_policy", AckPolicy)
        check_kind(self, "replay_policy", ReplayPolicy)
        check_kind(self, "priority_policy", PriorityPolicy)
        check_count(self, "max_deliver", "rate_limit", "max_waiting", "max_ack_pending")
        check_count(self, "max_request_batch", "max_request_max_bytes")
        check_count(self, "replicas", most=5)
        check_count(self, "sample_frequency", least=0, most=100)
        check_flags(self, "headers_only", "memory_storage")
        set_duration(self, "ack_wait", "max_request_expires", "inactive_threshold", "pinned_ttl")
        check_time(self, "pause_until")
        set_mapping(self, "metadata")
        self._check_filters()
        self._check_backoff()
        set_texts(self, "priority_groups")
        if bool(self.priority_groups) is (self.priority_policy is PriorityPolicy.NONE):
            raise ConfigError(f"priority_groups and priority_policy go together, got {self.priority_groups!r}")

    @property
    def effective_name(self) -> str | None:
        """``durable``, else ``name``; ``None``: the engine makes one."""
        return self.durable if self.durable is not None else self.name

    @property
    def filters(self) -> tuple[str, ...]:
        """Its filters in either form; none = everything."""
        return (self.filter_subject,) if self.filter_subject is not None else tuple(self.filter_subjects)

    @property
    def waits(self) -> tuple[timedelta, ...]:
        """The ack wait of the first, second … delivery; the last repeats. At least one."""
        if self.backoff:
            return tuple(timedelta_of(wait, "backoff") for wait in self.backoff)
        return (_DEFAULT_ACK_WAIT if self.ack_wait is None else timedelta_of(self.ack_wait, "ack_wait"),)

    def require_writable(self) -> None:
        """``UnsupportedError`` for what only push consumers have: engines ask it before create and update."""
        if self.rate_limit is not None:
            raise UnsupportedError(f"rate_limit is for push consumers, which headrace has not, got {self.rate_limit!r}")

    def _check_names(self) -> None:
        check_text(self, "description")
        for name in (self.name, self.durable):
            if name is not None:
                validate_consumer_name(name)
        if self.name is not None and self.durable is not None and self.name != self.durable:
            raise InvalidConsumerNameError(f"name and durable must be equal, got {self.name!r} and {self.durable!r}")

    def _check_filters(self) -> None:
        set_texts(self, "filter_subjects")
        if self.filter_subject is not None and self.filter_subjects:
            raise ConfigError(f"filter_subject excludes filter_subjects, got {self.filter_subjects!r}")
        _check_filters(self.filters)

    def _check_backoff(self) -> None:
        if isinstance(self.backoff, str | bytes) or not isinstance(self.backoff, Sequence):
            raise ConfigError(f"backoff must be a sequence of lengths of time, got {self.backoff!r}")
        waits = tuple(timedelta_of(wait, "backoff") for wait in self.backoff)
        object.__setattr__(self, "backoff", waits)
        if waits and self.ack_wait is not None and self.ack_wait != waits[0]:
            raise ConfigError(f"ack_wait must be the first of backoff ({waits[0]}), got {self.ack_wait}")
        if self.max_deliver is not None and len(waits) > self.max_deliver:
            raise ConfigError(f"backoff must have at most max_deliver ({self.max_deliver}) entries, got {len(waits)}")


@dataclass(frozen=True, kw_only=True)
class OrderedConsumerConfig:
    """How to read everything once, in order, without acknowledging.

    ``inactive_threshold`` (default 5 min): its engine-side consumer goes after so long without a reader; it is made
    anew then. ``max_reset_attempts``: failures in a row to make it anew (``None`` = no end).
    """

    filter_subjects: Sequence[str] = ()
    deliver_policy: DeliverPolicy = DeliverPolicy.ALL
    start_sequence: int | None = None
    start_time: datetime | None = None
    replay_policy: ReplayPolicy = ReplayPolicy.INSTANT
    inactive_threshold: Duration | None = None
    headers_only: bool = False
    max_reset_attempts: int | None = None
    name_prefix: str | None = None
    metadata: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        set_texts(self, "filter_subjects")
        _check_filters(tuple(self.filter_subjects))
        _check_start(self)
        check_kind(self, "replay_policy", ReplayPolicy)
        set_duration(self, "inactive_threshold")
        check_flags(self, "headers_only")
        check_count(self, "max_reset_attempts")
        set_mapping(self, "metadata")
        if self.name_prefix is not None:
            validate_consumer_name(self.name_prefix)


def _check_start(config: ConsumerConfig | OrderedConsumerConfig) -> None:
    check_kind(config, "deliver_policy", DeliverPolicy)
    check_count(config, "start_sequence")
    check_time(config, "start_time")
    for name, policy in (
        ("start_sequence", DeliverPolicy.BY_START_SEQUENCE),
        ("start_time", DeliverPolicy.BY_START_TIME),
    ):
        value = getattr(config, name)
        if (value is not None) is not (config.deliver_policy is policy):
            raise ConfigError(f"{name} and deliver_policy {policy.name} go together, got {value!r}")


def _check_filters(filters: Sequence[str]) -> None:
    for place, subject in enumerate(filters):
        validate_filter(subject)
        for earlier in filters[:place]:
            if overlaps(earlier, subject):
                raise ConfigError(f"filter_subjects must not overlap, got {earlier!r} and {subject!r}")
