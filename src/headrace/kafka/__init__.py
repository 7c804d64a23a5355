"""Streams on Apache Kafka. Importing this needs no driver; opening does: ``pip install 'headrace[kafka]'``."""

from headrace.kafka.broker import KafkaBroker
from headrace.kafka.consuming.delivery import KafkaDelivery
from headrace.kafka.consuming.stats import PartitionStats
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
from headrace.kafka.presets import GroupConsumer, PartitionConsumer
from headrace.kafka.producer import Producer
from headrace.kafka.reading import KafkaPartitionOptions, KafkaReadOptions, KafkaSubscribeOptions
from headrace.kafka.sending.result import ProduceResult
from headrace.kafka.stores import DirectoryOffsetStore, MemoryOffsetStore, OffsetStore
from headrace.kafka.tracker import OffsetTracker
from headrace.kafka.wire import Tombstone

__all__ = [
    "AuthenticationError",
    "AuthorizationError",
    "CommitError",
    "DirectoryOffsetStore",
    "GroupConsumer",
    "KafkaBroker",
    "KafkaDelivery",
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
    "PartitionConsumer",
    "PartitionStats",
    "ProduceBatchError",
    "ProduceResult",
    "Producer",
    "Token",
    "Tombstone",
    "UnknownGroupError",
    "UnknownTopicError",
]
