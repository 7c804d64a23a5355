"""Many: one `publish_many`: pipelined, one waiter for all of it, one result per message."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from headrace.core.duration import seconds_of
from headrace.core.errors import BrokerError, ClosedError, Fault, PublishError
from headrace.jetstream.publishing.answers import answer_of, interrupted, late, nobody, not_sent
from headrace.jetstream.publishing.frames import Part
from headrace.jetstream.publishing.futures import AGAIN, Desk, Flight
from headrace.nats.errors import PermissionsError
from headrace.streams.config import StreamMessage, StreamPublishOptions
from headrace.streams.errors import NoStreamResponseError
from headrace.streams.info import PubAck

__all__ = ["Many"]

_SLICE = 256
"""Messages between two looks at the loop: it writes the last ones while the next ones are made."""
_DEFAULT = StreamPublishOptions()


class Many:
    """The messages of one call, and their results so far.

    What no stream took is tried again once all others are answered, in order, as often as a single publish would be.
    ``parts``: subject and header block of each, as they are sent; ``results``: of those that will not be sent.
    """

    def __init__(
        self,
        desk: Desk,
        messages: Sequence[StreamMessage],
        parts: list[Part],
        results: list[PubAck | PublishError | None],
    ) -> None:
        self.desk = desk
        self.messages = messages
        self.parts = parts
        self.results = results
        self.repeated: set[int] = set()
        """Places behind which a link was lost: they may be stored, whatever is answered now."""
        self._unanswered = 0
        self._wanted = -1
        """How many unanswered ones somebody waits for."""
        self._waiter: asyncio.Future[None] | None = None

    async def results_of_all(self) -> list[PubAck | PublishError]:
        """Send them, and wait for all answers."""
        began = self.desk.now()
        places = [place for place, result in enumerate(self.results) if result is None]
        await self._send(places)
        wait = seconds_of(_DEFAULT.retry_wait, "retry_wait")
        for _ in range(_DEFAULT.retry_attempts):
            places = [place for place in places if type(self.results[place]) is NoStreamResponseError]
            if not places or self.desk.now() + wait - began >= self.desk.timeout:
                break
            await asyncio.sleep(wait)
            await self._send(places)
        return [result for result in self.results if result is not None]

    async def _send(self, places: list[int]) -> None:
        most = self.desk.most
        size = min(_SLICE, most)
        for start in range(0, len(places), size):
            part = places[start : start + size]
            await self._until(most - len(part))
            try:
                self.desk.check_open()
                if self.desk.connection.full:
                    await self.desk.room(self.desk.timeout)
            except (BrokerError, ClosedError) as error:
                self._refuse(places[start:], error)
                break
            if (failed := self._launch(part)) is not None:
                self._refuse(places[start + size :], failed)
                break
            if start + size < len(places):
                await asyncio.sleep(0)
        await self._until(0)

    def _launch(self, places: list[int]) -> Exception | None:
        """Hand them to the connection; the error with which it refused the last of them."""
        connection = self.desk.connection
        replies = connection.replies
        due = self.desk.now() + self.desk.timeout
        flight = _Slice(self.desk, due, self, places)
        token = flight.first = replies.ask_many(len(places), flight)
        self.desk.watch(due)
        send, prefix, results, frames = connection.send, replies.prefix, self.results, flight.frames
        self._unanswered += len(places)
        for place in places:
            wire, block = self.parts[place]
            results[place] = None
            try:
                frames.append(send(wire, b"%b%d" % (prefix, token), block, self.messages[place].data))
            except (BrokerError, ClosedError) as error:
                sent = token - flight.first
                for unused in range(token, flight.first + len(places)):
                    replies.forget(unused)
                self._unanswered -= len(places) - sent
                self._refuse(places[sent:], error)
                return error
            token += 1
        return None

    def _refuse(self, places: list[int], cause: Exception) -> None:
        for place in places:
            fault = Fault.UNKNOWN if place in self.repeated else Fault.UNAVAILABLE
            self.results[place] = not_sent(self.messages[place].msg_id, cause, fault)

    async def _until(self, unanswered: int) -> None:
        if self._unanswered > unanswered:
            self._waiter = self.desk.connection.loop.create_future()
            self._wanted = unanswered
            await self._waiter

    def settle(self, place: int, result: PubAck | PublishError) -> None:
        """One more is answered."""
        self.results[place] = result
        self._unanswered -= 1
        if self._unanswered <= self._wanted:
            self._wanted = -1
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)


class _Slice(Flight, eq=False):
    """Messages of one call that were sent in one go; token after token."""

    many: Many
    places: list[int]
    first: int = 0
    frames: list[int] = msgspec.field(default_factory=list[int])
    """Number of each one's frame, or `AGAIN`."""

    def __call__(self, token: int, header: bytes, data: bytes) -> None:
        """Take the answer."""
        place = self.places[token - self.first]
        message = self.many.messages[place]
        result = answer_of(message.subject, message.msg_id, header, data)
        if type(result) is NoStreamResponseError and place in self.many.repeated:
            result = nobody(message.subject, message.msg_id, Fault.UNKNOWN)
        self.many.settle(place, result)

    def overdue(self, token: int) -> None:
        """Its time is over."""
        connection = self.desk.connection
        connection.replies.forget(token)
        place, frame = self.places[token - self.first], self.frames[token - self.first]
        unsent = frame > connection.flushed and connection.withdraw(frame)
        sent = place in self.many.repeated or not unsent
        self.many.settle(place, late(self.desk.timeout, self.many.messages[place].msg_id, sent=sent))

    def lost(self, token: int, flushed: int, cause: BaseException) -> None:
        """Keep what has not left, and what the stream's memory of ids makes safe to write again."""
        index = token - self.first
        if self.frames[index] > flushed:
            return
        if self.many.messages[self.places[index]].msg_id is None:
            self.interrupt(token, cause)
        else:
            self.frames[index] = AGAIN
            self.many.repeated.add(self.places[index])

    def restored(self, token: int) -> None:
        """Write it again if it is to be."""
        index = token - self.first
        if self.frames[index] != AGAIN:
            return
        place, connection = self.places[index], self.desk.connection
        message, (wire, block) = self.many.messages[place], self.many.parts[place]
        reply = b"%b%d" % (connection.replies.prefix, token)
        try:
            self.frames[index] = connection.send(wire, reply, block, message.data)
        except BrokerError as error:
            connection.replies.forget(token)
            self.many.settle(place, not_sent(message.msg_id, error, Fault.UNKNOWN))

    def interrupt(self, token: int, cause: BaseException | None) -> None:
        """Fail."""
        self.desk.connection.replies.forget(token)
        place = self.places[token - self.first]
        self.many.settle(place, interrupted(self.many.messages[place].msg_id, cause))

    def forbidden(self, token: int, flushed: int, cause: PermissionsError) -> None:
        """Fail, if it was sent there."""
        index = token - self.first
        place = self.places[index]
        if self.many.parts[place][0] == cause.subject and 0 < self.frames[index] <= flushed:
            self.desk.connection.replies.forget(token)
            fault = Fault.UNKNOWN if place in self.many.repeated else Fault.REJECTED
            self.many.settle(place, not_sent(self.many.messages[place].msg_id, cause, fault))
