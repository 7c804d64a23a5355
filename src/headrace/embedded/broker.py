"""EmbeddedBroker: the stream broker that `headrace.connect` gives: it owns its engine, and closes it."""

from __future__ import annotations

from headrace.embedded.engine import EmbeddedStreams
from headrace.streams.broker import StreamBroker

__all__ = ["EmbeddedBroker"]


class EmbeddedBroker(StreamBroker):
    """A `StreamBroker` over an engine of its own."""

    streams: EmbeddedStreams

    def __init__(self, streams: EmbeddedStreams, *, create: bool = True) -> None:
        super().__init__(streams, create=create)
        self._engine = streams

    async def aclose(self) -> None:
        """End the subscriptions, close the engine. Twice is fine."""
        try:
            await super().aclose()
        finally:
            await self._engine.aclose()
