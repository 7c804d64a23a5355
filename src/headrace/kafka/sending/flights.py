"""Flights: messages that were handed to the driver and have no result yet. Each gets exactly one.

The driver's callbacks run on the client's thread and only write down what they are told; everything else, and all that
wakes somebody, happens on the loop, once for all reports of a poll.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from headrace.core.errors import PublishError
from headrace.core.message import Message
from headrace.kafka import driver
from headrace.kafka.errors import KafkaError, UnknownTopicError
from headrace.kafka.sending.client import Client
from headrace.kafka.sending.result import ProduceResult, publish_error

__all__ = ["Desk", "Many", "One", "Report"]

Report = Callable[[int, Any, Any], None]


class Desk(Protocol):
    """What a flight tells of."""

    client_id: str

    def landed(self, flight: One | Many, count: int) -> None:
        """`count` more of its messages have their result."""
        ...

    def vanished(self, topic: str) -> None:
        """The brokers do not know this topic any more."""
        ...


class One:
    """One message, and the future of its result."""

    __slots__ = ("_desk", "_message", "_result", "client", "future")

    def __init__(self, desk: Desk, client: Client, message: Message, future: asyncio.Future[ProduceResult]) -> None:
        self.client = client
        self.future = future
        self._desk = desk
        self._message = message
        self._result: ProduceResult | KafkaError | None = None

    @property
    def open(self) -> bool:
        """Whether it has no result yet."""
        return not self.future.done()

    def report(self, error: Any, record: Any) -> None:
        """The driver's callback, on the client's thread."""
        if error is None:
            topic, client_id = self._message.topic, self._desk.client_id
            stamp: int = record.timestamp()[1]
            self._result = ProduceResult(None, False, topic, record.partition(), record.offset(), stamp, 1, client_id)
        else:
            self._result = driver.translated(error)
        self.client.touched.append(self)

    def settle(self) -> None:
        """The report is in."""
        result = self._result
        if isinstance(result, ProduceResult):
            if not self.future.done():  # cancelled: nobody wants to know
                self.future.set_result(result)
        elif result is not None:
            if isinstance(result, UnknownTopicError):
                self._desk.vanished(self._message.topic)
            self._fail(publish_error(result, self._message.id))
        self._desk.landed(self, 1)

    def interrupt(self, error: Callable[[str], PublishError]) -> None:
        """No report will come."""
        if self._result is None:
            self._fail(error(self._message.id))
        self.settle()

    def _fail(self, error: PublishError) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Many:
    """The messages of one call, and one future for all of them. ``results``: what is refused before has one already.

    ``handed``: how many the driver has taken, ``upto``: of those before this place all that are not refused.
    """

    __slots__ = (
        *("_counted", "_desk", "_marked", "_reported", "_vanished", "_waiter"),
        *("checked", "handed", "messages", "met", "results", "upto"),
    )

    def __init__(self, desk: Desk, messages: Sequence[Message]) -> None:
        self.messages = messages
        self.results: list[ProduceResult | PublishError | None] = [None] * len(messages)
        self.handed = 0
        self.upto = 0
        self.checked = 0
        """Those before this place may be handed over, or have their result."""
        self.met: dict[str, Exception | None] = {}
        """Topics that were not known, and why they cannot be sent to."""
        self._desk = desk
        self._vanished: set[str] = set()
        self._reported = 0
        """Counted by the client's thread."""
        self._counted = 0
        """Those of them that the desk knows of."""
        self._marked = False
        self._waiter: asyncio.Future[None] | None = None

    @property
    def open(self) -> bool:
        """Whether something was handed over that has no result."""
        return self._counted < self.handed

    def callback(self, client: Client, reports: dict[str, Report], topic: str) -> Report:
        """What is called, on the client's thread, with the place of a message to `topic` and what the driver says.

        It is kept in `reports`: one for all messages of a topic, and the message itself is not looked at again.
        """
        results, client_id = self.results, self._desk.client_id

        def report(place: int, error: Any, record: Any) -> None:
            if error is None:
                stamp = record.timestamp()[1]
                results[place] = ProduceResult(
                    None, False, topic, record.partition(), record.offset(), stamp, 1, client_id
                )
            else:
                results[place] = self._failed(self.messages[place], driver.translated(error))
            self._reported += 1
            if not self._marked:
                self._marked = True
                client.touched.append(self)

        reports[topic] = report
        return report

    def settle(self) -> None:
        """Reports are in. The mark goes first: what comes in meanwhile sets it again."""
        self._marked = False
        count = self._reported - self._counted
        for topic in self._vanished:
            self._desk.vanished(topic)
        self._land(count)

    def interrupt(self, error: Callable[[str], PublishError]) -> None:
        """No more reports will come. One that does finds a list that nobody reads."""
        results = self.results = list(self.results)
        for place in range(self.upto):
            if results[place] is None:
                results[place] = error(self.messages[place].id)
        self._land(self.handed - self._counted)

    async def outcome(self) -> list[ProduceResult | PublishError]:
        """One result per message, in order, once all that was handed over has one."""
        if self.open:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return cast("list[ProduceResult | PublishError]", self.results)

    def _land(self, count: int) -> None:
        self._counted += count
        self._desk.landed(self, count)
        if self._waiter is not None and not self.open and not self._waiter.done():
            self._waiter.set_result(None)

    def _failed(self, message: Message, failure: KafkaError) -> PublishError:
        if isinstance(failure, UnknownTopicError):
            self._vanished.add(message.topic)
        return publish_error(failure, message.id)
