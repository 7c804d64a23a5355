"""StreamConfig and its parts. Import from `headrace.streams.config`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

from headrace.core.duration import Duration, seconds_of
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
)
from headrace.streams.subjects import overlaps, validate_filter, validate_name

__all__ = [
    "Compression",
    "ConsumerLimits",
    "DiscardPolicy",
    "ExternalStream",
    "Placement",
    "RePublish",
    "RetentionPolicy",
    "StorageType",
    "StreamConfig",
    "StreamSource",
    "SubjectTransform",
]


class RetentionPolicy(Enum):
    """When a message may go, besides the limits."""

    LIMITS = "limits"
    """Never but for the limits."""
    INTEREST = "interest"
    """Once every consumer of its subject has acknowledged it."""
    WORKQUEUE = "workqueue"
    """Once its one consumer has acknowledged it."""


class DiscardPolicy(Enum):
    """What happens at a limit."""

    OLD = "old"
    """The oldest messages go."""
    NEW = "new"
    """New messages are refused."""


class StorageType(Enum):
    """Where messages are kept."""

    FILE = "file"
    MEMORY = "memory"


class Compression(Enum):
    """How a server stores messages [S]."""

    NONE = "none"
    S2 = "s2"


@dataclass(frozen=True, kw_only=True)
class RePublish:
    """Publish every stored message again, plainly [S]. Subjects `source` (all if None) become `destination`."""

    source: str | None = None
    destination: str
    headers_only: bool = False

    def __post_init__(self) -> None:
        check_text(self, "source", "destination")
        check_flags(self, "headers_only")
        if not self.destination:
            raise ConfigError(f"destination must not be empty, got {self.destination!r}")


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Which servers may hold it [S]."""

    cluster: str | None = None
    tags: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_text(self, "cluster")
        set_texts(self, "tags")


@dataclass(frozen=True, kw_only=True)
class SubjectTransform:
    """Subjects that match `source` become `destination` [S]."""

    source: str
    destination: str

    def __post_init__(self) -> None:
        check_text(self, "source", "destination")
        if not self.destination:
            raise ConfigError(f"destination must not be empty, got {self.destination!r}")


@dataclass(frozen=True, kw_only=True)
class ExternalStream:
    """A stream in another account or domain [S]."""

    api_prefix: str
    deliver_prefix: str | None = None

    def __post_init__(self) -> None:
        check_text(self, "api_prefix", "deliver_prefix")
        if not self.api_prefix:
            raise ConfigError(f"api_prefix must not be empty, got {self.api_prefix!r}")


@dataclass(frozen=True, kw_only=True)
class StreamSource:
    """What a stream copies from [S]. ``domain`` is short for an external API prefix; both: ``ConfigError``."""

    name: str
    start_sequence: int | None = None
    start_time: datetime | None = None
    filter_subject: str | None = None
    external: ExternalStream | None = None
    domain: str | None = None
    subject_transforms: Sequence[SubjectTransform] = ()

    def __post_init__(self) -> None:
        validate_name(self.name)
        check_count(self, "start_sequence")
        check_time(self, "start_time")
        check_kind(self, "external", ExternalStream)
        check_text(self, "domain")
        if self.filter_subject is not None:
            validate_filter(self.filter_subject)
        if self.start_sequence is not None and self.start_time is not None:
            raise ConfigError(f"start_time and start_sequence exclude each other, got {self.start_time!r}")
        if self.domain is not None and (self.external is not None or not self.domain):
            raise ConfigError(f"domain must not be empty nor given with external, got {self.domain!r}")
        object.__setattr__(self, "subject_transforms", tuple(self.subject_transforms))


