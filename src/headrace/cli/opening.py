"""Opening what --url names, and running a command's coroutine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

from headrace.cli.exits import StoppedError
from headrace.cli.options import is_directory
from headrace.core.broker import Broker
from headrace.core.errors import UnsupportedError
from headrace.streams.api import StreamManager

__all__ = ["open_broker", "open_streams", "run", "streams_of"]

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command. Ctrl-C cancels it, so that what it opened is closed in order; ``StoppedError`` then."""
    try:
        return asyncio.run(work)
    except KeyboardInterrupt as error:
        raise StoppedError from error


@asynccontextmanager
async def open_broker(url: str, *, look_only: bool = False, create: bool = True) -> AsyncGenerator[Broker]:
    """The broker at `url`. ``look_only``: nothing is written, also beside a running service; it must exist then.

    ``create=False``: the store must exist too; topics in it are made.
    """
    from headrace.connect import connect

    options: Any = None
    if is_directory(url) and (look_only or not create):
        from headrace.embedded.options import EmbeddedOptions

        options = EmbeddedOptions(read_only=look_only, create=False)
    async with connect(url, options=options, create=not look_only) as broker:
        yield broker


@asynccontextmanager
async def open_streams(url: str, *, look_only: bool = False, create: bool = True) -> AsyncGenerator[StreamManager]:
    """The stream engine at `url`; ``UnsupportedError`` where there are no streams."""
    async with open_broker(url, look_only=look_only, create=create) as broker:
        yield streams_of(broker)


def streams_of(broker: Broker) -> StreamManager:
    """The stream engine under a broker; ``UnsupportedError`` where there is none."""
    streams = getattr(broker, "streams", None)
    if streams is None:
        raise UnsupportedError(f"{type(broker).__name__} has no streams: this command needs them")
    return cast("StreamManager", streams)
