"""What an engine says of streams, consumers and accounts: plain frozen facts, as of the moment they were asked for."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import msgspec

from headrace.streams.config import ConsumerConfig, StreamConfig

__all__ = [
    "APIStats",
    "AccountInfo",
    "AccountLimits",
    "AccountTier",
    "ClusterInfo",
    "ConsumerInfo",
    "PeerInfo",
    "PriorityGroupInfo",
    "PubAck",
    "SequenceInfo",
    "StreamInfo",
    "StreamSourceInfo",
    "StreamState",
]


class PubAck(msgspec.Struct, frozen=True, gc=False):
    """The stream has the message. ``duplicate``: it was stored before, at this sequence."""

    stream: str
    sequence: int
    duplicate: bool = False
    domain: str = ""
    batch_id: str = ""
    batch_size: int = 0


class PeerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One replica. ``active`` = silent for that long, ``lag`` = operations behind."""

    name: str
    current: bool = False
    offline: bool = False
    active: timedelta = timedelta()
    lag: int = 0


class ClusterInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Where it lives in a cluster."""

    name: str = ""
    leader: str = ""
    replicas: tuple[PeerInfo, ...] = ()


class StreamSourceInfo(msgspec.Struct, frozen=True, kw_only=True):
    """How far a mirror or source is. ``active``: since its last contact, ``None`` = none yet."""

    name: str
    lag: int = 0
    active: timedelta | None = None


class StreamState(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a stream. Times are ``None`` while it never had a message.

    ``deleted`` (sequences of the gaps) and ``subjects`` (messages per subject) are filled only when asked for.
    """

    messages: int = 0
    bytes: int = 0
    first_sequence: int = 0
    first_time: datetime | None = None
    last_sequence: int = 0
    last_time: datetime | None = None
    consumers: int = 0
    deleted: tuple[int, ...] = ()
    num_deleted: int = 0
    num_subjects: int = 0
    subjects: Mapping[str, int] = msgspec.field(default_factory=dict[str, int])


class StreamInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A stream. ``timestamp`` is the engine's time of the answer."""

    config: StreamConfig
    created: datetime
    state: StreamState
    cluster: ClusterInfo | None = None
    mirror: StreamSourceInfo | None = None
    sources: tuple[StreamSourceInfo, ...] = ()
    timestamp: datetime | None = None


class SequenceInfo(msgspec.Struct, frozen=True):
    """A place in consumer and stream: how many were delivered (or acknowledged), up to which message."""

    consumer: int = 0
    stream: int = 0
    last_active: datetime | None = None


class PriorityGroupInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A priority group, and the client pinned in it ("" = none)."""

    group: str
    pinned_client_id: str = ""
    pinned_time: datetime | None = None


class ConsumerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A consumer. ``num_pending``: matching messages never delivered; ``num_ack_pending``: delivered, not settled."""

    stream: str
    name: str
    created: datetime
    config: ConsumerConfig
    delivered: SequenceInfo = SequenceInfo()
    ack_floor: SequenceInfo = SequenceInfo()
    num_ack_pending: int = 0
    num_redelivered: int = 0
    num_waiting: int = 0
    num_pending: int = 0
    cluster: ClusterInfo | None = None
    push_bound: bool = False
    paused: bool = False
    pause_remaining: timedelta | None = None
    priority_groups: tuple[PriorityGroupInfo, ...] = ()


class APIStats(msgspec.Struct, frozen=True, kw_only=True):
    """API requests so far."""

    total: int = 0
    errors: int = 0
    level: int = 0


class AccountLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of an account or tier; ``None`` = none."""

    max_memory: int | None = None
    max_storage: int | None = None
    max_streams: int | None = None
    max_consumers: int | None = None
    max_ack_pending: int | None = None
    memory_max_stream_bytes: int | None = None
    storage_max_stream_bytes: int | None = None
    max_bytes_required: bool = False


class AccountTier(msgspec.Struct, frozen=True, kw_only=True):
    """Use and limits of one tier (R1, R3 …)."""

    memory: int = 0
    storage: int = 0
    streams: int = 0
    consumers: int = 0
    limits: AccountLimits = AccountLimits()


class AccountInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What is used, in bytes and numbers, and what may be used."""

    memory: int = 0
    storage: int = 0
    streams: int = 0
    consumers: int = 0
    domain: str = ""
    api: APIStats = APIStats()
    limits: AccountLimits = AccountLimits()
    tiers: Mapping[str, AccountTier] = msgspec.field(default_factory=dict[str, AccountTier])
