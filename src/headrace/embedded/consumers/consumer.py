"""EmbeddedConsumer: the handle of one consumer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime

from headrace.core.errors import UnsupportedError
from headrace.embedded.consumers.place import Place
from headrace.embedded.consumers.session import EmbeddedSession
from headrace.embedded.streams.read import ns_of
from headrace.streams.consumer import Consumer
from headrace.streams.info import ConsumerInfo
from headrace.streams.session import PullSession, SessionOptions

__all__ = ["EmbeddedConsumer"]

_Look = Callable[[str, str], Awaitable[ConsumerInfo]]
_Pause = Callable[[str, str, datetime | None], Awaitable[ConsumerInfo]]


class EmbeddedConsumer(Consumer):
    """A consumer of the embedded engine, shared by all processes of the directory."""

    def __init__(self, place: Place, info: ConsumerInfo, look: _Look, pause: _Pause) -> None:
        self._place = place
        self._info = info
        self._look = look
        self._pause = pause

    @property
    def cached_info(self) -> ConsumerInfo:
        """As last seen, without I/O."""
        return self._info

    async def info(self) -> ConsumerInfo:
        """As it is now: what was acknowledged so far counts."""
        self._info = await self._look(self.stream, self.name)
        return self._info

    def session(self, options: SessionOptions) -> PullSession:
        """A reader of its own; no I/O."""
        store = self._place.shared.store
        store.check_writable()
        for name in ("group", "min_pending", "min_ack_pending", "priority"):
            if getattr(options, name) is not None:
                raise UnsupportedError(name)
        return EmbeddedSession(self._place, options)

    async def pause(self, until: datetime) -> None:
        """See `Consumer.pause`. For all processes; a time that has passed pauses nothing. ``ConsumerNotFoundError``."""
        ns_of(until, "until")
        self._info = await self._pause(self.stream, self.name, until)

    async def resume(self) -> None:
        """See `Consumer.resume`. ``ConsumerNotFoundError``."""
        self._info = await self._pause(self.stream, self.name, None)
