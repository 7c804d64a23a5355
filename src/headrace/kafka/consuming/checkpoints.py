"""Checkpoints: one partition without a group. Its next offset is loaded from a store of the user's, and saved there."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from headrace.core.errors import BrokerError, BrokerTimeoutError, ClosedError, HeadraceError, StoreError
from headrace.flow.retry import RetryPolicy
from headrace.kafka.consuming.partition import Epoch, Partition, Run
from headrace.kafka.consuming.places import ends
from headrace.kafka.consuming.poller import Poller
from headrace.kafka.consuming.subscription import KafkaSubscription
from headrace.kafka.errors import KafkaError, OffsetOutOfRangeError
from headrace.kafka.reading import KafkaPartitionOptions

__all__ = ["Checkpoints", "Reconnecting", "passes"]

T = TypeVar("T")

_log = logging.getLogger("headrace.kafka")


def passes(error: BaseException) -> bool:
    """Whether the same may work later."""
    if isinstance(error, StoreError):
        return error.retryable
    if isinstance(error, KafkaError):
        return not ends(error) and not isinstance(error, OffsetOutOfRangeError)
    return isinstance(error, BrokerError | OSError)


def _store_passes(error: BaseException) -> bool:
    """As `OffsetStore` says: what a store of the user's raises is as a rule its database's, and not known here."""
    return passes(error) or not isinstance(error, HeadraceError)


def _result_of(call: asyncio.Future[T]) -> T:
    """Of a store's call. One that ends as if it had been cancelled, which nobody did here, has failed."""
    if call.cancelled():
        raise InterruptedError("the store's call was cancelled inside")
    return call.result()


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
        self._saved_in: Epoch | None = None
        self._flying: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    async def load(self) -> int | None:
        """Where to go on; ``None``: nothing was saved. What passes is asked again."""
        attempt = 0
        while True:
            try:
                loading = asyncio.ensure_future(self._store.load(self._topic, self._number))
                try:
                    await asyncio.wait([loading])
                finally:
                    loading.cancel()
                return self._checked(_result_of(loading))
            except Exception as error:
                if not _store_passes(error):
                    raise
                attempt += 1
                _log.warning("%s/%d: its checkpoint cannot be read, asked again: %s", self._topic, self._number, error)
            await self.rest(self._reconnect, attempt)

    def _checked(self, offset: int | None) -> int | None:
        if offset is not None and (not isinstance(offset, int) or isinstance(offset, bool) or offset < 0):
            raise StoreError(f"{self._topic}/{self._number}: the store gave {offset!r} for the next offset")
        return offset

    @staticmethod
    async def rest(policy: RetryPolicy, attempt: int) -> None:
        """Wait after the failure number `attempt`."""
        await asyncio.sleep(policy.wait(attempt, random.random()).total_seconds())

    def start(self) -> None:
        """Begin to save."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="headrace-kafka-checkpoints")

    async def stop(self) -> None:
        """Save no more by itself."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def confirm(self, timeout: float) -> None:
        """What is finished is saved, or this raises. A cancelled caller still waits for it."""
        saving = asyncio.ensure_future(self._save_within(timeout))
        try:
            await asyncio.shield(saving)
        except asyncio.CancelledError:
            await asyncio.wait([saving])
            if not saving.cancelled():
                saving.exception()  # it has been heard of
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
            attempt = 0
            try:
                while not await self._saved_once():
                    attempt += 1
                    self._subscription.held_back = True
                    await self.rest(self._reconnect, attempt)
            finally:
                if self._subscription.held_back:
                    self._subscription.held_back = False
                    self._subscription.ring()

    async def _saved_once(self) -> bool:
        """Save the newest value, if it grew. False: that failed, and may work later."""
        await self._landed()
        value, epoch = self._due()
        if value is None or epoch is None:
            return True
        saving = self._flying = asyncio.ensure_future(self._store.save(self._topic, self._number, value))
        await asyncio.wait([saving])  # whoever is cancelled here leaves it on its way
        self._flying = None
        try:
            _result_of(saving)
        except Exception as error:
            if not _store_passes(error):
                raise
            _log.warning("%s/%d: its checkpoint cannot be saved: %s", self._topic, self._number, error)
            return False
        self._saved, self._saved_in = value, epoch
        epoch.confirmed = value, ""
        return True

    async def _landed(self) -> None:
        """Wait for a save that was left on its way: two at once could end in any order."""
        left = self._flying
        if left is not None:
            await asyncio.wait([left])
            self._flying = None
            if not left.cancelled():
                left.exception()  # its value is saved again, or a newer one

    def _due(self) -> tuple[int | None, Epoch | None]:
        """The newest committable value, if it grew; or where the log went back, and reading with it (decision 0014)."""
        for stay in self._subscription.stays:
            epoch, value = stay.epoch, stay.epoch.tracker.committable
            went_back = epoch.number > 1 and epoch is not self._saved_in
            if value is not None and (self._saved is None or value > self._saved or went_back):
                return value, epoch
        return None, None


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
        self._stopped = False
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """The first poller, and each after it; what passes is tried again."""
        while True:
            try:
                await self._begin()
            except Exception as error:
                if not passes(error):
                    raise
                await self._wait(error)
            else:
                return

    async def stop(self) -> None:
        """Begin anew no more."""
        self._stopped = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def arrived(self, runs: Sequence[Run]) -> None:
        """See `Listener`."""
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
        if not passes(error) or self._stopped or self._subscription.is_closed:
            self._subscription.failed(error)
            return
        stays = list(self._subscription.stays)
        if any(stay.epoch.tracker.committable is not None for stay in stays):
            self._attempt = 0  # a record was handled: this failure is a first one
        self._subscription.gone(stays, lost=True)
        self._task = asyncio.get_running_loop().create_task(self._again(error), name="headrace-kafka-reconnect")

    async def _again(self, error: BaseException) -> None:
        try:
            await self._subscription.poller.ended()
            await self._wait(error)
            await self.open()
        except Exception as failure:  # noqa: BLE001  (whoever pulls hears of it)
            self._subscription.failed(failure)

    async def _begin(self) -> None:
        poller = await self._make(self)
        self._subscription.attach(poller)
        try:
            await poller.start()
        except BaseException:
            await poller.join()  # its thread must not outlive a start that was given up
            raise
        if self._subscription.is_closed:
            await poller.join()
            raise ClosedError("the subscription was closed")

    async def _wait(self, error: BaseException) -> None:
        self._attempt += 1
        _log.warning("reading one partition begins anew after: %s", error)
        await self._checkpoints.rest(self._policy, self._attempt)
