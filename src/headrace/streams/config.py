"""All that streams and consumers are configured with, and what single calls take: one place to import from."""

from __future__ import annotations

from headrace.core.broker import Expect
from headrace.streams.consumer_config import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    OrderedConsumerConfig,
    PriorityPolicy,
    ReplayPolicy,
)
from headrace.streams.options import (
    FetchOptions,
    GetBatch,
    PullOptions,
    PurgeOptions,
    Rollup,
    StreamMessage,
    StreamPublishOptions,
)
from headrace.streams.stream_config import (
    Compression,
    ConsumerLimits,
    DiscardPolicy,
    ExternalStream,
    Placement,
    RePublish,
    RetentionPolicy,
    StorageType,
    StreamConfig,
    StreamSource,
    SubjectTransform,
)

__all__ = [
    "AckPolicy",
    "Compression",
    "ConsumerConfig",
    "ConsumerLimits",
    "DeliverPolicy",
    "DiscardPolicy",
    "Expect",
    "ExternalStream",
    "FetchOptions",
    "GetBatch",
    "OrderedConsumerConfig",
    "Placement",
    "PriorityPolicy",
    "PullOptions",
    "PurgeOptions",
    "RePublish",
    "ReplayPolicy",
    "RetentionPolicy",
    "Rollup",
    "StorageType",
    "StreamConfig",
    "StreamMessage",
    "StreamPublishOptions",
    "StreamSource",
    "SubjectTransform",
]
