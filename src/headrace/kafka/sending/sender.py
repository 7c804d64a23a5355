"""Sender: messages in, exactly one result for each that was accepted. `KafkaBroker` and `Producer` send through one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext, suppress
from types import MethodType

from headrace.core.duration import Duration, seconds_of, seconds_or_none
from headrace.core.errors import BrokerTimeoutError, ClosedError, ConfigError, Fault, PublishError, UsageError
from headrace.core.headers import NO_HEADERS
from headrace.core.message import Message
from headrace.kafka import driver
from headrace.kafka.errors import KafkaError, UnknownTopicError
from headrace.kafka.log import DriverLog
from headrace.kafka.options import KafkaOptions
from headrace.kafka.sending.checks import Checks, unusable
from headrace.kafka.sending.client import Client, Flight
from headrace.kafka.sending.clients import Clients
from headrace.kafka.sending.flights import Many, One, Report
from headrace.kafka.sending.lane import Lane
from headrace.kafka.sending.meeting import Meeting, unsent
from headrace.kafka.sending.result import ProduceResult, in_time, interrupted, publish_error
from headrace.kafka.topics import Topics
from headrace.kafka.wire import encode

__all__ = ["Sender"]

_SLICE = 512
"""Messages between two looks at the loop."""
_LOOK_AGAIN = 0.05
"""Seconds until a full driver is tried again, should no report come."""
_ANY_PARTITION = -1


class Sender:
    """One producer of the driver, with at most ``places`` messages accepted and without a result.

    A message is accepted once it has a place, which it keeps until its result. Calls enter in call order, whatever
    methods they mix. A full driver queue is waited for. After a fatal error of the driver everything accepted is
    ``UNKNOWN``; the next call opens a new producer. Nothing is opened before the first call.
    """

    def __init__(
        self,
        servers: Sequence[str],
        options: KafkaOptions,
        topics: Topics,
        *,
        places: int = 5000,
        create: bool = True,
        log: DriverLog | None = None,
    ) -> None:
        if isinstance(places, bool) or not isinstance(places, int) or places < 1:
            raise ConfigError(f"max_outstanding must be an integer >= 1, got {places!r}")
        self.client_id = options.client_id
        self._options = options
        self._id_header = options.id_header
        self._topics = topics
        self._log = log or DriverLog()
        self._clients = Clients(servers, options, self._log, self._reported, self._fail)
        self._lane = Lane(places)
        self._meeting = Meeting(topics, self._lane, options.delivery_timeout, create=create)
        self._checks = Checks(options.max_message_bytes, options.id_header, topics.known)
        self._flights: set[One | Many] = set()
        self._pid = os.getpid()
        self._loop = asyncio.get_running_loop()
        self._waiters: list[tuple[set[One | Many], asyncio.Future[None]]] = []
        """Who waits for which flights."""
        self._closing: asyncio.Task[None] | None = None

    @property
    def outstanding(self) -> int:
        """Messages accepted and without a result."""
        return self._lane.places - self._lane.free

    @property
    def clients(self) -> int:
        """How many producers of the driver were opened so far."""
        return self._clients.opened

    # -- sending ------------------------------------------------------------------------------------------------

    async def submit(self, message: Message) -> asyncio.Future[ProduceResult]:
        """Hand it over; the future of its result always resolves. Cancelled before that: it was not accepted.

        ``UsageError``, ``ConfigError`` for what is no message, ``ClosedError``; ``PublishError`` for what is refused
        or could not be handed over: too large, topic missing or refused, brokers away past ``delivery_timeout``.
        """
        self.check(message)
        lane = self._lane
        future = self._hand_over(message) if lane.clear and message.topic in self._topics.known else None
        if future is not None:
            return future
        await lane.enter()
        try:
            error = await self._meeting.met(message.topic)
            if error is not None:
                raise unsent(error, message.id) from error
            while (future := await self._handed_over(message)) is None:
                await lane.changed(None if lane.free == 0 else _LOOK_AGAIN)
            return future
        finally:
            lane.leave()

    async def send_one(self, message: Message, timeout: Duration | None = None) -> ProduceResult:
        """Send it, and wait for its result. ``PublishError``; ``PublishTimeoutError`` after `timeout`: see `submit`.

        Late or cancelled takes nothing back.
        """
        seconds = seconds_or_none(timeout, "timeout")
        if seconds is None:
            return await (await self.submit(message))
        return await in_time(seconds, message, self.submit)

    async def send_many(self, messages: Iterable[Message]) -> list[ProduceResult | PublishError]:
        """Send them, pipelined: one result per message, in order; a bad one fails alone.

        Raises only if nothing was started (``ClosedError``). Cancelled: what was accepted goes its way.
        """
        return await (await self.submit_many(messages)).outcome()

    async def submit_many(self, messages: Iterable[Message]) -> Many:
        """The first half of `send_many`: all of them were handed over, or have their result; `Many.outcome` waits."""
        self._check()
        many = Many(self, list(messages))
        await self._lane.enter()
        try:
            await self._hand_over_all(many)
        finally:
            self._lane.leave()
        return many

    def check(self, message: Message) -> None:
        """What `submit` raises before anything is queued."""
        self._check()
        self._checks.one(message)

    async def flush(self, timeout: Duration | None = None) -> None:
        """Until everything that was accepted before has its result. ``BrokerTimeoutError`` after `timeout`."""
        seconds = seconds_or_none(timeout, "timeout")
        self._check()
        try:
            async with asyncio.timeout(seconds):
                await self._lane.enter()  # behind the calls before this one
                self._lane.leave()
                await self._landed()
        except TimeoutError as error:
            raise BrokerTimeoutError(f"{self.outstanding} messages have no result after {seconds:g} s") from error

    async def aclose(self, *, flush: bool = True, timeout: Duration = 30.0) -> None:
        """Refuse new calls, wait for what was accepted, close.

        After `timeout`, and without `flush` at once, what has no result gets ``PublishInterruptedError`` and what is
        not sent is thrown away; then ``BrokerTimeoutError`` if it was to be flushed. Twice is fine.
        """
        seconds = seconds_of(timeout, "timeout")
        if os.getpid() != self._pid:
            return
        self._check_loop()
        first = self._closing is None
        if self._closing is None:
            self._lane.close(ClosedError("the producer was closed"))
            self._closing = asyncio.get_running_loop().create_task(self._close(seconds if flush else None))
            self._closing.add_done_callback(_retrieved)
        elif not flush:
            for _, waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)
        with nullcontext() if first else suppress(BrokerTimeoutError):
            await asyncio.shield(self._closing)

    # -- one message --------------------------------------------------------------------------------------------

    async def _handed_over(self, message: Message) -> asyncio.Future[ProduceResult] | None:
        try:
            await self._clients.open()
        except KafkaError as error:
            raise publish_error(error, message.id, Fault.UNAVAILABLE) from error
        self._lane.check()
        return self._hand_over(message) if self._lane.free else None

    def _hand_over(self, message: Message) -> asyncio.Future[ProduceResult] | None:
        """Give it to the driver, which never waits. ``None``: not now. ``PublishError``: never."""
        client = self._clients.current
        if client is None:
            return None
        topic, value, key, headers, stamp = encode(message, self._id_header)
        one = One(self, client, message, client.loop.create_future())
        try:
            client.produce(topic, value, key, _ANY_PARTITION, one.report, None, stamp, headers)
        except Exception as error:  # noqa: BLE001  (whatever the driver raises)
            refusal = self._refusal(client, message, error)
            if refusal is None:
                return None
            raise refusal from refusal.__cause__
        self._flights.add(one)
        self._lane.free -= 1
        client.sending += 1
        client.wake()
        return one.future

    def _refusal(self, client: Client, message: Message, error: Exception) -> PublishError | None:
        """Why the driver does not take this message; ``None``: it is full, or of no further use."""
        if isinstance(error, BufferError):
            if self.outstanding or client.sending:
                return None
            limit = self._options.max_buffered_bytes
            return PublishError("too large for the driver", message_id=message.id, limit=limit, fault=Fault.REJECTED)
        failure = driver.translated(error)
        if failure.fatal:
            self._fail(client, failure)
            return None
        if isinstance(failure, UnknownTopicError):
            self.vanished(message.topic)
        return publish_error(failure, message.id)

    # -- many messages ------------------------------------------------------------------------------------------

    async def _hand_over_all(self, many: Many) -> None:
        lane, total = self._lane, len(many.messages)
        try:
            while many.upto < total:
                lane.check()
                client = await self._clients.open()
                reports: dict[str, Report] = {}
                while many.upto < total and self._clients.current is client:
                    if many.upto == many.checked:  # slice by slice: what was just looked at is near
                        self._check_next(many, _SLICE)
                        await self._meet_next(many)
                    elif lane.free and self._slice(many, client, reports):
                        await asyncio.sleep(0)
                    else:
                        await lane.changed(None if lane.free == 0 else _LOOK_AGAIN)
                    lane.check()
                if many.handed and client.failure is not None:  # the next call opens a new producer
                    self._skip(many, client.failure)
        except (ClosedError, KafkaError) as error:
            if isinstance(error, ClosedError) and not many.handed:
                raise
            self._skip(many, error)

    def _check_next(self, many: Many, count: int) -> None:
        start = many.checked
        part = many.messages[start : start + count]
        for index, error in self._checks.many(part).items():
            many.results[start + index] = unusable(part[index], error)
        many.checked = start + len(part)

    async def _meet_next(self, many: Many) -> None:
        known, results, met = self._topics.known, many.results, many.met
        for place in range(many.upto, many.checked):
            if results[place] is not None or (topic := many.messages[place].topic) in known:
                continue
            if topic not in met:
                met[topic] = await self._meeting.met(topic)
            error = met[topic]
            if error is not None:
                results[place] = unsent(error, many.messages[place].id)

    def _slice(self, many: Many, client: Client, reports: dict[str, Report]) -> bool:
        """Hand over the next ones. Whether the driver took all of them."""
        messages, results, produce, id_header = many.messages, many.results, client.produce, self._id_header
        start = place = many.upto
        stop = min(many.checked, start + self._lane.free)
        skipped = 0
        failed: Exception | None = None
        self._flights.add(many)
        try:
            while place < stop:
                if results[place] is not None:
                    skipped += 1
                else:
                    message = messages[place]
                    told = MethodType(
                        reports.get(topic := message.topic) or many.callback(client, reports, topic), place
                    )
                    if type(message) is Message and message.headers is NO_HEADERS:  # as `encode` does, without a call
                        stamp, headers = message.time_ns // 1_000_000 or 1, [(id_header, message.id)]
                        produce(topic, message.body, message.key, _ANY_PARTITION, told, None, stamp, headers)
                    else:
                        _, value, key, pairs, stamp = encode(message, id_header)
                        produce(topic, value, key, _ANY_PARTITION, told, None, stamp, pairs)
                place += 1
        except Exception as error:  # noqa: BLE001  (whatever the driver raises)
            failed = error
        self._count(many, client, place, place - start - skipped)
        if failed is None:
            return True
        refusal = self._refusal(client, messages[place], failed)
        if refusal is not None:
            results[place] = refusal
            many.upto += 1
        return refusal is not None

    def _count(self, many: Many, client: Client, upto: int, count: int) -> None:
        many.upto = upto
        many.handed += count
        self._lane.free -= count
        client.sending += count
        client.wake()
        if not many.open:
            self._flights.discard(many)

    def _skip(self, many: Many, cause: Exception) -> None:
        """What is left will not be sent: the driver failed, or the sender was closed."""
        self._check_next(many, len(many.messages))
        for place in range(many.upto, len(many.messages)):
            if many.results[place] is None:
                many.results[place] = publish_error(cause, many.messages[place].id, Fault.UNAVAILABLE)
        many.upto = len(many.messages)

    # -- the driver's client ------------------------------------------------------------------------------------

    def _reported(self, touched: list[Flight]) -> None:
        flights = self._flights
        for flight in touched:
            if flight in flights:
                flight.settle()
        if self._log.down:
            self._log.recovered()

    def _fail(self, client: Client, failure: KafkaError) -> None:
        """The driver is of no further use: everything accepted is ``UNKNOWN``."""
        if self._clients.drop(client, failure):
            self._interrupt(lambda message_id: publish_error(failure, message_id, Fault.UNKNOWN))
            self._lane.stir()

    def _interrupt(self, error: Callable[[str], PublishError]) -> None:
        for flight in list(self._flights):
            flight.interrupt(error)

    # -- what flights tell --------------------------------------------------------------------------------------

    def landed(self, flight: One | Many, count: int) -> None:
        """`count` places are free again."""
        client = self._clients.current
        if client is not None:
            client.sending -= count
        self._lane.give(count)
        if flight.open:
            return
        self._flights.discard(flight)
        for waited, waiter in self._waiters:
            waited.discard(flight)
            if not waited and not waiter.done():
                waiter.set_result(None)

    def vanished(self, topic: str) -> None:
        """It is asked for anew."""
        self._topics.forget(topic)

    # -- the end ------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        if os.getpid() != self._pid:
            raise UsageError("the producer was opened before a fork: open one of its own in the child")
        self._check_loop()
        self._lane.check()

    def _check_loop(self) -> None:
        if asyncio.get_running_loop() is not self._loop:
            raise UsageError("the producer was opened on another event loop: open one of its own there")

    async def _landed(self) -> None:
        """Until all that is accepted now has its result; the driver does not linger meanwhile."""
        client = self._clients.current
        if client is None or not self._flights:
            return
        waiting = set(self._flights), client.loop.create_future()
        self._waiters.append(waiting)
        client.flushing += 1
        try:
            await waiting[1]
        finally:
            client.flushing -= 1
            self._waiters.remove(waiting)

    async def _close(self, seconds: float | None) -> None:
        """Wait, throw away, end the thread; and whatever happens, leave nothing without a result."""
        try:
            if seconds is not None:
                async with asyncio.timeout(seconds):
                    await self._landed()
        except TimeoutError as error:
            raise BrokerTimeoutError(f"{self.outstanding} messages had no result after {seconds:g} s") from error
        finally:
            try:
                await self._clients.aclose()
            finally:
                self._clients.current = None
                self._interrupt(interrupted)


def _retrieved(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()
