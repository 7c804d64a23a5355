"""publish_atomic: several messages into one stream, all or nothing (jetstream.md 3.9; nats-server >= 2.12).

The first one asks whether the stream takes a batch, the last one whether it took this one: those two are requests.
What lies between is not answered: a gap in it, or a message for another stream, makes the last one fail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from headrace.core.duration import seconds_of
from headrace.core.errors import (
    BrokerTimeoutError,
    ConfigError,
    ConnectionLostError,
    Fault,
    PublishError,
    UnsupportedError,
)
from headrace.core.message import new_id
from headrace.jetstream.publishing.answers import answer_of, interrupted, late, nobody, not_sent
from headrace.jetstream.publishing.frames import Part
from headrace.jetstream.publishing.futures import Desk
from headrace.nats.errors import NoRespondersError, PermissionsError
from headrace.nats.messages import Reply
from headrace.streams.config import StreamMessage, StreamPublishOptions
from headrace.streams.errors import AtomicBatchError
from headrace.streams.info import PubAck
from headrace.streams.names import BATCH_COMMIT, BATCH_ID, BATCH_SEQUENCE

__all__ = ["publish_atomic"]

_MOST = 1_000
_SINCE = (2, 12, 0)
_DEFAULT = StreamPublishOptions()


async def publish_atomic(desk: Desk, messages: Sequence[StreamMessage], parts: list[Part]) -> PubAck:
    """Store all of them or none; the acknowledgement is that of the last.

    ``ConfigError``: there are none. ``AtomicBatchError``: more than 1,000, or the stream refuses them.
    ``UnsupportedError``: the server is older than 2.12. Cancelled, or the process dies: none is stored.
    """
    _check(desk, messages)
    batch = _Batch(desk, new_id(), messages, parts)
    if len(messages) > 1:
        await batch.begin()
        await batch.go_on()
    return await batch.commit()


def _check(desk: Desk, messages: Sequence[StreamMessage]) -> None:
    if not messages:
        raise ConfigError("messages must not be empty, got []")
    if len(messages) > _MOST:
        raise AtomicBatchError(f"{len(messages)} messages, at most {_MOST}", limit=_MOST)
    server = desk.connection.server_info
    if server.version_tuple < _SINCE:
        raise UnsupportedError(f"publish_atomic needs nats-server 2.12, this is {server.version}")


@dataclass(frozen=True)
class _Batch:
    desk: Desk
    id: str
    messages: Sequence[StreamMessage]
    parts: list[Part]

    async def begin(self) -> None:
        """Send the first. Whatever goes wrong here, nothing is stored."""
        first = self.messages[0]
        try:
            reply = await self._request(0)
        except (BrokerTimeoutError, ConnectionLostError) as error:
            raise not_sent(first.msg_id, error) from error
        if reply.header or reply.data:
            result = answer_of(first.subject, first.msg_id, reply.header, reply.data)
            if isinstance(result, PublishError):
                raise result
            raise AtomicBatchError("the first message of the batch was stored alone", message_id=first.msg_id)

    async def go_on(self) -> None:
        """Send those between the first and the last."""
        connection = self.desk.connection
        for place in range(1, len(self.messages) - 1):
            if connection.full:
                await self.desk.room(self.desk.timeout)
            try:
                connection.send(self.parts[place][0], b"", self._block(place), self.messages[place].data)
            except ConnectionLostError as error:
                raise not_sent(self.messages[place].msg_id, error) from error

    async def commit(self) -> PubAck:
        """Send the last."""
        last = self.messages[-1]
        try:
            reply = await self._request(len(self.messages) - 1)
        except BrokerTimeoutError as error:
            raise late(self.desk.timeout, last.msg_id, sent=True) from error
        except ConnectionLostError as error:
            raise interrupted(last.msg_id, error) from error
        result = answer_of(last.subject, last.msg_id, reply.header, reply.data)
        if isinstance(result, PublishError):
            raise result
        return result

    async def _request(self, place: int) -> Reply:
        message, desk = self.messages[place], self.desk
        wait = seconds_of(_DEFAULT.retry_wait, "retry_wait")
        for attempt in range(_DEFAULT.retry_attempts + 1):
            try:
                return await desk.connection.request(
                    message.subject, message.data, timeout=desk.timeout, headers=self._block(place)
                )
            except PermissionsError as error:
                raise not_sent(message.msg_id, error, Fault.REJECTED) from error
            except NoRespondersError:
                if attempt < _DEFAULT.retry_attempts:
                    await asyncio.sleep(wait)
        raise nobody(message.subject, message.msg_id)

    def _block(self, place: int) -> bytes:
        commit = f"{BATCH_COMMIT}: 1\r\n" if place == len(self.messages) - 1 else ""
        return f"{BATCH_ID}: {self.id}\r\n{BATCH_SEQUENCE}: {place + 1}\r\n{commit}".encode() + self.parts[place][1]
