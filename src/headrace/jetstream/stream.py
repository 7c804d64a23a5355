"""ServerStream: the handle of one stream of a server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any

from headrace.jetstream.consumers.registry import Consumers
from headrace.jetstream.protocol.api import Api
from headrace.jetstream.protocol.infos import stream_info
from headrace.jetstream.protocol.values import flag, optional, required, section, whole
from headrace.jetstream.stored.reading import Reading
from headrace.streams.config import GetBatch, PurgeOptions
from headrace.streams.errors import MessageDeleteError, PurgeError
from headrace.streams.info import StreamInfo
from headrace.streams.msg import RawStreamMsg
from headrace.streams.registry import StreamConsumers
from headrace.streams.stored import check_newest, check_page, checked_sequence, not_found
from headrace.streams.subjects import validate_filter

__all__ = ["ServerStream"]

_ALL = PurgeOptions()


class ServerStream(StreamConsumers):
    """One stored, ordered log on a server."""

    def __init__(self, api: Api, info: StreamInfo) -> None:
        self._api = api
        self._info = info
        self._name = info.config.name
        self._consumers = Consumers(api)

    def __repr__(self) -> str:
        return f"ServerStream({self._name!r})"

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    @property
    def cached_info(self) -> StreamInfo:
        """As last seen, without I/O."""
        return self._info

    async def info(self, *, deleted_details: bool = False, subject_filter: str | None = None) -> StreamInfo:
        """As it is now; the sequences of gaps, or the messages per subject, when asked."""
        subject = f"STREAM.INFO.{self._name}"
        body: dict[str, Any] = {"deleted_details": True} if deleted_details else {}
        if subject_filter is None:
            self._info = stream_info(await self._api.ask(subject, body or None))
            return self._info
        body["subjects_filter"] = validate_filter(subject_filter)
        found: dict[str, Any] = {}
        counted: dict[str, Any] = {}
        async for page in self._api.pages(subject, body, lambda page: len(_subjects(page))):
            found = found or page
            counted |= _subjects(page)
        self._info = stream_info({**found, "state": {**section(found, "state", subject), "subjects": counted}})
        return self._info

    async def purge(self, options: PurgeOptions = _ALL) -> int:
        """Delete messages; how many went."""
        body: dict[str, Any] = {} if options.subject is None else {"filter": options.subject}
        if options.sequence is not None:
            body["seq"] = checked_sequence(options.sequence)
        if options.keep is not None:
            body["keep"] = checked_sequence(options.keep)
        subject = f"STREAM.PURGE.{self._name}"
        answer = await self._api.ask(subject, body or None)
        if not required(answer, "success", flag, subject):
            raise PurgeError(f"stream {self._name!r} was not purged")
        return optional(answer, "purged", whole, 0, subject)

    async def get_msg(self, sequence: int, *, subject: str | None = None) -> RawStreamMsg:
        """The message; with `subject` (wildcards allowed) the first at or after it. ``MessageNotFoundError``."""
        wanted: dict[str, Any] = {"seq": checked_sequence(sequence)}
        if subject is not None:
            wanted["next_by_subj"] = validate_filter(subject)
        return await self._reading.get(wanted)

    async def get_last_msg_for_subject(self, subject: str) -> RawStreamMsg:
        """The newest on it (wildcards allowed). ``MessageNotFoundError``."""
        return await self._reading.get({"last_by_subj": validate_filter(subject)})

    async def delete_msg(self, sequence: int) -> None:
        """Delete one. ``MessageDeleteError``."""
        await self._delete({"seq": checked_sequence(sequence), "no_erase": True})

    async def secure_delete_msg(self, sequence: int) -> None:
        """Delete one and have the server overwrite it. ``MessageDeleteError``."""
        await self._delete({"seq": checked_sequence(sequence)})

    async def read(
        self, *, subject: str = ">", start: int | datetime = 1, offset: int = 0, limit: int = 250
    ) -> list[RawStreamMsg]:
        """Live messages in sequence order from `start` (a datetime: the first at or after it), past the end none.

        One batch get where the stream allows direct get (any replica answers, one that lags behind too), else through
        an ordered consumer.
        """
        validate_filter(subject)
        check_page(start, offset, limit)
        return await self._reading.page(subject, start, offset, limit)

    def get_batch(self, options: GetBatch) -> AsyncIterator[RawStreamMsg]:
        """Live messages in sequence order. None at all: ``MessageNotFoundError``."""
        return self._reading.batch(options)

    def get_last_for(
        self, subjects: Sequence[str], *, up_to_sequence: int | None = None, batch: int | None = None
    ) -> AsyncIterator[RawStreamMsg]:
        """The newest of each subject (wildcards allowed), as of `up_to_sequence`, in sequence order, at most `batch`.

        None at all: ``MessageNotFoundError``. More than 1024 subjects: ``ApiError`` with code 413. A stream that does
        not allow direct get, or a server before 2.11: ``UnsupportedError``.
        """
        check_newest(subjects, up_to_sequence, batch)
        return self._last_for(tuple(subjects), up_to_sequence, batch)

    @property
    def _reading(self) -> Reading:
        return Reading(self._api, self._info)

    async def _last_for(
        self, subjects: Sequence[str], upto: int | None, batch: int | None
    ) -> AsyncIterator[RawStreamMsg]:
        if upto is not None and upto > self._info.state.last_sequence:
            # A server finds nothing "as of" a sequence that the stream has not reached.
            upto = min(upto, (await self.info()).state.last_sequence)
            if not upto:
                raise not_found()
        async for message in self._reading.last_for(subjects, upto, batch):
            yield message

    async def _delete(self, body: dict[str, Any]) -> None:
        subject = f"STREAM.MSG.DELETE.{self._name}"
        answer = await self._api.ask(subject, body)
        if not required(answer, "success", flag, subject):
            raise MessageDeleteError(f"message {body['seq']} of stream {self._name!r} was not deleted")


def _subjects(page: dict[str, Any]) -> dict[str, Any]:
    return section(section(page, "state", "stream info"), "subjects", "stream state")
