"""Opening what --url names, and running a command's coroutine."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, Coroutine, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, TypeVar, cast

from headrace.cli.exits import StoppedError
from headrace.cli.options import is_directory, is_embedded, is_kafka
from headrace.core.broker import Broker
from headrace.core.errors import BrokerTimeoutError, UnsupportedError
from headrace.streams.api import StreamManager

__all__ = ["TIMEOUT", "open_broker", "open_streams", "run", "streams_of"]

T = TypeVar("T")


_JETSTREAM = ("nats://", "tls://")
_KAFKA_TIMEOUT = timedelta(seconds=30)
"""A library may repeat for ever; somebody sits before a command."""
TIMEOUT: ContextVar[timedelta | None] = ContextVar("timeout", default=None)
"""Longest wait for the broker (--timeout); ``None``: the engine's own default."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command. Ctrl-C or SIGTERM cancels it, so that what it opened is closed in order; ``StoppedError`` then."""
    try:
        return asyncio.run(_stoppable(work))
    except (KeyboardInterrupt, asyncio.CancelledError) as error:
        raise StoppedError from error


async def _stoppable(work: Coroutine[Any, Any, T]) -> T:
    """asyncio cancels at a Ctrl-C of itself, but not at a SIGTERM."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101  (asyncio.run made one)
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await work
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


@asynccontextmanager
async def open_broker(url: str, *, look_only: bool = False, create: bool = True) -> AsyncGenerator[Broker]:
    """The broker at `url`. ``look_only``: nothing is written, also beside a running service; it must exist then.

    ``create=False``: the store must exist too; topics in it are made.
    """
    from headrace.connect import connect

    options: Any = None
    if is_embedded(url):
        from headrace.embedded.options import EmbeddedOptions

        options = EmbeddedOptions(
            read_only=look_only and is_directory(url),
            create=not is_directory(url) or (create and not look_only),
            timeout=TIMEOUT.get() or EmbeddedOptions.timeout,
        )
    elif url.lower().startswith(_JETSTREAM):
        from headrace.jetstream.options import JetStreamOptions

        options = JetStreamOptions(timeout=TIMEOUT.get() or JetStreamOptions.timeout)
    elif is_kafka(url):
        from headrace.kafka.options import KafkaOptions

        options = KafkaOptions(delivery_timeout=TIMEOUT.get() or _KAFKA_TIMEOUT)
    async with AsyncExitStack() as stack:
        with _in_time(url) as limit:
            async with limit:
                broker = await stack.enter_async_context(connect(url, options=options, create=not look_only))
        yield broker


@contextmanager
def _in_time(url: str) -> Generator[asyncio.Timeout]:
    """What bounds an opening that has no bound among its options: that of Kafka, which takes up to 10 s."""
    wanted = TIMEOUT.get() if is_kafka(url) else None
    try:
        yield asyncio.timeout(None if wanted is None else wanted.total_seconds())
    except TimeoutError as error:
        if wanted is None or isinstance(error, BrokerTimeoutError):
            raise
        raise BrokerTimeoutError(f"no broker answered within {wanted.total_seconds():g} s") from error


@asynccontextmanager
async def open_streams(url: str, *, look_only: bool = False, create: bool = True) -> AsyncGenerator[StreamManager]:
    """The stream engine at `url`; ``UnsupportedError`` where there are no streams."""
    if is_kafka(url):
        raise _no_streams("Kafka")
    async with open_broker(url, look_only=look_only, create=create) as broker:
        yield streams_of(broker)


def streams_of(broker: Broker) -> StreamManager:
    """The stream engine under a broker; ``UnsupportedError`` where there is none."""
    streams = getattr(broker, "streams", None)
    if streams is None:
        raise _no_streams(type(broker).__name__.removesuffix("Broker"))
    return cast("StreamManager", streams)


def _no_streams(engine: str) -> UnsupportedError:
    return UnsupportedError(f"{engine} has topics and no streams: this command is for a directory or a NATS server")
