"""What the stream checks have in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from headrace.core.message import new_id
from headrace.streams.api import Stream, StreamManager
from headrace.streams.config import StreamConfig
from headrace.streams.consumer import Consumer
from headrace.streams.errors import StreamError
from headrace.streams.msg import Msg, RawStreamMsg
from headrace.testing.conformance.tools import failure_of

__all__ = ["ACK_WAIT", "QUIET", "assert_code", "fetch", "fill", "new_stream", "sequences", "stream_sequences"]

ACK_WAIT = 2.0
"""Ack wait under which checks wait for its end."""
QUIET = 0.2
"""How long nothing must come for it to count as nothing."""


async def new_stream(streams: StreamManager, **fields: Any) -> Stream:
    """A stream of a new name, over ``<name>.>``."""
    name = f"CHECK-{new_id()}"
    return await streams.create_stream(StreamConfig(name=name, subjects=[f"{name}.>"], **fields))


async def fill(streams: StreamManager, stream: Stream, count: int, subject: str = "x") -> None:
    """Publish so many messages."""
    for number in range(count):
        await streams.publish(f"{stream.name}.{subject}", b"%d" % number)


async def fetch(consumer: Consumer, batch: int, wait: float = 5.0) -> list[Msg]:
    """What comes within `wait`, at most `batch`."""
    return list(await consumer.fetch(batch, max_wait=wait))


async def assert_code(call: Callable[[], Awaitable[object]], err_code: int) -> None:
    """The call is refused with this code of the server's."""
    error = await failure_of(call, StreamError)
    found = getattr(error, "err_code", None)
    assert found == err_code, f"{err_code} expected, got {found}: {error!r}"


def sequences(messages: Sequence[RawStreamMsg]) -> list[int]:
    """Their sequences."""
    return [each.sequence for each in messages]


def stream_sequences(messages: Sequence[Msg]) -> list[int]:
    """Their stream sequences."""
    return [each.metadata.sequence.stream for each in messages]
