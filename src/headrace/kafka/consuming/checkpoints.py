"""Checkpoints: one partition without a group. Its next offset is loaded from a store of the user's, and saved there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from headrace.core.errors import BrokerError, BrokerTimeoutError, StoreError
from headrace.flow.retry import RetryPolicy
from headrace.kafka.consuming.partition import Partition, Run
from headrace.kafka.consuming.places import ends
from headrace.kafka.consuming.poller import Poller
from headrace.kafka.consuming.subscription import KafkaSubscription
from headrace.kafka.errors import KafkaError, OffsetOutOfRangeError
from headrace.kafka.reading import KafkaPartitionOptions

__all__ = ["Checkpoints", "Reconnecting", "passes"]

_log = logging.getLogger("headrace.kafka")


def passes(error: BaseException) -> bool:
    """Whether the same may work later."""
    if isinstance(error, StoreError):
        return error.retryable
    if isinstance(error, KafkaError):
        return not ends(error) and not isinstance(error, OffsetOutOfRangeError)
    return isinstance(error, BrokerError | OSError)


class Checkpoints:
    """Saves what is finished: one save at a time, values that only grow, at most one each interval.

    While a save fails nothing is handed out; it is repeated by ``reconnect``. What does not pass ends the subscription.
    """

    def __init__(self, subscription: KafkaSubscription, topic: str, options: KafkaPartitionOptions) -> None:
        self._subscription = subscription
        self._topic = topic
        self._number = options.partition
        self._store = options.offset_store
        self._reconnect = options.reconnect
        self._interval = options.seconds("commit_interval")
        self._turn = asyncio.Lock()
        self._saved: int | None = None
        self._task: asyncio.Task[None] | None = None

    async def load(self) -> int | None:
        """Where to go on; ``None``: nothing was saved. What passes is asked again."""
        attempt = 0
        while True:
            try:
                return await self._store.load(self._topic, self._number)
            except Exception as error:
                if not passes(error):
                    raise
                attempt += 1
                _log.warning("%s/%d: its checkpoint cannot be read, asked again: %s", self._topic, self._number, error)
            await self.rest(self._reconnect, attempt)

    @staticmethod
    async def rest(policy: RetryPolicy, attempt: int) -> None:
        """Wait after the failure number `attempt`."""
        await asyncio.sleep(policy.wait(attempt).total_seconds())

    def start(self) -> None:
        """Begin to save."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="headrace-kafka-checkpoints")

    async def stop(self) -> None:
        """Save no more by itself."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def confirm(self, timeout: float) -> None:
        """What is finished is saved, or this raises. A cancelled caller still waits for it."""
        saving = asyncio.ensure_future(self._save_within(timeout))
        try:
            await asyncio.shield(saving)
        except asyncio.CancelledError:
            await asyncio.wait([saving])
            raise

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            try:
                await self._save()
            except Exception as error:  # noqa: BLE001  (whatever a store raises ends the reader, not this task)
                self._subscription.failed(error)
                return

    async def _save_within(self, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                await self._save()
        except TimeoutError as error:
            text = f"the checkpoint of {self._topic}/{self._number} was not saved within {timeout:g} s"
            raise BrokerTimeoutError(text) from error

    async def _save(self) -> None:
        async with self._turn:
            value, stay = self._due()
            if value is None or stay is None:
                return
            await self._repeat(lambda: self._store.save(self._topic, self._number, value))
            self._saved = value
            stay.epoch.confirmed = value, ""

    def _due(self) -> tuple[int | None, Partition | None]:
        """The newest committable value, if it grew."""
        for stay in self._subscription.stays:
            value = stay.epoch.tracker.committable
            if value is not None and (self._saved is None or value > self._saved):
                return value, stay
        return None, None

    async def _repeat(self, save: Callable[[], Awaitable[None]]) -> None:
        attempt = 0
        try:
            while True:
                try:
                    await save()
                except Exception as error:
                    if not passes(error):
                        raise
                    attempt += 1
                    self._subscription.held_back = True
                    _log.warning("%s/%d: its checkpoint cannot be saved: %s", self._topic, self._number, error)
                else:
                    return
                await self.rest(self._reconnect, attempt)
        finally:
            self._subscription.held_back = False
            self._subscription.ring()


class Reconnecting:
    """A poller's listener that begins anew where a failure may pass: from the checkpoint, after a wait."""

    def __init__(
        self,
        subscription: KafkaSubscription,
        checkpoints: Checkpoints,
        options: KafkaPartitionOptions,
        make: Callable[[Reconnecting], Awaitable[Poller]],
    ) -> None:
        self._subscription = subscription
        self._checkpoints = checkpoints
        self._policy = options.reconnect
        self._make = make
        self._attempt = 0
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """The first poller, and each after it; what passes is tried again."""
        while True:
            try:
                poller = self._subscription.poller = await self._make(self)
                await poller.start()
            except Exception as error:
                if not passes(error):
                    raise
                await self._wait(error)
            else:
                return

    async def stop(self) -> None:
        """Begin anew no more."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def arrived(self, runs: Sequence[Run]) -> None:
        """See `Listener`. A record was read: the next failure is a first one."""
        self._attempt = 0
        self._subscription.arrived(runs)

    def assigned(self, stays: Sequence[Partition]) -> None:
        """See `Listener`."""
        self._subscription.assigned(stays)

    def revoking(self, stays: Sequence[Partition], quiet: Callable[[], None]) -> None:
        """See `Listener`; nobody takes a partition away here."""
        self._subscription.revoking(stays, quiet)

    def gone(self, stays: Sequence[Partition], *, lost: bool) -> None:
        """See `Listener`."""
        self._subscription.gone(stays, lost=lost)

    def failed(self, error: BaseException) -> None:
        """The poller has ended."""
        if not passes(error) or self._subscription.is_closed:
            self._subscription.failed(error)
            return
        self._subscription.gone(list(self._subscription.stays), lost=True)
        self._task = asyncio.get_running_loop().create_task(self._again(error), name="headrace-kafka-reconnect")

    async def _again(self, error: BaseException) -> None:
        try:
            await self._wait(error)
            await self.open()
        except Exception as failure:  # noqa: BLE001  (whoever pulls hears of it)
            self._subscription.failed(failure)

    async def _wait(self, error: BaseException) -> None:
        self._attempt += 1
        _log.warning("reading one partition begins anew after: %s", error)
        await self._checkpoints.rest(self._policy, self._attempt)
