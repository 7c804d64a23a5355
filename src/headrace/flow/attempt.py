"""Attempts: one delivery, start -> chain -> handler -> verdict -> settle, in a fixed set of runner tasks.

A handler runs in its own copy of the context and without a task of its own: its first step is a plain call, and only
if it then waits for something does a driver pass on what the loop sends.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any, cast

from headrace.core.delivery import ACK, RELEASE, Ack, Delivery, Nak, Outcome, Reject
from headrace.core.errors import HandlerError, RetryLaterError
from headrace.flow.burial import Burial
from headrace.flow.events import Events
from headrace.flow.judge import Again, DeadLetter, Ending, FailureStage, OnExhausted, judge
from headrace.flow.keyed import KeyedQueues
from headrace.flow.letter import one_line
from headrace.flow.place import Place, Why, drive
from headrace.flow.retry import RetryPolicy
from headrace.flow.stats import Stats

__all__ = ["Attempts", "Case", "Rules", "Step"]

Step = Callable[[Delivery], Coroutine[Any, Any, None]]
"""The handler with its middleware around it."""

_BURST = 64  # runs without a wait before a runner lets the loop turn
_owner_of = attrgetter("owner")


class Case:
    """A message that failed here before; it stands in the delivery's private slot from its first failure on."""

    __slots__ = ("blocked", "error", "letter_tries", "policy", "ran")

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.policy: DeadLetter | None = None
        """Set once it is to be buried: only the publish of the letter is repeated."""
        self.letter_tries = 0
        self.blocked = False
        self.ran = True

    def __call__(self, delivery: Delivery, outcome: Outcome) -> None:
        """A further run takes its own ``Nak`` too."""


def keep_nak(delivery: Delivery, outcome: Outcome) -> None:
    """Stand in the private slot during a run: the handler's own ``Nak`` is not sent but judged."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the verdicts of one worker follow. ``nak_limit``: longest delay the broker waits for us (``None``: none)."""

    retry: RetryPolicy
    on_exhausted: OnExhausted | None
    nak_limit: float | None
    random: Callable[[], float]


