"""KafkaSubscription: what a worker pulls from. It hands records out, keeps what waits, and knows what may begin."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

from headrace.core.delivery import ACK, RELEASE, Ack, Delivery, Nak, Outcome, Position, Reject
from headrace.core.errors import ClosedError, HandlerError, UsageError
from headrace.flow.letter import one_line
from headrace.kafka.consuming.again import Again
from headrace.kafka.consuming.delivery import KafkaDelivery
from headrace.kafka.consuming.facts import facts_of
from headrace.kafka.consuming.handing import Handing
from headrace.kafka.consuming.partition import Epoch, Held, Partition, Run
from headrace.kafka.consuming.poller import Poller

__all__ = ["KafkaSubscription"]

_log = logging.getLogger("headrace.kafka")
_DOUBT_EVERY = 0.1


class KafkaSubscription:
    """One member. `backlog` asks the brokers; `confirm` returns once everything finished is committed, or saved."""

    lease: float | None = None
    """Nothing expires."""

    def __init__(
        self,
        handing: Handing,
        *,
        group: str | None,
        max_in_flight: int,
        client_id: str,
    ) -> None:
        self.group = group
        self.poller: Poller
        self.confirm: Callable[[], Awaitable[None]]
        self.count: Callable[[], Awaitable[int]]
        self.stays: list[Partition] = []
        self._handing = handing
        self._client_id = client_id
        self._most = max_in_flight
        self._runs: deque[Run] = deque()
        self._again = Again(self.ring)
        self._out = 0
        """Handed out and not settled, in epochs that are not over."""
        self._late = 0
        self._failure: BaseException | None = None
        self._refused: HandlerError | None = None
        """A record whose key cannot be told: it is the last one, and what stands before it may still be finished."""
        self._bell: asyncio.Future[None] | None = None
        self._is_full = False
        """Whether who pulls waits for a place, not for a record."""
        self.held_back = False
        """Whether nothing is handed out for the moment: what is finished cannot be saved."""
        self._pulling = self._stopped = self._closed = False
        self._left = asyncio.Event()
        self._demand = 0
        self._pid = os.getpid()

    @property
    def late_settles(self) -> int:
        """See `Subscription.late_settles`: what a partition took with it when it went."""
        return self._late

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    # -- what a worker asks ------------------------------------------------------------------------------------------

    async def pull(self, limit: int, wait: float) -> Sequence[Delivery]:
        """See `Subscription.pull`."""
        self._check_process()
        if self._pulling:
            raise UsageError("one pull at a time")
        if self._closed:
            raise ClosedError("the subscription was closed")
        self._pulling = True
        self._demand = self.poller.demand = min(limit, self._most)
        self.poller.wake()
        try:
            return await self._pull(limit, wait)
        finally:
            self._pulling = False
            self._demand = self.poller.demand = 0

    def start(self, delivery: Delivery) -> bool:
        """See `Subscription.start`. False once its partition goes: nobody here will run it.

        False, too, after a standstill (`Fence`): it is handed out again once the group was heard.
        """
        held: Held = delivery.token
        partition = held.epoch.partition
        if not partition.live or held.epoch.dead:
            partition.run_over(held)
            return False
        if self.poller.fence.holds():
            partition.started.add(held)
            return True
        if delivery.settlement.outcome is None or type(delivery.settlement.outcome) is Nak:  # its judge keeps that one
            delivery.settlement.outcome = RELEASE
            self.settle(delivery, RELEASE)
        return False

    def settle(self, delivery: Delivery, outcome: Outcome) -> None:
        """See `Subscription.settle`. Of an epoch that is over nothing counts: others do it again."""
        held: Held = delivery.token
        epoch = held.epoch
        partition = epoch.partition
        if epoch.dead:
            self._late += 1
        else:
            self._out -= 1
            epoch.out -= 1
            partition.held_bytes -= held.size
            if outcome is ACK or type(outcome) is Ack or type(outcome) is Reject:
                epoch.tracker.finish(held.offset)
            elif partition.live and not self._closed:
                self._redeliver(delivery, held, outcome)
        partition.run_over(held)
        if partition.paused or self._is_full:
            self._make_room(partition)

    def settle_acked(self, deliveries: Sequence[Delivery]) -> None:
        """See `Subscription.settle_acked`."""
        by_epoch: defaultdict[Epoch, list[Held]] = defaultdict(list)
        for delivery in deliveries:
            held: Held = delivery.token
            by_epoch[held.epoch].append(held)
        for epoch, finished in by_epoch.items():
            if epoch.dead:
                self._late += len(finished)
            else:
                self._out -= len(finished)
                epoch.finish(finished)
            epoch.partition.runs_over(finished)
            self._make_room(epoch.partition)

    def extend(self, delivery: Delivery) -> None:
        """Nothing to prolong."""

    def position(self, delivery: Delivery) -> Position | None:
        """Topic and partition, and the offset."""
        held: Held = delivery.token
        return Position(held.epoch.partition.source, held.offset)

    def attributes(self, delivery: Delivery) -> Mapping[str, str | int]:
        """See `Delivery.attributes`."""
        return facts_of(delivery, self._client_id)

    def keep(self) -> None:
        """Nothing to prolong."""

    async def stop(self) -> None:
        """See `Subscription.stop`. The membership stays until the end."""
        self._stop()
        self.ring()

    async def flush(self) -> None:
        """Everything finished so far is committed (partition mode: saved), or this raises."""
        self._check_process()
        if self._closed or self._failure is not None:
            return
        await self._confirm()

    async def backlog(self) -> int | None:
        """See `Subscription.backlog`. Compaction and markers make it too high, never too low."""
        self._check_process()
        left = await self.count()
        return left + len(self._again)  # in this order: what is handed back meanwhile counts

    async def aclose(self) -> None:
        """Commit what is finished, leave. Twice is fine: each returns once it has left. In a forked child nothing."""
        if os.getpid() != self._pid:
            return
        if self._closed:
            await self._left.wait()
            await self.poller.ended()
            return
        self._closed = True
        self.poller.patient = False
        self.poller.leave()
        for stay in self.stays:
            stay.live = False
            stay.quiet()
        self.ring()
        try:
            await self._last_confirm()
        finally:
            self._runs.clear()
            self._again.clear()
            try:
                await self.poller.join()
            finally:
                for stay in self.stays:
                    stay.ended()
                self._left.set()

    def attach(self, poller: Poller) -> None:
        """Read by this one from here on."""
        self.poller = poller
        poller.demand = self._demand
        if self._stopped:
            poller.stop()

    # -- what the poller tells -----------------------------------------------------------------------------------------

    def arrived(self, runs: Sequence[Run]) -> None:
        """Records."""
        if self._stopped or self._closed or self._failure is not None:
            self.poller.pulled += sum(len(run.records) for run in runs)
            return
        self._runs.extend(runs)
        self.ring()

    def assigned(self, stays: Sequence[Partition]) -> None:
        """These are ours from now on."""
        self.stays += stays
        for stay in stays:
            stay.live = not self._closed and self._failure is None

    def revoking(self, stays: Sequence[Partition], quiet: Callable[[], None]) -> None:
        """Nothing of them begins any more; `quiet` once nothing of them runs."""
        busy = 0

        def all_quiet() -> None:
            for stay in stays:
                stay.epoch.sum_up()
            quiet()

        def one_quiet() -> None:
            nonlocal busy
            busy -= 1
            if not busy:
                all_quiet()

        for stay in stays:
            stay.live = False
            if stay.started:
                busy += 1
                stay.on_quiet = one_quiet
        self._drop_undelivered()
        if not busy or self._closed:
            all_quiet()

    def gone(self, stays: Sequence[Partition], *, lost: bool) -> None:
        """They are ours no more. What still runs ends undisturbed, and counts for nothing."""
        for stay in stays:
            if stay.started:
                _log.warning(
                    "%s was %s while %d of its messages ran, others may run them too: %s",
                    stay.source, "lost" if lost else "revoked", len(stay.started), _names(stay),
                )  # fmt: skip
            stay.on_quiet = None
            stay.ended()
        over = set(map(id, stays))
        self.stays = [stay for stay in self.stays if id(stay) not in over]
        self._recount()
        self._drop_undelivered()
        self.ring()

    def failed(self, error: BaseException) -> None:
        """It goes on no more: whoever pulls hears of it. Nothing begins; what runs may end, and still counts."""
        self._failure = error
        self.poller.stop()
        for stay in self.stays:
            stay.live = False
        self._drop_undelivered()
        self.ring()

    def ring(self) -> None:
        """Whoever pulls looks again."""
        if self._bell is not None and not self._bell.done():
            self._bell.set_result(None)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _make_room(self, partition: Partition) -> None:
        if partition.paused:
            self._handing.relieve(partition, self.poller)
        if self._is_full:
            self._is_full = False
            self.ring()

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise UsageError("the subscription was opened before a fork: open one of its own in the child")

    async def _confirm(self) -> None:
        for stay in self.stays:
            stay.epoch.sum_up()
        await self.confirm()

    async def _last_confirm(self) -> None:
        """After a failure there may be nobody left to confirm it: that is heard of already."""
        try:
            await self._confirm()
        except Exception:
            if self._failure is None:
                raise

    async def _pull(self, limit: int, wait: float) -> Sequence[Delivery]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        asked = wait > 0
        while True:
            if (failure := self._failure or self._refused) is not None:
                raise failure
            if self._closed:
                return []
            found = self._take(min(limit, self._most - self._out))
            if found:
                return found
            if not asked and not self._stopped:
                asked = True
                with suppress(ClosedError):  # it has just ended, or begins anew
                    await self.poller.call(self.poller.ask)
                continue
            left = deadline - loop.time()
            if left <= 0:
                return []
            await self._arrival(left)

    def _stop(self) -> None:
        self._stopped = True
        self.poller.stop()
        self._runs.clear()

    def _take(self, limit: int) -> list[Delivery]:
        found: list[Delivery] = []
        if limit <= 0 or self.held_back or not self.poller.fence.holds():
            return found
        if len(self._again):
            found += self._again.due(limit)
            for delivery in found:
                held: Held = delivery.token
                held.epoch.out += 1
                held.epoch.partition.held_bytes += held.size
        if self._runs and len(found) < limit and not self._stopped:
            try:
                self._handing.hand_out(self, self.poller, self._runs, limit - len(found), found)
            except HandlerError as error:
                self._refused = error
                self._stop()
            if self._handing.went_back:
                self._handing.went_back = False
                self._again.drop(lambda delivery: delivery.token.epoch.dead)
            self._recount()
        else:
            self._out += len(found)
        return found

    def _recount(self) -> None:
        self._out = sum(stay.epoch.out for stay in self.stays)

    def _redeliver(self, delivery: Delivery, held: Held, outcome: Outcome) -> None:
        """The same record again, from our own memory: Kafka cannot take one back."""
        delay, more = (outcome.delay, 1) if isinstance(outcome, Nak) else (0.0, 0)
        again = KafkaDelivery(held.message, delivery.attempt + more, delivery.order_key, self, held)
        self._again.add(again, held.offset, delay)

    def _drop_undelivered(self) -> None:
        """Records of partitions that go: the next member reads them."""
        self.poller.pulled += sum(len(run.records) - run.at for run in self._runs if not run.partition.live)
        self._runs = deque(run for run in self._runs if run.partition.live)
        self._again.drop(lambda delivery: not delivery.token.epoch.partition.live)
        self.poller.wake()

    async def _arrival(self, wait: float) -> None:
        self._bell = asyncio.get_running_loop().create_future()
        self._is_full = self._out >= self._most
        due = self._again.next_due()
        if due is not None and self._out < self._most and not self.held_back:
            wait = min(wait, max(0.0, due - asyncio.get_running_loop().time()))
        if not self.poller.fence.holds():
            wait = min(wait, _DOUBT_EVERY)
        try:
            async with asyncio.timeout(wait):
                await self._bell
        except TimeoutError:
            return
        finally:
            self._bell = None


def _names(stay: Partition) -> str:
    return one_line(", ".join(sorted(held.message.id for held in stay.started)[:5]))
