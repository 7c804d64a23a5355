"""ConsumerRegistry: what an engine keeps of consumers; and the calls for them, which all engines answer alike.

A manager is asked with the name of a stream, a stream's handle knows it: both hand on to the engine's registry.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from headrace.streams.config import ConsumerConfig, OrderedConsumerConfig
from headrace.streams.consumer import Consumer
from headrace.streams.info import ConsumerInfo

__all__ = ["ConsumerRegistry", "ManagerConsumers", "StreamConsumers"]


class ConsumerRegistry(Protocol):
    """The consumers of all streams of one engine."""

    async def create(self, stream: str, config: ConsumerConfig) -> Consumer:
        """See `StreamConsumers.create_consumer`."""
        ...

    async def update(self, stream: str, config: ConsumerConfig) -> Consumer:
        """See `StreamConsumers.update_consumer`."""
        ...

    async def create_or_update(self, stream: str, config: ConsumerConfig) -> Consumer:
        """See `StreamConsumers.create_or_update_consumer`."""
        ...

    async def get(self, stream: str, name: str) -> Consumer:
        """See `StreamConsumers.consumer`."""
        ...

    async def delete(self, stream: str, name: str) -> None:
        """See `StreamConsumers.delete_consumer`."""
        ...

    async def ordered(self, stream: str, config: OrderedConsumerConfig) -> Consumer:
        """See `StreamConsumers.ordered_consumer`."""
        ...

    def infos(self, stream: str) -> AsyncIterator[ConsumerInfo]:
        """See `StreamConsumers.list_consumers`."""
        ...

    def names(self, stream: str) -> AsyncIterator[str]:
        """See `StreamConsumers.consumer_names`."""
        ...


class ManagerConsumers:
    """The part of a `StreamManager` that is about consumers. ``StreamNotFoundError``, beside what is named."""

    _consumers: ConsumerRegistry

    async def create_consumer(self, stream: str, config: ConsumerConfig) -> Consumer:
        """Make it; an equal one is fine, a different one is ``ConsumerExistsError``."""
        return await self._consumers.create(stream, config)

    async def update_consumer(self, stream: str, config: ConsumerConfig) -> Consumer:
        """Change it; a missing one is ``ConsumerDoesNotExistError``."""
        return await self._consumers.update(stream, config)

    async def create_or_update_consumer(self, stream: str, config: ConsumerConfig) -> Consumer:
        """Make or change it."""
        return await self._consumers.create_or_update(stream, config)

    async def consumer(self, stream: str, name: str) -> Consumer:
        """The consumer of this name; ``ConsumerNotFoundError``."""
        return await self._consumers.get(stream, name)

    async def delete_consumer(self, stream: str, name: str) -> None:
        """Delete it; its pulls end with ``ConsumerDeletedError``."""
        await self._consumers.delete(stream, name)

    async def ordered_consumer(self, stream: str, config: OrderedConsumerConfig) -> Consumer:
        """A reader of its own that sees everything once, in order; made at first use."""
        return await self._consumers.ordered(stream, config)


class StreamConsumers:
    """The part of a `Stream` that is about its consumers."""

    _consumers: ConsumerRegistry
    _name: str

    async def create_consumer(self, config: ConsumerConfig) -> Consumer:
        """Make it; an equal one is fine, a different one is ``ConsumerExistsError``."""
        return await self._consumers.create(self._name, config)

    async def update_consumer(self, config: ConsumerConfig) -> Consumer:
        """Change it; a missing one is ``ConsumerDoesNotExistError``."""
        return await self._consumers.update(self._name, config)

    async def create_or_update_consumer(self, config: ConsumerConfig) -> Consumer:
        """Make or change it."""
        return await self._consumers.create_or_update(self._name, config)

    async def consumer(self, name: str) -> Consumer:
        """The consumer of this name; ``ConsumerNotFoundError``."""
        return await self._consumers.get(self._name, name)

    async def delete_consumer(self, name: str) -> None:
        """Delete it; its pulls end with ``ConsumerDeletedError``."""
        await self._consumers.delete(self._name, name)

    async def ordered_consumer(self, config: OrderedConsumerConfig) -> Consumer:
        """A reader of its own that sees everything once, in order; made at first use."""
        return await self._consumers.ordered(self._name, config)

    def list_consumers(self) -> AsyncIterator[ConsumerInfo]:
        """All consumers."""
        return self._consumers.infos(self._name)

    def consumer_names(self) -> AsyncIterator[str]:
        """Their names."""
        return self._consumers.names(self._name)
