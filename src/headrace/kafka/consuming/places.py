"""Places: a partition, and an offset in it, in the driver's words; and which errors end a reader."""

from __future__ import annotations

from typing import Any

from headrace.kafka import driver
from headrace.kafka.codes import Code
from headrace.kafka.errors import AuthenticationError, AuthorizationError, KafkaError, UnknownTopicError

__all__ = ["Key", "ends", "place"]

Key = tuple[str, int]
"""Topic and number of a partition."""

_FINAL = (AuthenticationError, AuthorizationError, UnknownTopicError)
_NEVER_A_MEMBER = frozenset(
    {Code.INCONSISTENT_GROUP_PROTOCOL, Code.INVALID_SESSION_TIMEOUT, Code.GROUP_MAX_SIZE_REACHED, Code.INVALID_GROUP_ID}
)


def place(topic: str, partition: int, offset: int = driver.OFFSET_INVALID, leader: int = -1, text: str = "") -> Any:
    """The driver's name for it. `leader`: epoch of the leader that the record before came from, -1 = unknown."""
    if leader < 0:
        return driver.TopicPartition(topic, partition, offset, text)
    return driver.TopicPartition(topic, partition, offset, text, leader)


def ends(error: KafkaError) -> bool:
    """Whether trying again is of no use; all else the driver mends by itself."""
    return error.fatal or error.code in _NEVER_A_MEMBER or (isinstance(error, _FINAL) and not error.retriable)
