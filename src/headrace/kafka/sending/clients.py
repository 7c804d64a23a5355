"""Clients: the producer that is used now, and the one that failed before it until its thread has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from headrace.kafka import driver
from headrace.kafka.errors import KafkaError
from headrace.kafka.log import DriverLog
from headrace.kafka.options import KafkaOptions
from headrace.kafka.sending.client import Client, Flight

__all__ = ["Clients"]


class Clients:
    """Opens a producer when there is none; never two that work at once."""

    def __init__(
        self,
        servers: Sequence[str],
        options: KafkaOptions,
        log: DriverLog,
        reported: Callable[[list[Flight]], None],
        failed: Callable[[Client, KafkaError], None],
    ) -> None:
        self.current: Client | None = None
        self.opened = 0
        """How many there were."""
        self._config = driver.producer_config(servers, options)
        self._log = log
        self._reported = reported
        self._failed = failed
        self._name = f"headrace-kafka-{options.client_id}"
        self._old: Client | None = None

    async def open(self) -> Client:
        """The one there is, else a new one; one that failed has ended before. ``ConfigError``, ``KafkaError``."""
        if self.current is not None:
            return self.current
        if self._old is not None:
            await self._old.ended()
        loop = asyncio.get_running_loop()
        client = self._old = Client(self._make, loop, self._reported, self._failed, self._name)
        await client.open()
        self.opened += 1
        self.current, self._old = client, None
        return client

    def drop(self, client: Client, failure: KafkaError) -> bool:
        """This one is of no further use. Whether that is news."""
        if client is not self.current:
            return False
        client.failure = failure
        self.current, self._old = None, client
        client.stop()
        return True

    async def aclose(self) -> None:
        """Throw away what is not sent, and wait for the threads; their last reports come before it returns."""
        clients = [client for client in (self._old, self.current) if client is not None]
        for client in clients:
            client.stop()
        for client in clients:
            await client.ended()

    def _make(self) -> Any:
        return driver.producer(self._config, self._log)