@dataclass(frozen=True, kw_only=True)
class ConsumerLimits:
    """Limits and defaults for the consumers of a stream."""

    inactive_threshold: Duration | None = None
    max_ack_pending: int | None = None

    def __post_init__(self) -> None:
        set_duration(self, "inactive_threshold")
        check_count(self, "max_ack_pending")


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """What a stream is. ``None`` = default or no limit; lengths of time read as ``timedelta``.

    ``subjects``: what it stores (default: its name, unless it mirrors or sources). Limits: ``max_messages``,
    ``max_bytes`` (bytes), ``max_age``, ``max_messages_per_subject``, ``max_message_size`` (bytes, headers included),
    ``max_consumers``; ``discard`` says what happens at them. ``duplicate_window``: how long ids are remembered
    (default 2 min, at most ``max_age``). [S] server only. ``extra``: fields of a newer server, sent back unread.
    """

    name: str
    description: str | None = None
    subjects: Sequence[str] = ()
    retention: RetentionPolicy = RetentionPolicy.LIMITS
    max_consumers: int | None = None
    max_messages: int | None = None
    max_bytes: int | None = None
    max_age: Duration | None = None
    max_messages_per_subject: int | None = None
    max_message_size: int | None = None
    discard: DiscardPolicy = DiscardPolicy.OLD
    discard_new_per_subject: bool = False
    storage: StorageType = StorageType.FILE
    duplicate_window: Duration | None = None
    sealed: bool = False
    deny_delete: bool = False
    deny_purge: bool = False
    allow_rollup: bool = False
    allow_direct: bool = False
    metadata: Mapping[str, str] | None = None
    template_owner: str | None = None
    no_ack: bool = False
    republish: RePublish | None = None
    replicas: int = 1
    placement: Placement | None = None
    mirror: StreamSource | None = None
    sources: Sequence[StreamSource] = ()
    mirror_direct: bool = False
    first_sequence: int | None = None
    consumer_limits: ConsumerLimits | None = None
    allow_message_ttl: bool = False
    allow_atomic: bool = False
    compression: Compression = Compression.NONE
    subject_transform: SubjectTransform | None = None
    subject_delete_marker_ttl: Duration | None = None
    allow_message_counter: bool = False
    allow_message_schedules: bool = False
    allow_batched: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        validate_name(self.name)
        check_text(self, "description", "template_owner")
        self._check_subjects()
        check_count(self, *_COUNTS)
        check_count(self, "replicas", most=5)
        check_flags(self, *_FLAGS)
        set_duration(self, "max_age", "duplicate_window", "subject_delete_marker_ttl")
        for name, kind in _KINDS.items():
            check_kind(self, name, kind)
        set_mapping(self, "metadata")
        self._check_together()

    def require_writable(self) -> None:
        """``UnsupportedError`` for what can only be read: engines ask it before create and update."""
        if self.template_owner:
            raise UnsupportedError(f"template_owner can only be read, got {self.template_owner!r}")

    def _check_subjects(self) -> None:
        set_texts(self, "subjects")
        for place, subject in enumerate(self.subjects):
            validate_filter(subject)
            for earlier in self.subjects[:place]:
                if overlaps(earlier, subject):
                    raise ConfigError(f"subjects must not overlap, got {earlier!r} and {subject!r}")

    def _check_together(self) -> None:
        object.__setattr__(self, "sources", tuple(self.sources))
        if self.mirror is not None and (self.subjects or self.sources):
            raise ConfigError(f"mirror excludes subjects and sources, got {self.mirror!r}")
        if self.discard_new_per_subject and (
            self.discard is not DiscardPolicy.NEW or self.max_messages_per_subject is None
        ):
            raise ConfigError("discard_new_per_subject needs discard NEW and max_messages_per_subject, got True")
        window, age = self.duplicate_window, self.max_age
        if window is not None and age is not None and seconds_of(window, "") > seconds_of(age, ""):
            raise ConfigError(f"duplicate_window must be at most max_age ({age}), got {window}")


_COUNTS = (
    "max_consumers",
    "max_messages",
    "max_bytes",
    "max_messages_per_subject",
    "max_message_size",
    "first_sequence",
)
_FLAGS = (
    "discard_new_per_subject",
    "sealed",
    "deny_delete",
    "deny_purge",
    "allow_rollup",
    "allow_direct",
    "no_ack",
    "mirror_direct",
    "allow_message_ttl",
    "allow_atomic",
    "allow_message_counter",
    "allow_message_schedules",
    "allow_batched",
)
_KINDS: dict[str, type[Any]] = {
    "retention": RetentionPolicy,
    "discard": DiscardPolicy,
    "storage": StorageType,
    "compression": Compression,
    "republish": RePublish,
    "placement": Placement,
    "mirror": StreamSource,
    "consumer_limits": ConsumerLimits,
    "subject_transform": SubjectTransform,
}
