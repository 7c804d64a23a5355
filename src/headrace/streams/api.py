"""StreamManager and Stream: what an opened stream engine is. Consumers stand in consumer.py, sessions in session.py."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

from headrace.core.broker import Capabilities
from headrace.core.clock import Clock
from headrace.core.errors import PublishError
from headrace.core.headers import HeadersLike
from headrace.streams.config import (
    ConsumerConfig,
    GetBatch,
    OrderedConsumerConfig,
    PurgeOptions,
    StreamConfig,
    StreamMessage,
    StreamPublishOptions,
)
from headrace.streams.consumer import Consumer
from headrace.streams.info import AccountInfo, ConsumerInfo, PubAck, StreamInfo
from headrace.streams.msg import RawStreamMsg

__all__ = ["PublishFuture", "Stream", "StreamManager"]


class PublishFuture(Protocol):
    """The coming answer to one `publish_async`. It resolves once, always."""

    @property
    def message(self) -> StreamMessage:
        """What was published."""
        ...

    def done(self) -> bool:
        """Whether the answer is there."""
        ...

    def add_done_callback(self, callback: Callable[[PublishFuture], None]) -> None:
        """Call it with this future once the answer is there."""
        ...

    def __await__(self) -> Generator[Any, None, PubAck]:
        """The `PubAck`; or the `PublishError` is raised."""
        ...


class ConsumerCalls(Protocol):
    """Consumers of one stream."""

    async def create_consumer(self, config: ConsumerConfig) -> Consumer:
        """Make it; an equal one is fine, a different one is ``ConsumerExistsError``."""
        ...

    async def update_consumer(self, config: ConsumerConfig) -> Consumer:
        """Change it; a missing one is ``ConsumerDoesNotExistError``."""
        ...

    async def create_or_update_consumer(self, config: ConsumerConfig) -> Consumer:
        """Make or change it."""
        ...

    async def consumer(self, name: str) -> Consumer:
        """The consumer of this name; ``ConsumerNotFoundError``."""
        ...

    async def delete_consumer(self, name: str) -> None:
        """Delete it; its pulls end with ``ConsumerDeletedError``."""
        ...

    async def ordered_consumer(self, config: OrderedConsumerConfig) -> Consumer:
        """A reader of its own that sees everything once, in order; made at first use."""
        ...

    def list_consumers(self) -> AsyncIterator[ConsumerInfo]:
        """All consumers."""
        ...

    def consumer_names(self) -> AsyncIterator[str]:
        """Their names."""
        ...


@runtime_checkable
class Stream(ConsumerCalls, Protocol):
    """One stored, ordered log."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def cached_info(self) -> StreamInfo:
        """As last seen, without I/O."""
        ...

    async def info(self, *, deleted_details: bool = False, subject_filter: str | None = None) -> StreamInfo:
        """As it is now; the sequences of gaps, or the messages per subject, when asked."""
        ...

    async def purge(self, options: PurgeOptions = ...) -> int:
        """Delete messages; how many went."""
        ...

    async def get_msg(self, sequence: int, *, subject: str | None = None) -> RawStreamMsg:
        """The message; with `subject` (wildcards allowed) the first at or after it. ``MessageNotFoundError``."""
        ...

    async def get_last_msg_for_subject(self, subject: str) -> RawStreamMsg:
        """The newest on it (wildcards allowed). ``MessageNotFoundError``."""
        ...

    async def delete_msg(self, sequence: int) -> None:
        """Delete one. ``MessageDeleteError``."""
        ...

    async def secure_delete_msg(self, sequence: int) -> None:
        """Delete one and overwrite it: after it returns no file holds its payload."""
        ...

    async def read(
        self, *, subject: str = ">", start: int | datetime = 1, offset: int = 0, limit: int = 250
    ) -> list[RawStreamMsg]:
        """Live messages in sequence order from `start` (a datetime: the first at or after it), past the end none."""
        ...

    def get_batch(self, options: GetBatch) -> AsyncIterator[RawStreamMsg]:
        """Live messages in sequence order. None at all: ``MessageNotFoundError``."""
        ...

    def get_last_for(
        self, subjects: Sequence[str], *, up_to_sequence: int | None = None, batch: int | None = None
    ) -> AsyncIterator[RawStreamMsg]:
        """The newest of each subject (wildcards allowed), as of `up_to_sequence`, in sequence order, at most `batch`.

        None at all: ``MessageNotFoundError``.
        """
        ...


