"""ProduceResult: the broker has the message. And what a failed delivery means for its message."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from headrace.core.broker import Receipt
from headrace.core.delivery import Position
from headrace.core.errors import ConfigError, Fault, PublishError, PublishInterruptedError, PublishTimeoutError
from headrace.core.message import Message
from headrace.kafka.codes import Code
from headrace.kafka.errors import KafkaError, fault_of
from headrace.kafka.facts import CLIENT, OFFSET, PARTITION, SYSTEM

__all__ = ["ProduceResult", "in_time", "interrupted", "publish_error"]

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PURGED = {Code.LOCAL_PURGE_QUEUE, Code.LOCAL_PURGE_INFLIGHT, Code.LOCAL_DESTROY}


class ProduceResult(Receipt, frozen=True, gc=False):
    """All replicas in sync have the record. ``attempt``: which run of the middleware handed it over.

    ``timestamp``: milliseconds since 1970, the message's own, or the broker's where the topic keeps that one instead.
    """

    topic: str = ""
    partition: int = -1
    offset: int = -1
    timestamp: int = 0
    attempt: int = 1
    client_id: str = ""

    @property  # type: ignore[misc]
    def position(self) -> Position:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Where it stands: ``orders/0`` and its offset. Worked out when asked: it costs more than the receipt."""
        return Position(f"{self.topic}/{self.partition}", self.offset)

    @property
    def time(self) -> datetime:
        """The record's time, in UTC."""
        return _EPOCH + timedelta(milliseconds=self.timestamp)

    def __repr__(self) -> str:
        return f"ProduceResult({self.topic}/{self.partition}@{self.offset}, attempt={self.attempt})"

    def attributes(self) -> Mapping[str, str | int]:
        """The facts of the record for logs and spans."""
        return {
            SYSTEM: "kafka",
            PARTITION: str(self.partition),
            OFFSET: self.offset,
            CLIENT: self.client_id,
        }


async def in_time(seconds: float, message: Message, submit: Callable[[Message], Awaitable[asyncio.Future[T]]]) -> T:
    """The result of a message, at most so much later. ``PublishTimeoutError``: takes nothing back.

    ``UNKNOWN`` once it was accepted, ``UNAVAILABLE`` when it still waited for a place.
    """
    accepted: asyncio.Future[T] | None = None
    try:
        async with asyncio.timeout(seconds):
            accepted = await submit(message)
            return await accepted
    except TimeoutError as error:
        if isinstance(error, PublishError):  # the driver's own
            raise
        fault = Fault.UNKNOWN if accepted is not None else Fault.UNAVAILABLE
        raise PublishTimeoutError(f"no receipt after {seconds:g} s", message_id=message.id, fault=fault) from error


def publish_error(error: Exception, message_id: str | None, fault: Fault | None = None) -> PublishError:
    """What failed, as the result of one message. `fault` replaces what the error itself says."""
    kind: type[PublishError] = PublishError
    if isinstance(error, KafkaError):
        if error.code in _PURGED:
            kind, fault = PublishInterruptedError, Fault.UNKNOWN  # it may have been sent once before
        elif error.code == Code.LOCAL_MSG_TIMED_OUT:
            kind = PublishTimeoutError
        fault = fault or (Fault.UNKNOWN if error.fatal else fault_of(error.code))
    elif isinstance(error, ConfigError):
        fault = fault or Fault.REJECTED
    made = kind(str(error), message_id=message_id, fault=fault)
    made.__cause__ = error
    return made


def interrupted(message_id: str | None) -> PublishError:
    """The result of what was accepted and is not waited for any longer."""
    return PublishInterruptedError("the producer was closed; the message may be stored", message_id=message_id)
