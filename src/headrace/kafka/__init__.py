"""Streams on Apache Kafka. Importing this needs no driver; opening does: ``pip install 'headrace[kafka]'``."""

from headrace.kafka.errors import (
    AuthenticationError,
    AuthorizationError,
    CommitError,
    KafkaError,
    OffsetOutOfRangeError,
    ProduceBatchError,
    UnknownGroupError,
    UnknownTopicError,
)
from headrace.kafka.options import KafkaOptions, KafkaSecurity, Token
from headrace.kafka.reading import KafkaPartitionOptions, KafkaReadOptions, KafkaSubscribeOptions
from headrace.kafka.stores import DirectoryOffsetStore, MemoryOffsetStore, OffsetStore
from headrace.kafka.tracker import OffsetTracker

__all__ = [
    "AuthenticationError",
    "AuthorizationError",
    "CommitError",
    "DirectoryOffsetStore",
    "KafkaError",
    "KafkaOptions",
    "KafkaPartitionOptions",
    "KafkaReadOptions",
    "KafkaSecurity",
    "KafkaSubscribeOptions",
    "MemoryOffsetStore",
    "OffsetOutOfRangeError",
    "OffsetStore",
    "OffsetTracker",
    "ProduceBatchError",
    "Token",
    "UnknownGroupError",
    "UnknownTopicError",
]