@runtime_checkable
class StreamManager(Protocol):
    """An opened stream engine, publishing included. An async context manager: leaving it closes it."""

    @property
    def clock(self) -> Clock:
        """Its source of time."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """Shown by `StreamBroker` as its own."""
        ...

    @property
    def system(self) -> str:
        """What `attributes()` calls it: ``messaging.system`` of OpenTelemetry."""
        ...

    @property
    def max_payload(self) -> int:
        """Largest message, headers and body, in bytes."""
        ...

    async def create_stream(self, config: StreamConfig) -> Stream:
        """Make it; an equal one is fine, a different one is ``StreamNameInUseError``."""
        ...

    async def update_stream(self, config: StreamConfig) -> Stream:
        """Change it; ``StreamNotFoundError``."""
        ...

    async def create_or_update_stream(self, config: StreamConfig) -> Stream:
        """Change or make it."""
        ...

    async def stream(self, name: str) -> Stream:
        """The stream of this name; ``StreamNotFoundError``."""
        ...

    async def delete_stream(self, name: str) -> None:
        """Delete it with its consumers; ``StreamNotFoundError``."""
        ...

    async def stream_name_by_subject(self, subject: str) -> str:
        """The first stream that covers it; ``StreamNotFoundError``."""
        ...

    def list_streams(self, *, subject: str | None = None) -> AsyncIterator[StreamInfo]:
        """All streams, or those that overlap `subject`."""
        ...

    def stream_names(self, *, subject: str | None = None) -> AsyncIterator[str]:
        """Their names."""
        ...

    async def create_consumer(self, stream: str, config: ConsumerConfig) -> Consumer:
        """See `Stream.create_consumer`."""
        ...

    async def update_consumer(self, stream: str, config: ConsumerConfig) -> Consumer:
        """See `Stream.update_consumer`."""
        ...

    async def create_or_update_consumer(self, stream: str, config: ConsumerConfig) -> Consumer:
        """See `Stream.create_or_update_consumer`."""
        ...

    async def consumer(self, stream: str, name: str) -> Consumer:
        """See `Stream.consumer`."""
        ...

    async def delete_consumer(self, stream: str, name: str) -> None:
        """See `Stream.delete_consumer`."""
        ...

    async def ordered_consumer(self, stream: str, config: OrderedConsumerConfig) -> Consumer:
        """See `Stream.ordered_consumer`."""
        ...

    async def account_info(self) -> AccountInfo:
        """What is used, and the limits."""
        ...

    async def publish(
        self,
        subject: str,
        data: bytes = b"",
        *,
        headers: HeadersLike | None = None,
        msg_id: str | None = None,
        options: StreamPublishOptions | None = None,
    ) -> PubAck:
        """Store a message; returns once it is stored. ``PublishError``."""
        ...

    async def publish_msg(self, message: StreamMessage, *, options: StreamPublishOptions | None = None) -> PubAck:
        """Store a message."""
        ...

    async def publish_many(self, messages: Sequence[StreamMessage]) -> list[PubAck | PublishError]:
        """One result per item, in order; an item fails alone."""
        ...

    async def publish_async(
        self,
        subject: str,
        data: bytes = b"",
        *,
        headers: HeadersLike | None = None,
        msg_id: str | None = None,
        options: StreamPublishOptions | None = None,
    ) -> PublishFuture:
        """Send without waiting for the answer; suspends only when the window is full (``TooManyPendingError``)."""
        ...

    async def publish_msg_async(
        self, message: StreamMessage, *, options: StreamPublishOptions | None = None
    ) -> PublishFuture:
        """Like `publish_async`."""
        ...

    @property
    def publish_async_pending(self) -> int:
        """How many answers are outstanding."""
        ...

    async def publish_async_complete(self, timeout: float | None = None) -> None:
        """Returns when none is outstanding; ``BrokerTimeoutError`` if late. Failures stay in their futures."""
        ...

    async def publish_atomic(self, messages: Sequence[StreamMessage]) -> PubAck:
        """All or nothing."""
        ...

    async def aclose(self) -> None:
        """Close; every pending future resolves. Twice is fine."""
        ...

    async def __aenter__(self) -> Self:
        """Itself."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        ...
