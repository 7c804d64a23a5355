"""Place: one consumer as this process uses it: parked pulls, outcomes not yet written, timers. On the loop only."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from datetime import datetime

from headrace.core.delivery import Ack, Nak, Outcome, Reject, Release
from headrace.embedded.advisories import MaxDeliveriesReached, MessageNaked, MessageTerminated
from headrace.embedded.consumers.jobs import ClaimJob, FlushJob
from headrace.embedded.consumers.leases import MOVED, SETTLED, Claim, Move, Payload
from headrace.embedded.consumers.request import Request
from headrace.embedded.consumers.rows import EXHAUSTED, settings_of
from headrace.embedded.consumers.shared import RETRY, Shared
from headrace.embedded.errors import translated
from headrace.streams.errors import ConsumerDeletedError, StreamNotFoundError
from headrace.streams.msg import time_of_ns

__all__ = ["Place"]

MOST_STUCK = 1_000_000


class Place:
    """One consumer in this process."""

    def __init__(
        self, shared: Shared, consumer_id: int, stream: str, name: str, config: str, *, gone: Callable[[Place], None]
    ) -> None:
        self.shared = shared
        self.id = consumer_id
        self.stream = stream
        self.name = name
        self.settings = settings_of(config)
        self.requests: deque[Request] = deque()
        self.dirty: list[Claim] = []
        """Claims whose bytes changed since they were last written."""
        self.ended: BaseException | None = None
        self._gone = gone
        self._loop = shared.store.loop
        self._flush_after = shared.store.options.seconds("ack_flush")
        self._flush_ns = int(self._flush_after * 1e9)
        self._payload = Payload()
        self._waiting: list[asyncio.Future[None]] = []
        self._stuck: list[Payload] = []
        self._sent = 0
        """Acks that were handed over, and are not committed yet."""
        self._writing = self._more = False
        """Whether outcomes are on their way; whether the next ones are to follow at once."""
        self._timer: asyncio.TimerHandle | None = None
        self._soon = False
        self._due: asyncio.TimerHandle | None = None
        self._claiming: ClaimJob | None = None
        self._again = False
        self._idle: asyncio.Future[None] | None = None

    @property
    def bounded(self) -> bool:
        """Whether acks can let a parked pull go on."""
        return self.settings.max_ack_pending is not None

    # --- pulls

    def ask(self, request: Request) -> None:
        """Park a pull and look at once."""
        self.requests.append(request)
        self.shared.parked.add(self)
        self.shared.on_parked(self.settings.inactive_ns)
        self.kick()

    def expire(self, request: Request) -> None:
        """Its time is over: what is on its way still counts."""
        request.once = True
        if self._claiming is None or request not in self._claiming.requests:
            self._answer(request)

    def kick(self) -> None:
        """Something may have come: serve who is parked."""
        if not self.requests or self.ended is not None:
            return
        if self._claiming is not None:
            self._again = True
            return
        if sum(len(payload.settled) + len(payload.leases) for payload in self._stuck) > MOST_STUCK:
            return
        self._again = False
        if self._due is not None:
            self._due.cancel()
            self._due = None
        self.write()
        self._claiming = ClaimJob(self.shared, self.id, self.stream, list(self.requests), self._claimed)
        self.shared.store.consumers.submit(self._claiming)

    def _claimed(self, job: ClaimJob, error: BaseException | None) -> None:
        """A claim is on disk, or nothing was taken."""
        self._claiming = None
        if error is not None:
            self._refused(job, translated(error))
            return
        for request in job.requests:
            if request.found:
                request.session.receive(request.found)
            if request.found or request.error is not None or request.once or request.future.done():
                self._answer(request)
        self.shared.remove(job.stream_id, job.gone)
        for sequence, deliveries in job.exhausted:
            self.shared.store.advise(
                MaxDeliveriesReached(
                    stream=self.stream, consumer=self.name, time=self._time(), stream_sequence=sequence,
                    deliveries=deliveries,
                )
            )  # fmt: skip
        self._rest()
        if self.requests and self._again:
            self.kick()
        elif self.requests and job.next_due is not None and self._claiming is None:
            # the microsecond: a timer may fire a rounding error early, and would find nothing
            delay = max(0.0, (job.next_due - self.shared.store.boot_ns()) / 1e9) + 1e-6
            self._due = self._loop.call_later(delay, self.kick)

    def _refused(self, job: ClaimJob, error: BaseException) -> None:
        """A consumer that is gone ends every pull; any other failure those of this claim."""
        if isinstance(error, ConsumerDeletedError | StreamNotFoundError):
            self.end(error)
        else:
            for request in job.requests:
                request.error = error
                self._answer(request)
        self._rest()

    def end(self, error: BaseException | None) -> None:
        """No more messages: every parked pull ends with `error` (``None``: with nothing)."""
        if self.ended is None and error is not None:
            self.ended = error
            self.shared.parked.discard(self)
            self._gone(self)
        for request in list(self.requests):
            request.error = error
            self._answer(request)

    async def idle(self) -> None:
        """Wait until no claim is on its way."""
        while self._claiming is not None:
            if self._idle is None:
                self._idle = self._loop.create_future()
            await asyncio.shield(self._idle)

    def _rest(self) -> None:
        if self._idle is not None:
            self._idle.set_result(None)
            self._idle = None

    def _answer(self, request: Request) -> None:
        if request in self.requests:
            self.requests.remove(request)
        if not self.requests:
            self.shared.parked.discard(self)
            if self._due is not None:
                self._due.cancel()
                self._due = None
        if not request.future.done():
            request.future.set_result(None)
        if self.settings.inactive_ns is not None and not request.found and not self.shared.closing:
            self._payload.touched = True  # it was used until now, not only when the pull began
            self.arm()

    # --- outcomes

    def settle(self, claim: Claim, sequence: int, outcome: Outcome) -> None:
        """Record an outcome that is more than a byte."""
        deliveries, consumer_sequence = claim.numbers(sequence)
        claim.done.add(sequence)
        if isinstance(outcome, Ack | Reject):
            if isinstance(outcome, Reject):
                self.shared.store.advise(
                    MessageTerminated(
                        stream=self.stream, consumer=self.name, time=self._time(), stream_sequence=sequence,
                        consumer_sequence=consumer_sequence, deliveries=deliveries, reason=outcome.reason,
                    )
                )  # fmt: skip
            self._settled(claim, sequence, consumer_sequence)
            return
        delay = outcome.delay if isinstance(outcome, Nak) else 0.0
        if not isinstance(outcome, Release):
            self.shared.store.advise(
                MessageNaked(
                    stream=self.stream, consumer=self.name, time=self._time(), stream_sequence=sequence,
                    consumer_sequence=consumer_sequence, deliveries=deliveries,
                )
            )  # fmt: skip
        at = self.shared.store.boot_ns()
        # what no column holds (146 years) is as late as one does
        due, queue = min(at + int(delay * 1e9), EXHAUSTED - 1), self.shared.next_queue()
        if sequence in claim.loose:
            self._payload.naked.append((sequence, due, queue, at))
        else:
            self._move(claim, Move(claim.lo, sequence, due, queue, None, at))
            claim.loose[sequence] = (deliveries, consumer_sequence, consumer_sequence)
        self.soon()

    def _settled(self, claim: Claim, sequence: int, consumer_sequence: int) -> None:
        if claim.settings.ack_all:
            upto = self._payload.upto
            if upto is None or sequence > upto[0]:
                self._payload.upto = (sequence, consumer_sequence)
        elif sequence in claim.loose:
            self._payload.settled.append(sequence)
        else:
            claim.acked[claim.place(sequence)] = SETTLED
            self.mark(claim)
        self.arm()

    def _move(self, claim: Claim, move: Move) -> None:
        claim.acked[claim.place(move.sequence)] = MOVED
        self._payload.moved.append(move)
        self.mark(claim)

    def extend(self, claim: Claim, sequence: int) -> None:
        """Restart the ack wait of one message: it gets a row of its own."""
        deliveries, consumer_sequence = claim.numbers(sequence)
        at = self.shared.store.boot_ns()
        if claim.longer.get(sequence, claim.deadline) <= at:
            return  # it ran out, and belongs to whoever takes it next
        due = at + claim.settings.wait_ns(deliveries)
        if sequence in claim.loose:
            self._payload.extended.append((sequence, due))
        else:
            self._move(claim, Move(claim.lo, sequence, due, None, self.shared.store.member, at))
            claim.loose[sequence] = (deliveries, consumer_sequence, consumer_sequence)
        claim.longer[sequence] = due
        self.soon()

    def keep(self, claim: Claim) -> None:
        """Restart the ack wait of everything in a claim that is not settled."""
        now, settings = self.shared.store.boot_ns(), claim.settings
        until = claim.deadline
        if until > now:  # what ran out belongs to whoever takes it next, and is never taken back
            claim.prolong(now + settings.wait_ns(1))
            if claim.count:
                self._payload.kept.append((claim.lo, claim.deadline))
        for sequence, (deliveries, *_) in claim.loose.items():
            if sequence not in claim.done and claim.longer.get(sequence, until) > now:
                due = now + settings.wait_ns(deliveries)
                claim.longer[sequence] = due
                self._payload.extended.append((sequence, due))
        self.soon()

    def mark(self, claim: Claim) -> None:
        """The bytes of a claim have changed."""
        if not claim.dirty:
            claim.dirty = True
            self.dirty.append(claim)

    def arm(self) -> None:
        """Write within the flush time."""
        if self._timer is None:
            self._timer = self._loop.call_later(self._flush_after, self.write)

    def soon(self) -> None:
        """Write in the next turn: others may wait for it."""
        if not self._soon:
            self._soon = True
            self._loop.call_soon(self.write)

    def write(self) -> None:
        """Hand all outcomes so far to the thread.

        One hand-over at a time: if one fails, what came later must not be written before it. An outcome that overtakes
        an earlier one of its lease would hide it.
        """
        self._soon = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writing:
            self._more = True
            return
        payload, dirty, waiters = self._payload, self.dirty, self._waiting
        payload.acks = self._fresh_acks()
        self._sent += payload.acks
        for claim in dirty:
            claim.dirty = False
            claim.written = claim.acked.count(SETTLED)
            payload.leases.append((claim.lo, bytes(claim.acked), None if claim.index is None else tuple(claim.index)))
        payloads = self._stuck
        if payload:
            payloads.append(payload)
        if not payloads and not waiters:
            return
        payload.since = self.shared.store.boot_ns() - self._flush_ns
        self._payload, self.dirty, self._waiting, self._stuck = Payload(), [], [], []
        self._writing, self._more = True, False
        self.shared.store.consumers.submit(FlushJob(self.shared, self.id, payloads, waiters, self._written))

    def _written(self, job: FlushJob, error: BaseException | None) -> None:
        """Delete what nobody needs, tell who waits for the commit, look whether a parked pull can go on."""
        self._writing = False
        if error is not None:
            self._unwritten(job, translated(error))
            return
        self._sent -= sum(payload.acks for payload in job.payloads)
        self.shared.remove(job.stream_id, job.gone)
        if job.waiters:
            self.shared.synced(job.waiters)
        if any(payload.naked or payload.moved for payload in job.payloads) or self.bounded:
            self.shared.store.notify()
            self.kick()
        if self._more:
            self.write()

    def _unwritten(self, job: FlushJob, error: BaseException) -> None:
        """They are kept, and first in line at the next try: duplicates, never a loss."""
        for waiter in job.waiters:
            if not waiter.done():
                waiter.set_exception(error)
        self._stuck = job.payloads
        if self._waiting:  # they came meanwhile, and want an answer
            self.write()
        elif not self.shared.closing:
            self._loop.call_later(RETRY, self.write)

    def unwritten(self) -> int:
        """Acks that are in memory only."""
        return self._sent + self._fresh_acks()

    def _fresh_acks(self) -> int:
        payload = self._payload
        marked = sum(claim.acked.count(SETTLED) - claim.written for claim in self.dirty)
        return marked + len(payload.settled) + (payload.upto is not None)

    async def flush(self) -> None:
        """All outcomes so far are committed, and survive what the durability promises; or it raises."""
        if self.ended is not None:
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(waiter)
        self.soon()
        await waiter

    def _time(self) -> datetime:
        return time_of_ns(self.shared.store.now_ns())
