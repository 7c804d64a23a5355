"""Room: what the engine and its stream handles share: the store, its consumers, and how a call waits for its commit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import apsw

from headrace.core.errors import BrokerTimeoutError
from headrace.embedded.consumers.room import ConsumerRoom
from headrace.embedded.forgetting import Forgetting
from headrace.embedded.maintenance import Maintenance
from headrace.embedded.publishing.publisher import Publisher
from headrace.embedded.store.store import Store

__all__ = ["Room"]

T = TypeVar("T")


class Room:
    """The parts of one opened engine."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.consumers = ConsumerRoom(store)
        self.publisher = Publisher(store)
        self.maintenance = Maintenance(store)
        self.forgetting = Forgetting(store)
        self.publisher.on_expiry = self.maintenance.expires_at
        self.publisher.on_ids = self.forgetting.due
        self.publisher.on_disk_full = self.maintenance.disk_full
        self.maintenance.tell_full = self._tell_full
        self._timeout = store.options.seconds("timeout")

    def _tell_full(self, full: bool) -> None:  # noqa: FBT001  (the one fact)
        self.publisher.disk_full = full

    async def read(self, function: Callable[[apsw.Connection], T]) -> T:
        """Its result in a read transaction."""
        self.store.check_usable()
        return await self._within(self.store.ask(self.store.reader, function), None)

    async def write(self, function: Callable[[apsw.Connection], T]) -> T:
        """Its result once it is durably committed."""
        self.store.check_writable()
        result = await self._within(self.store.ask(self.store.streams, function), "streams")
        if self.store.path is not None and self.maintenance.relaxed:
            await self.maintenance.sync()
        return result

    async def flush_acks(self) -> None:
        """Acks so far are committed, and what they remove is gone."""
        if not self.store.options.read_only:
            await self.consumers.flush()

    async def _within(self, work: Awaitable[T], gate: str | None) -> T:
        try:
            async with asyncio.timeout(self._timeout):
                return await work
        except TimeoutError as error:
            holder = self.store.gates[gate].holder() if gate and gate in self.store.gates else None
            who = f"; process {holder} has the write lock" if holder else ""
            raise BrokerTimeoutError(f"no answer in {self._timeout:g} s{who}") from error
