"""Meeting: a topic that is sent to for the first time."""

from __future__ import annotations

import asyncio

from headrace.core.duration import Duration, seconds_or_none
from headrace.core.errors import ConfigError, Fault, PublishError
from headrace.kafka.errors import KafkaError
from headrace.kafka.sending.lane import Lane
from headrace.kafka.sending.result import publish_error
from headrace.kafka.topics import Topics

__all__ = ["Meeting", "unsent"]

_AGAIN = 0.2
"""Seconds between two questions while the brokers are away."""


class Meeting:
    """Asks for topics on behalf of who has the turn; waits for brokers that are away, `patience` seconds at most."""

    def __init__(self, topics: Topics, lane: Lane, patience: Duration | None, *, create: bool) -> None:
        self._topics = topics
        self._lane = lane
        self._patience = seconds_or_none(patience, "delivery_timeout")
        self._create = create

    async def met(self, topic: str) -> Exception | None:
        """Make the topic known, or say why it cannot be sent to. ``ClosedError``."""
        if topic in self._topics.known:
            return None
        loop = asyncio.get_running_loop()
        until = None if self._patience is None else loop.time() + self._patience
        while True:
            try:
                await self._topics.ensure([topic], create=self._create)
                return None
            except (KafkaError, ConfigError) as error:
                again = isinstance(error, KafkaError) and error.retriable
                if not again or (until is not None and loop.time() >= until):
                    return error
            await self._lane.changed(_AGAIN)


def unsent(error: Exception, message_id: str) -> PublishError:
    """The result of a message whose topic could not be met: what is not refused is certainly not sent."""
    again = isinstance(error, KafkaError) and error.retriable
    return publish_error(error, message_id, Fault.UNAVAILABLE if again else None)
