"""A batch get: one request, many messages, an end. The answers come to an inbox of its own (ADR-31, direct get)."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from headrace.core.errors import BrokerTimeoutError
from headrace.jetstream.protocol.api import Api
from headrace.jetstream.protocol.values import encoded
from headrace.jetstream.stored.messages import NUM_PENDING, UP_TO_SEQUENCE, Direct, direct_of, number_in, transport_of
from headrace.nats.block import status_of
from headrace.nats.inbox import new_inbox
from headrace.nats.messages import Reply
from headrace.streams.errors import StreamError, error_for
from headrace.streams.msg import RawStreamMsg
from headrace.streams.names import LAST_SEQUENCE

__all__ = ["Batch", "get_batch", "status_error"]

_END = 204
_IN_JSON = {404: (404, 10037), 408: (400, 10003)}
"""The codes of a direct get, and what a get in JSON calls them."""


class Batch(msgspec.Struct, frozen=True):
    """What came, how much is left behind it, and for the last of subjects: as of which sequence."""

    messages: list[RawStreamMsg]
    left: int
    upto: int | None


def status_error(code: int, description: str, where: str) -> StreamError:
    """The error of a direct get that found nothing or was not understood."""
    its_code, number = _IN_JSON.get(code, (code, None))
    return error_for(its_code, number, f"{where}: {description}")


async def get_batch(api: Api, stream: str, wanted: dict[str, Any], most: int) -> Batch:
    """At most `most` messages. ``MessageNotFoundError``: none. `StreamError`: one of them did not arrive."""
    subject = f"DIRECT.GET.{stream}"
    taking = _Taking(api, subject, most)
    inbox = new_inbox(api.connection.options.inbox_prefix)
    subscription = api.connection.subscribe(inbox, taking.take)
    try:
        with api.sent(subject, inbox.encode(), encoded(subject, wanted), taking.end):
            return await taking.whole(api.timeout)
    finally:
        subscription.unsubscribe()


class _Taking:
    """Takes the answers as they come, right out of the parser."""

    def __init__(self, api: Api, subject: str, most: int) -> None:
        self.end: asyncio.Future[Batch] = asyncio.get_running_loop().create_future()
        self._api = api
        self._subject = subject
        self._most = most
        self._messages: list[RawStreamMsg] = []

    async def whole(self, timeout: float) -> Batch:
        """The batch; ``BrokerTimeoutError`` when nothing came for so long."""
        while not self.end.done():
            seen = len(self._messages)
            await asyncio.wait([self.end], timeout=timeout)
            if not self.end.done() and len(self._messages) == seen:
                raise BrokerTimeoutError(f"{self._subject}: no answer within {timeout:g} s, {seen} messages came")
        return self.end.result()

    def take(self, subject: bytes, reply: bytes, header: bytes, data: bytes) -> None:
        """One answer."""
        if self.end.done():
            return
        try:
            found = direct_of(header, data, self._subject)
            if found is None:
                self.end.set_result(self._ended(header, data))
                return
            self._add(found)
        except Exception as error:  # noqa: BLE001  (whoever waits for it is told)
            self.end.set_exception(error)

    def _add(self, found: Direct) -> None:
        last = self._messages[-1].sequence if self._messages else None
        if found.previous is None or (last is not None and found.previous != last):
            raise StreamError(f"{self._subject}: a message is missing between {last} and {found.message.sequence}")
        if len(self._messages) == self._most:
            raise StreamError(f"{self._subject}: {self._most} messages asked for, more came")
        self._messages.append(found.message)

    def _ended(self, header: bytes, data: bytes) -> Batch:
        self._api.received(self._subject, Reply(header, data))
        status = status_of(header)
        if status is None or data:
            raise StreamError(f"{self._subject}: an answer that is neither message nor status")
        if status[0] != _END:
            raise status_error(*status, self._subject)
        found, _ = transport_of(header)
        last = self._messages[-1].sequence if self._messages else 0
        if number_in(found, LAST_SEQUENCE, self._subject) != last:
            raise StreamError(f"{self._subject}: messages are missing behind {last}")
        upto = number_in(found, UP_TO_SEQUENCE, self._subject) if UP_TO_SEQUENCE in found else None
        return Batch(self._messages, number_in(found, NUM_PENDING, self._subject), upto)