class Attempts:
    """Runs deliveries until the queues are closed, and settles each.

    `release` gives deliveries back unrun; `fail` ends the worker with an error.
    """

    def __init__(
        self,
        queues: KeyedQueues,
        stats: Stats,
        step: Step,
        rules: Rules,
        *,
        events: Events,
        burial: Burial,
        release: Callable[[Sequence[Delivery]], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._queues = queues
        self._stats = stats
        self._step = step
        self._rules = rules
        self._most = rules.retry.max_deliveries or sys.maxsize
        self._events = events
        self._burial = burial
        self._release = release
        self._fail = fail
        self.drained = False
        """Set once the subscriptions are stopped: what a run leaves behind on its key may be released at once."""

    async def run(self, place: Place) -> None:
        """The life of one runner. What went well is told to the engine together, before anything is waited for."""
        queues, stats, step, most = self._queues, self._stats, self._step, self._most
        take, done, cancelling = queues.take, queues.done, cast("asyncio.Task[None]", place.task).cancelling
        acked: list[Delivery] = []
        burst = 0
        while True:
            delivery = take() if burst < _BURST else None
            if delivery is None:
                if await self._pause(place, acked):
                    return
                burst = 0
                continue
            burst += 1
            settlement, place.delivery = delivery.settlement, delivery
            if settlement.judge is not None or delivery.attempt > most or not delivery.owner.start(delivery):
                self._tell(acked)
                if not await self._unusual(place, delivery):
                    continue
            else:
                settlement.judge = keep_nak
            stats.started += 1
            error: BaseException | None = None
            try:
                coroutine, context = step(delivery), copy_context()
                waited = context.run(coroutine.send, None)
            except StopIteration:
                pass
            except BaseException as raised:  # noqa: BLE001  (a failure of this message, whatever it is)
                error = raised
            else:
                self._tell(acked)
                error = await self._wait(place, context, coroutine, waited)
            if error is None and settlement.outcome is None and not cancelling():
                settlement.outcome = ACK
                acked.append(delivery)
                done(delivery)
            else:
                self._tell(acked)
                await self._ended(place, delivery, error)

    def _tell(self, acked: list[Delivery]) -> None:
        """Nothing else ran since the first of them ended: no revoke, no pull, no flush came between."""
        self._stats.acked += len(acked)
        if len(acked) == 1:
            acked[0].owner.settle(acked[0], ACK)
        else:
            for owner, some in groupby(acked, _owner_of):
                owner.settle_acked([*some])
        acked.clear()

    async def _pause(self, place: Place, acked: list[Delivery]) -> bool:
        """Let the loop turn, or wait for work; True = there will be none."""
        self._tell(acked)
        place.delivery = None
        if self._queues.closed:
            if self.drained:
                self._release(self._queues.left())
            return True
        if self._queues.has_ready:
            await asyncio.sleep(0)
        else:
            await self._queues.wait_for_work()
        return False

    async def _wait(
        self, place: Place, context: Context, coroutine: Coroutine[Any, Any, None], waited: object
    ) -> BaseException | None:
        """The handler waits for something: drive it to its end and give what it raised."""
        place.since = asyncio.get_running_loop().time()
        place.reported = False
        self._queues.suspended()
        error = await drive(context, coroutine, waited)
        place.since = None
        return error

    def _withdrawn(self, place: Place, delivery: Delivery) -> None:
        place.delivery = None
        self._stats.withdrawn += 1
        self._release(self._queues.withdraw(delivery))

    async def _unusual(self, place: Place, delivery: Delivery) -> bool:
        """A message that was taken from us, failed here before, or came too often: whether it is to be run now."""
        settlement = delivery.settlement
        case = settlement.judge
        if case is None and delivery.attempt <= self._most:
            self._withdrawn(place, delivery)
            return False
        if isinstance(settlement.outcome, Nak):
            settlement.outcome = None  # a task of the last run spoke again; nothing of it was sent
        if settlement.outcome is not None:
            self._finish(place, delivery)
        elif not delivery.owner.start(delivery):
            self._withdrawn(place, delivery)
        elif not isinstance(case, Case) or not case.ran:
            await self._judged(place, delivery, self._too_often(delivery))
        elif case.policy is not None:
            await self._judged(place, delivery, case.error)
        else:
            delivery.attempt += 1
            return True
        return False

    def _too_often(self, delivery: Delivery) -> BaseException:
        case = delivery.settlement.judge
        if not isinstance(case, Case):
            delivery.settlement.judge = case = Case()
            case.ran = False
        return HandlerError(f"delivered {delivery.attempt} times, at most {self._most}")

    async def _ended(self, place: Place, delivery: Delivery, error: BaseException | None) -> None:
        """A run ended in any other way than by returning with the delivery unsettled."""
        why = await place.uncancel()
        if place.abandoned:
            place.delivery = None
            return
        if why is Why.TIMEOUT and isinstance(error, asyncio.CancelledError):
            error = TimeoutError("the handler ran longer than handler_timeout")
        outcome = delivery.settlement.outcome
        if isinstance(error, KeyboardInterrupt | SystemExit) or (why is Why.SHUTDOWN and error is not None):
            if why is not Why.SHUTDOWN:
                self._fail(error)
            self._hand_back(delivery)
            self._finish(place, delivery)
        elif isinstance(outcome, Nak):
            delivery.settlement.outcome = None
            await self._judged(place, delivery, error or RetryLaterError(outcome.delay, "the handler asked for it"))
        elif outcome is not None:
            self._settled_early(delivery, outcome, error)
            self._finish(place, delivery)
        elif error is None:
            delivery.settle(ACK)
            self._stats.acked += 1
            self._finish(place, delivery)
        else:
            await self._judged(place, delivery, error)

    def _settled_early(self, delivery: Delivery, outcome: Outcome, error: BaseException | None) -> None:
        match outcome:
            case Ack():
                self._stats.acked += 1
            case Reject():
                self._stats.rejected += 1
            case _:
                self._stats.released += 1
        if error is not None:
            self._stats.late_errors += 1
            self._events.log(logging.ERROR, "failed after it was settled", delivery, error)

    async def _judged(self, place: Place, delivery: Delivery, error: BaseException | None) -> None:
        """Find the verdict and act on it; when the worker must end meanwhile, hand the message back."""
        try:
            finished = await self._verdict(delivery, cast("BaseException", error))
        except asyncio.CancelledError:
            await place.uncancel()
            self._hand_back(delivery)
            finished = True
        if finished:
            self._finish(place, delivery)
        else:
            place.delivery = None

    def _finish(self, place: Place, delivery: Delivery) -> None:
        place.delivery = None
        if not place.abandoned:
            self._queues.done(delivery)

    def _hand_back(self, delivery: Delivery) -> None:
        settlement = delivery.settlement
        if settlement.outcome is None or isinstance(settlement.outcome, Nak):
            settlement.outcome = None
            delivery.settle(RELEASE)
            self._stats.released += 1

    async def _verdict(self, delivery: Delivery, error: BaseException) -> bool:
        """Act on a failure. True: the message is done with; False: it is parked."""
        rules = self._rules
        case = delivery.settlement.judge
        if not isinstance(case, Case):
            delivery.settlement.judge = case = Case()
        if case.policy is not None:
            return await self._bury(delivery, case)
        case.error = error
        if not case.ran:
            return await self._guarded(delivery, case, error)
        verdict = judge(error, delivery.attempt, rules.retry, rules.on_exhausted, rules.random())
        if isinstance(verdict, Again):
            return await self._again(delivery, case, error, verdict)
        await self._events.tell(delivery, error, FailureStage.RETRY)
        return await self._end(delivery, case, error, verdict.policy)

    async def _guarded(self, delivery: Delivery, case: Case, error: BaseException) -> bool:
        """Handed out too often: no run, straight to what was asked for; blocking means that it stays here."""
        policy = self._rules.on_exhausted
        if policy is not Ending.BLOCK:
            return await self._end(delivery, case, error, policy)
        if not case.blocked:
            case.blocked = True
            await self._events.tell(delivery, error, FailureStage.EXHAUSTED, will_retry=True)
        self._queues.park(delivery, self._rules.retry.wait(delivery.attempt).total_seconds())
        return False

    async def _again(self, delivery: Delivery, case: Case, error: BaseException, verdict: Again) -> bool:
        await self._events.tell(delivery, error, FailureStage.RETRY, will_retry=True, delay=verdict.delay)
        if verdict.exhausted and not case.blocked:
            case.blocked = True
            await self._events.tell(delivery, error, FailureStage.EXHAUSTED, will_retry=True)
        self._stats.retried += 1
        limit = self._rules.nak_limit
        if limit is None or verdict.delay > limit:
            self._queues.park(delivery, verdict.delay)
            return False
        delivery.settlement.judge = None  # from here on a Nak is sent
        delivery.settle(Nak(verdict.delay))
        self._stats.naked += 1
        return True

    async def _end(self, delivery: Delivery, case: Case, error: BaseException, policy: OnExhausted | None) -> bool:
        await self._events.tell(delivery, error, FailureStage.EXHAUSTED)
        if isinstance(policy, DeadLetter):
            case.policy = policy
            return await self._bury(delivery, case)
        if policy is Ending.DROP:
            await self._events.tell(delivery, error, FailureStage.DROP)
            delivery.settle(Reject(one_line(f"{type(error).__name__}: {error}")))
            self._stats.rejected += 1
            self._stats.dropped += 1
            return True
        await self._events.tell(delivery, error, FailureStage.STOP)
        self._fail(error if policy is None else _stopped(delivery, error))
        self._hand_back(delivery)
        return True

    async def _bury(self, delivery: Delivery, case: Case) -> bool:
        """Publish the letter -> receipt -> ack. Only the publish is repeated, by the schedule, for ever."""
        error = cast("BaseException", case.error)
        fault = await self._burial.publish(delivery, error, cast("DeadLetter", case.policy))
        if fault is None:
            await self._events.tell(delivery, error, FailureStage.DEAD_LETTER)
            if delivery.settlement.outcome is None:
                delivery.settle(ACK)
                self._stats.acked += 1
            self._stats.dead_lettered += 1
            return True
        if fault.final:
            self._fail(fault.error)
            self._hand_back(delivery)
            return True
        case.letter_tries += 1
        delay = self._rules.retry.wait(case.letter_tries, self._rules.random()).total_seconds()
        await self._events.tell(delivery, fault.error, FailureStage.DEAD_LETTER, will_retry=True, delay=delay)
        self._queues.park(delivery, delay)
        return False


def _stopped(delivery: Delivery, error: BaseException) -> HandlerError:
    message = delivery.message
    stopped = HandlerError(
        f"{one_line(message.topic)} {one_line(message.id)} at {delivery.position}, attempt {delivery.attempt}: "
        f"{type(error).__name__}: {error}"
    )
    stopped.__cause__ = error
    return stopped
