"""Atomic publish: several messages into one stream in one transaction, all or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import apsw
import msgspec

from headrace.core.errors import ConfigError, PublishError
from headrace.core.message import new_id
from headrace.embedded.errors import DiskFullError, publish_error
from headrace.embedded.options import EmbeddedOptions
from headrace.embedded.publishing.batch import Batch
from headrace.embedded.publishing.entries import entry_of, size_of, too_large
from headrace.embedded.publishing.jobs import Desk, PublishJob, late
from headrace.embedded.publishing.run import Entry
from headrace.streams.config import StreamMessage
from headrace.streams.errors import (
    MessageTooLargeError,
    NoStreamResponseError,
    StreamSealedError,
    publish_error_for,
)
from headrace.streams.info import PubAck
from headrace.streams.names import BATCH_COMMIT, BATCH_ID, BATCH_SEQUENCE

__all__ = ["AtomicJob", "Bundle"]

MOST = 1_000


class Bundle:
    """The messages of one atomic publish in their stored form, with the headers that a server would have got."""

    def __init__(self, limits: EmbeddedOptions, messages: Sequence[StreamMessage]) -> None:
        messages = list(messages)
        if not messages:
            raise ConfigError("messages must not be empty, got []")
        if len(messages) > MOST:
            raise _refusal(10199, f"atomic publish batch is too large: {MOST}")
        self.id = new_id()
        self.entries = [_entry(limits, self.id, place, message) for place, message in enumerate(messages, 1)]
        self.entries[-1] = _with_lines(limits, self.entries[-1], f"{BATCH_COMMIT}: 1\r\n")
        self.size = sum(map(size_of, self.entries))


def _entry(limits: EmbeddedOptions, batch_id: str, place: int, message: StreamMessage) -> Entry:
    entry = entry_of(limits, message.subject, message.data, message.headers, message.msg_id, None, None)
    return _with_lines(limits, entry, f"{BATCH_ID}: {batch_id}\r\n{BATCH_SEQUENCE}: {place}\r\n")


def _with_lines(limits: EmbeddedOptions, entry: Entry, lines: str) -> Entry:
    made = msgspec.structs.replace(entry, block=(entry.block or b"") + lines.encode())
    if size_of(made) > limits.max_payload:
        raise too_large(limits, size_of(made), entry.msg_id)
    return made


class AtomicJob(PublishJob):
    """One atomic publish: what goes wrong with one message takes back all of them, and nothing of other jobs."""

    isolated = True

    def __init__(self, desk: Desk, bundle: Bundle) -> None:
        super().__init__(desk)
        self.entries = bundle.entries
        self.size = bundle.size
        self.future: asyncio.Future[PubAck] = desk.store.loop.create_future()
        self._id = bundle.id

    def run(self, connection: apsw.Connection) -> None:
        """Store them unless nobody waits any more; or raise."""
        if not (self.overdue or self.future.cancelled()):
            self._store(connection)

    def _judge(self, batch: Batch) -> None:
        """Raises what went wrong, in the order and with the codes of a server: it looks at sizes before all else."""
        first = self.results[0]
        if isinstance(first, NoStreamResponseError | StreamSealedError | MessageTooLargeError):
            raise first
        routes = [batch.routes.by_subject.get(entry.subject) for entry in self.entries]
        streams = [None if route is None else route.run.record for route in routes]
        for entry, stream in zip(self.entries, streams, strict=True):
            if stream is not None and not stream.config.allow_atomic:
                raise _refusal(10174, "atomic publish is disabled", entry)
        for result in self.results:
            if isinstance(result, MessageTooLargeError):
                raise result
        for entry, stream, result in zip(self.entries, streams, self.results, strict=True):
            if isinstance(result, PublishError):
                raise result
            if stream is not streams[0]:
                raise _refusal(10176, "atomic publish batch is incomplete", entry)
            if result.duplicate:
                raise _refusal(10201, "atomic publish batch contains duplicate message id", entry)

    def done(self) -> None:
        """Answer: the last one speaks for all."""
        self._end()
        if self.future.done():
            return
        last = self.results[-1]
        assert isinstance(last, PubAck)  # noqa: S101  (anything else was raised)
        self.future.set_result(msgspec.structs.replace(last, batch_id=self._id, batch_size=len(self.entries)))

    def failed(self, error: BaseException) -> None:
        """None is stored, or that is unknown."""
        if isinstance(error, DiskFullError):
            self.desk.on_disk_full()
        self._forget()
        if not self.future.done():
            self.future.set_exception(publish_error(error, None))

    def _late(self) -> None:
        self.overdue = True
        gate = self.desk.store.gates.get("streams")
        if not self.future.done():
            self.future.set_exception(late(gate and gate.holder()))


def _refusal(err_code: int, description: str, entry: Entry | None = None) -> PublishError:
    error = publish_error_for(400, err_code, description, message_id=entry and entry.msg_id)
    assert isinstance(error, PublishError)  # noqa: S101  (publish_error_for gives nothing else)
    return error
