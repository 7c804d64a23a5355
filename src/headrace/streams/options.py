"""What single calls take: publish, purge, pull, fetch. Import from `headrace.streams.config`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

import msgspec

from headrace.core.broker import Expect
from headrace.core.duration import Duration, seconds_of
from headrace.core.errors import ConfigError
from headrace.core.headers import NO_HEADERS, HeadersLike
from headrace.streams.checks import check_count, check_flags, check_kind, check_text, check_time, set_duration
from headrace.streams.names import WireBlock
from headrace.streams.subjects import validate_filter, validate_subject

__all__ = [
    "DEFAULT_PULL_MESSAGES",
    "FetchOptions",
    "GetBatch",
    "PullOptions",
    "PurgeOptions",
    "Rollup",
    "StreamMessage",
    "StreamPublishOptions",
    "check_heartbeat",
]

DEFAULT_PULL_MESSAGES = 500
_LEAST_HEARTBEAT = 0.5
_MOST_HEARTBEAT = 30.0


class Rollup(Enum):
    """What a published message replaces."""

    SUBJECT = "sub"
    """All earlier ones on its subject."""
    ALL = "all"
    """All earlier ones of the stream."""


class StreamMessage(msgspec.Struct, frozen=True, gc=False):
    """What is published to a stream. Subject and headers are checked by the engine that publishes it.

    ``msg_id``: stored once per duplicate window; empty is ``ConfigError`` (a server would ignore it). ``order_key``
    (embedded): inside one `publish_many` a failed message is never overtaken by a later one of its key.
    """

    subject: str
    data: bytes = b""
    headers: HeadersLike | WireBlock = NO_HEADERS
    msg_id: str | None = None
    order_key: bytes | None = None

    def __post_init__(self) -> None:
        if self.msg_id == "":
            raise ConfigError("msg_id must not be empty, got ''")


@dataclass(frozen=True, kw_only=True)
class StreamPublishOptions:
    """Options of one publish.

    ``expect``: sequences and id that must hold; ``expect_subject``: the subject that ``last_for_topic`` speaks of, if
    not the message's. ``expect_stream``: the stream that must take it. ``ttl``: whole seconds, ``timedelta.max`` =
    never. ``timeout`` for the answer, ``stall_wait`` for room (0 = do not wait). Without a stream it is tried
    ``retry_attempts`` times more, ``retry_wait`` apart (server).
    """

    expect: Expect | None = None
    expect_stream: str | None = None
    expect_subject: str | None = None
    ttl: Duration | None = None
    rollup: Rollup | None = None
    timeout: Duration | None = None
    stall_wait: Duration | None = None
    retry_attempts: int = 2
    retry_wait: Duration = 0.25

    def __post_init__(self) -> None:
        check_kind(self, "expect", Expect)
        check_kind(self, "rollup", Rollup)
        check_text(self, "expect_stream")
        check_count(self, "retry_attempts", least=0)
        set_duration(self, "ttl", "timeout", "retry_wait")
        set_duration(self, "stall_wait", least=-1.0)
        if self.expect_stream == "":
            raise ConfigError("expect_stream must not be empty, got ''")
        if self.expect_subject is not None:
            validate_subject(self.expect_subject)
            if self.expect is None or self.expect.last_for_topic is None:
                raise ConfigError(f"expect_subject needs expect.last_for_topic, got {self.expect_subject!r}")
        if self.ttl is not None and not (seconds_of(self.ttl, "ttl") >= 1 and _is_whole(self.ttl)):
            raise ConfigError(f"ttl must be whole seconds >= 1 or timedelta.max, got {self.ttl!r}")


def _is_whole(ttl: Duration) -> bool:
    """Whole seconds; ``timedelta.max`` stands for "never" although it is none."""
    return seconds_of(ttl, "ttl").is_integer() or seconds_of(ttl, "ttl") > 1e13


@dataclass(frozen=True, kw_only=True)
class PurgeOptions:
    """What to delete: on `subject` (wildcards allowed), below `sequence`, or all but the last `keep`."""

    subject: str | None = None
    sequence: int | None = None
    keep: int | None = None

    def __post_init__(self) -> None:
        if self.subject is not None:
            validate_filter(self.subject)
        check_count(self, "sequence")
        check_count(self, "keep", least=0)
        if self.sequence is not None and self.keep is not None:
            raise ConfigError(f"keep and sequence exclude each other, got {self.keep!r}")


@dataclass(frozen=True, kw_only=True)
class GetBatch:
    """What to get: up to `batch` messages on `subject` (wildcards allowed), from a sequence or an aware time on.

    ``max_bytes``: nothing more once subjects, headers and bodies have reached it. Without a start: from the first on.
    """

    batch: int
    start_sequence: int | None = None
    start_time: datetime | None = None
    subject: str = ">"
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.batch is None:
            raise ConfigError("batch must be an integer >= 1, got None")
        check_count(self, "batch", "start_sequence", "max_bytes")
        check_time(self, "start_time")
        validate_filter(self.subject)
        if self.start_sequence is not None and self.start_time is not None:
            raise ConfigError(f"start_time and start_sequence exclude each other, got {self.start_time!r}")


@dataclass(frozen=True, kw_only=True)
class FetchOptions:
    """Priority of a fetch in its group [S]."""

    group: str | None = None
    min_pending: int | None = None
    min_ack_pending: int | None = None
    priority: int | None = None

    def __post_init__(self) -> None:
        _check_priority(self)


@dataclass(frozen=True, kw_only=True)
class PullOptions:
    """How `messages` and `consume` pull.

    At most ``max_messages`` (500; no bound when only `max_bytes` is given) and ``max_bytes`` are asked for and not yet
    handed over; below a threshold (default: half, rounded up) more is asked for. ``expires`` (30 s, >= 1 s): length of
    one pull. ``heartbeat`` (default: 5 s or half of `expires`; 0.5-30 s). ``stop_after``: so many, then it closes.
    """

    max_messages: int | None = None
    max_bytes: int | None = None
    expires: Duration = 30.0
    heartbeat: Duration | None = None
    threshold_messages: int | None = None
    threshold_bytes: int | None = None
    stop_after: int | None = None
    error_on_missing_heartbeat: bool = True
    group: str | None = None
    min_pending: int | None = None
    min_ack_pending: int | None = None
    priority: int | None = None

    def __post_init__(self) -> None:
        check_count(self, "max_messages", "max_bytes", "threshold_messages", "threshold_bytes", "stop_after")
        check_flags(self, "error_on_missing_heartbeat")
        set_duration(self, "expires", least=1.0)
        check_heartbeat(self.heartbeat, seconds_of(self.expires, "expires"))
        set_duration(self, "heartbeat")
        _check_priority(self)
        self._check_threshold("threshold_messages", self.threshold_messages, self.message_bound)
        self._check_threshold("threshold_bytes", self.threshold_bytes, self.max_bytes)

    @property
    def message_bound(self) -> int | None:
        """``max_messages``, or its default; ``None`` = no bound."""
        if self.max_messages is None and self.max_bytes is None:
            return DEFAULT_PULL_MESSAGES
        return self.max_messages

    @property
    def heartbeat_seconds(self) -> float:
        """``heartbeat``, or its default."""
        if self.heartbeat is not None:
            return seconds_of(self.heartbeat, "heartbeat")
        return min(5.0, seconds_of(self.expires, "expires") / 2)

    def _check_threshold(self, field: str, value: int | None, bound: int | None) -> None:
        if value is not None and (bound is None or value > bound):
            raise ConfigError(f"{field} must be at most its maximum ({bound}), got {value!r}")


def check_heartbeat(heartbeat: Duration | None, expires: float) -> None:
    """A given heartbeat is 0.5-30 s and at most half of `expires` (a server refuses more with 400)."""
    if heartbeat is None:
        return
    seconds = seconds_of(heartbeat, "heartbeat")
    if not _LEAST_HEARTBEAT <= seconds <= min(_MOST_HEARTBEAT, expires / 2) or math.isnan(seconds):
        raise ConfigError(f"heartbeat must be 0.5..30 s and at most half of {expires:g} s, got {heartbeat!r}")


def _check_priority(options: FetchOptions | PullOptions) -> None:
    check_text(options, "group")
    if options.group == "":
        raise ConfigError("group must not be empty, got ''")
    check_count(options, "min_pending", "min_ack_pending")
    check_count(options, "priority", least=0, most=9)
    for name in ("min_pending", "min_ack_pending", "priority"):
        if getattr(options, name) is not None and options.group is None:
            raise ConfigError(f"{name} needs group, got {getattr(options, name)!r}")
