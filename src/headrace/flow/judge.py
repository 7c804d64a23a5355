"""The one judge: what a failed run means. Pure: no clock, no I/O, no random number of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Final

from headrace.core.broker import Broker
from headrace.core.delivery import Position
from headrace.core.errors import CodecError, RejectError, RetryLaterError
from headrace.core.message import Message, check_topic
from headrace.flow.retry import RetryPolicy

__all__ = [
    "BLOCK",
    "DROP",
    "STOP",
    "Again",
    "DeadLetter",
    "End",
    "Ending",
    "FailureEvent",
    "FailureStage",
    "OnExhausted",
    "OnFailure",
    "judge",
]


class Ending(Enum):
    """What happens to a message that is out of attempts, besides `DeadLetter`."""

    DROP = "drop"
    BLOCK = "block"
    STOP = "stop"


DROP: Final = Ending.DROP
"""Discard it, with a WARNING."""
BLOCK: Final = Ending.BLOCK
"""Go on trying for ever; its key waits. Not with ``Ordering.NONE``."""
STOP: Final = Ending.STOP
"""Hand it back and end the worker with a ``HandlerError``."""


@dataclass(frozen=True)
class DeadLetter:
    """Publish it to ``topic`` (default ``dead.<its topic>``) on ``broker`` (default: the worker's), then ack."""

    topic: str | None = None
    broker: Broker | None = None

    def __init__(self, topic: str | None = None, *, broker: Broker | None = None) -> None:
        if topic is not None:
            check_topic(topic)
        object.__setattr__(self, "topic", topic)
        object.__setattr__(self, "broker", broker)

    def target(self, source: str) -> str:
        """The dead-letter topic for messages of topic `source`."""
        return self.topic if self.topic is not None else f"dead.{source}"


OnExhausted = DeadLetter | Ending
"""What can be asked for when a message is out of attempts, or can never succeed."""


class FailureStage(Enum):
    """What a `FailureEvent` tells of."""

    RETRY = "retry"
    """A run failed."""
    EXHAUSTED = "exhausted"
    """It was the last one, or the message can never succeed."""
    DEAD_LETTER = "dead_letter"
    """The dead letter was stored, or (``will_retry``) could not be published yet."""
    DROP = "drop"
    STOP = "stop"


@dataclass(frozen=True, kw_only=True, slots=True)
class FailureEvent:
    """One thing that went wrong with one message, told to ``on_failure`` before the worker acts on it.

    ``attempt`` is the number of the run, ``policy`` what was asked for in ``on_exhausted``, ``attributes`` the
    engine's facts.
    """

    message: Message
    position: Position | None
    group: str | None
    attempt: int
    error: BaseException
    stage: FailureStage
    policy: OnExhausted | None
    will_retry: bool
    time: datetime
    attributes: Mapping[str, str | int]


OnFailure = Callable[[FailureEvent], Awaitable[None] | None]


@dataclass(frozen=True, slots=True)
class Again:
    """Run it again in ``delay`` seconds. ``exhausted``: only because it was told to ``BLOCK``."""

    delay: float
    exhausted: bool = False


@dataclass(frozen=True, slots=True)
class End:
    """No further run. ``policy`` ``None`` = nothing was asked for: the worker stops with the error itself."""

    policy: DeadLetter | Ending | None


def judge(
    error: BaseException, attempt: int, retry: RetryPolicy, on_exhausted: OnExhausted | None, u: float
) -> Again | End:
    """What the failed run number `attempt` means.

    What can never succeed (rejected, undecodable) does not wait for attempts. `u` in [0, 1) is for the jitter.
    """
    if not isinstance(error, RejectError | CodecError):
        delay = retry.delay(attempt, u)
        if delay is not None:
            asked = error.delay if isinstance(error, RetryLaterError) else delay
            return Again(asked.total_seconds())
    if on_exhausted is BLOCK:
        asked = error.delay if isinstance(error, RetryLaterError) else retry.wait(attempt, u)
        return Again(asked.total_seconds(), exhausted=True)
    return End(on_exhausted)
