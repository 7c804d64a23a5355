"""JetStreamBroker: the stream broker that `headrace.connect` gives: it owns its JetStream, and closes it."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.core.clock import Clock
from headrace.jetstream.jetstream import JetStream
from headrace.jetstream.jetstream import opened as opened_streams
from headrace.jetstream.options import JetStreamOptions
from headrace.streams.broker import StreamBroker

__all__ = ["JetStreamBroker", "opened"]


class JetStreamBroker(StreamBroker):
    """A `StreamBroker` over a JetStream of its own; closing it closes the connection too."""

    streams: JetStream

    def __init__(self, streams: JetStream, *, create: bool = True) -> None:
        super().__init__(streams, create=create)
        self._jetstream = streams

    async def aclose(self) -> None:
        """End the subscriptions, close the connection. Twice is fine."""
        try:
            await super().aclose()
        finally:
            await self._jetstream.aclose()


async def opened(
    servers: str | Sequence[str], *, options: JetStreamOptions, create: bool = True, clock: Clock | None = None
) -> JetStreamBroker:
    """Connect to one of these servers; the caller closes what it gets. ``ConnectionLostError``: none took us."""
    return JetStreamBroker(await opened_streams(servers, options=options, clock=clock), create=create)
