"""Reading stored messages without a consumer of the caller's: get, direct get, batch get, pages.

Where a stream allows direct get any replica answers, one that lags behind too; else its leader does.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from headrace.core.errors import UnsupportedError
from headrace.jetstream.consumers.registry import Consumers
from headrace.jetstream.protocol.api import Api
from headrace.jetstream.protocol.echo import BATCH_GET
from headrace.jetstream.protocol.infos import stream_info
from headrace.jetstream.protocol.values import encoded, record, required, text_of_time
from headrace.jetstream.stored.batches import get_batch, status_error
from headrace.jetstream.stored.messages import direct_of, stored_of
from headrace.nats.block import status_of
from headrace.streams.config import DeliverPolicy, GetBatch, OrderedConsumerConfig, RetentionPolicy
from headrace.streams.errors import (
    ConsumerNotFoundError,
    JetStreamNotEnabledError,
    MessageNotFoundError,
    OrderedConsumerResetError,
    StreamError,
)
from headrace.streams.info import StreamInfo
from headrace.streams.msg import Msg, RawStreamMsg
from headrace.streams.stored import not_found, size_of

__all__ = ["Reading"]

_MOST = 1_000
"""Messages asked for at once."""
_MOST_BYTES = 8 * 1024 * 1024
"""Bytes asked for at once."""
_PAGE = 256


class Reading:
    """Reads the messages of one stream, as its configuration allows."""

    def __init__(self, api: Api, info: StreamInfo) -> None:
        self._api = api
        self._stream = info.config.name
        self._direct = info.config.allow_direct
        self._work_queue = info.config.retention is RetentionPolicy.WORKQUEUE

    @property
    def _batches(self) -> bool:
        return self._direct and self._api.connection.server_info.version_tuple[:2] >= BATCH_GET

    async def get(self, wanted: dict[str, Any]) -> RawStreamMsg:
        """One message. ``MessageNotFoundError``, ``BadRequestError``."""
        if self._direct:
            try:
                return await self._get_direct(wanted)
            except JetStreamNotEnabledError:
                pass  # direct get was taken back meanwhile, or nobody answers at all: the next call says which
        subject = f"STREAM.MSG.GET.{self._stream}"
        return stored_of(required(await self._api.ask(subject, wanted), "message", record, subject), subject)

    async def batch(self, options: GetBatch) -> AsyncGenerator[RawStreamMsg]:
        """Live messages in sequence order. None at all: ``MessageNotFoundError``."""
        left, room, none_yet = options.batch, options.max_bytes, True
        start: int | datetime = options.start_time or options.start_sequence or 1
        while left and (room is None or room > 0):
            most = min(left, _MOST if self._batches else _PAGE)
            if self._batches:
                page, more = await self._chunk(options.subject, start, most, _MOST_BYTES if room is None else room)
            else:
                page = await self.page(options.subject, start, 0, most)
                more = len(page) == most
            if not page and none_yet:
                raise not_found()
            none_yet = False
            for message in page:
                if room is not None and room <= 0:
                    return
                room = None if room is None else room - size_of(message)
                yield message
            if not page or not more:
                return
            left -= len(page)
            start = page[-1].sequence + 1

    async def last_for(
        self, subjects: Sequence[str], upto: int | None, batch: int | None
    ) -> AsyncGenerator[RawStreamMsg]:
        """The newest of each subject. None at all: ``MessageNotFoundError``. ``UnsupportedError``: see `Stream`."""
        if not self._batches:
            raise UnsupportedError(
                f"get_last_for needs allow_direct on stream {self._stream!r} and nats-server 2.11, "
                f"this is {self._api.connection.server_info.version}"
            )
        left, start = batch, 0
        while left is None or left > 0:
            most = _MOST if left is None else min(left, _MOST)
            wanted: dict[str, Any] = {"multi_last": list(subjects), "batch": most}
            wanted |= {"seq": start} if start else {}
            wanted |= {"up_to_seq": upto} if upto is not None else {}
            found = await get_batch(self._api, self._stream, wanted, most)
            for message in found.messages:
                yield message
            if not found.left or not found.messages:
                return
            left = None if left is None else left - len(found.messages)
            start, upto = found.messages[-1].sequence + 1, found.upto if upto is None else upto

    async def page(self, subject: str, start: int | datetime, offset: int, limit: int) -> list[RawStreamMsg]:
        """Up to `limit` messages from `start`, `offset` matching ones skipped; past the end none."""
        if self._batches:
            return await self._page_of_chunks(subject, start, offset, limit)
        if not self._work_queue:  # there only one may read a message
            try:
                return await self._page_of_consumer(subject, start, offset, limit)
            except OrderedConsumerResetError:
                pass  # no consumer more is allowed here, or none of this kind
        return await self._page_of_gets(subject, start, offset, limit)

    async def _get_direct(self, wanted: dict[str, Any]) -> RawStreamMsg:
        subject, body = f"DIRECT.GET.{self._stream}", wanted
        last_on: str | None = wanted.get("last_by_subj")
        if last_on is not None and not {"*", ">"} & set(last_on.split(".")):
            subject, body = f"{subject}.{last_on}", {}  # where permissions can tell subjects apart
        reply = await self._api.ask_raw(subject, encoded(subject, body) if body else b"")
        found = direct_of(reply.header, reply.data, subject)
        if found is not None:
            return found.message
        status = status_of(reply.header)
        if status is None or reply.data:
            raise StreamError(f"{subject}: an answer that is neither message nor status")
        raise status_error(*status, subject)

    async def _chunk(
        self, subject: str, start: int | datetime, most: int, room: int
    ) -> tuple[list[RawStreamMsg], bool]:
        """Messages, and whether there are more behind them."""
        wanted: dict[str, Any] = {"batch": most, "next_by_subj": subject, "max_bytes": min(room, _MOST_BYTES)}
        if isinstance(start, datetime):
            wanted["start_time"] = text_of_time(start)
        else:
            wanted["seq"] = max(start, 1)
        try:
            found = await get_batch(self._api, self._stream, wanted, most)
        except MessageNotFoundError:
            return [], False
        return found.messages, found.left > 0

    async def _page_of_chunks(self, subject: str, start: int | datetime, offset: int, limit: int) -> list[RawStreamMsg]:
        found: list[RawStreamMsg] = []
        skip, more = offset, True
        while more and len(found) < limit:
            page, more = await self._chunk(subject, start, min(skip + limit - len(found), _MOST), _MOST_BYTES)
            found += page[skip:]
            skip -= min(skip, len(page))
            if not page:
                break
            start = page[-1].sequence + 1
        return found

    async def _page_of_gets(self, subject: str, start: int | datetime, offset: int, limit: int) -> list[RawStreamMsg]:
        """One by one: slow, but always allowed."""
        found: list[RawStreamMsg] = []
        at = await self._first_at(start) if isinstance(start, datetime) else max(start, 1)
        for place in range(offset + limit):
            try:
                message = await self.get({"seq": at, "next_by_subj": subject})
            except MessageNotFoundError:
                break
            if place >= offset:
                found.append(message)
            at = message.sequence + 1
        return found

    async def _first_at(self, moment: datetime) -> int:
        """The sequence of the first message stored at or after it: a binary search, as a server does it."""
        info = stream_info(await self._api.ask(f"STREAM.INFO.{self._stream}"))
        low, high = 1, info.state.last_sequence + 1
        while low < high:
            middle = (low + high) // 2
            try:
                message = await self.get({"seq": middle, "next_by_subj": ">"})
            except MessageNotFoundError:
                high = middle
                continue
            if message.time < moment:
                low = message.sequence + 1
            else:
                high = middle
        return low

    async def _page_of_consumer(
        self, subject: str, start: int | datetime, offset: int, limit: int
    ) -> list[RawStreamMsg]:
        config = OrderedConsumerConfig(
            filter_subjects=() if subject == ">" else (subject,),
            deliver_policy=DeliverPolicy.BY_START_TIME
            if isinstance(start, datetime)
            else DeliverPolicy.BY_START_SEQUENCE,
            start_time=start if isinstance(start, datetime) else None,
            start_sequence=None if isinstance(start, datetime) else max(start, 1),
            inactive_threshold=60.0,
        )
        consumers = Consumers(self._api)
        reader = await consumers.ordered(self._stream, config)
        found: list[RawStreamMsg] = []
        skip = offset
        try:
            while len(found) < limit:
                page = await reader.fetch_no_wait(min(skip + limit - len(found), _MOST))
                found += [_raw(msg) for msg in page[skip:]]
                skip -= min(skip, len(page))
                if not page or not page[-1].metadata.num_pending:
                    break
        finally:
            if reader.inner is not None:
                with suppress(ConsumerNotFoundError):  # it was idle for too long
                    await consumers.delete(self._stream, reader.name)
        return found


def _raw(msg: Msg) -> RawStreamMsg:
    facts = msg.metadata
    return RawStreamMsg(
        subject=msg.subject,
        sequence=facts.sequence.stream,
        data=msg.data,
        headers=msg.headers,
        time=facts.timestamp,
    )
