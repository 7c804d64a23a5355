"""EmbeddedSession: one reader of one consumer. A pull is a claim; outcomes are bytes until they are written."""

from __future__ import annotations

from collections import deque

from headrace.core.delivery import ACK, RELEASE, Ack, Outcome
from headrace.core.errors import AlreadySettledError, ClosedError, UsageError
from headrace.embedded.consumers.claims import reply_token
from headrace.embedded.consumers.leases import Claim
from headrace.embedded.consumers.place import Place
from headrace.embedded.consumers.request import Request
from headrace.streams.errors import PullRejectedError
from headrace.streams.msg import Msg, MsgMetadata, SequencePair, time_of_ns
from headrace.streams.session import SessionOptions

__all__ = ["EmbeddedSession"]

DEFAULT_WAITING = 512


class EmbeddedSession:
    """See `headrace.streams.session.PullSession`."""

    def __init__(self, place: Place, options: SessionOptions) -> None:
        self.late_settles = 0
        self.held = 0
        self.expired_in_buffer = 0
        self._place = place
        self._options = options
        self._now = place.shared.store.clock.monotonic
        self._buffer: deque[Msg] = deque()
        self._claims: set[Claim] = set()
        self._request: Request | None = None
        self._pulling = False
        self._stopped = False
        self._closed = False
        self._left = options.stop_after
        place.shared.sessions[self] = None

    async def pull(self, limit: int, wait: float, *, max_bytes: int | None = None) -> list[Msg]:
        """See `PullSession.pull`."""
        place = self._place
        place.shared.store.check_writable()
        if self._pulling:
            raise UsageError("one pull at a time")
        found = self._without_claim(limit)
        if found is not None:
            return found
        if len(place.requests) >= (place.settings.config.max_waiting or DEFAULT_WAITING):
            raise PullRejectedError("Exceeded MaxWaiting", code=409, description="Exceeded MaxWaiting")
        asked = limit + self._options.prefetch
        if self._left is not None:
            asked = min(asked, self._left)
            if asked <= 0:
                return []
        loop = place.shared.store.loop
        bound = self._options.max_bytes if max_bytes is None else max_bytes
        expires = self._options.expires
        request = Request(self, asked, bound, loop.create_future(), expires=expires, once=wait <= 0)
        self._request, self._pulling = request, True
        timer = None if request.once else loop.call_later(wait, place.expire, request)
        try:
            place.ask(request)
            await request.future
        finally:
            # Whatever a claim still brings goes to the buffer: a cancelled pull loses nothing.
            self._request, self._pulling = None, False
            if timer is not None:
                timer.cancel()
            if request in place.requests:
                place.expire(request)
        if request.error is not None:
            raise request.error
        return self._take(limit)

    def _without_claim(self, limit: int) -> list[Msg] | None:
        """What is buffered, or nothing after a stop; ``None``: a claim is needed."""
        found = self._take(limit)
        if found:
            return found
        if self._closed:  # with its engine: whoever pulls in a loop must hear of it
            raise ClosedError("the session was closed")
        if self._stopped:
            return []
        if self._place.ended is not None:
            raise self._place.ended
        return None

    def take(self) -> Msg | None:
        """See `PullSession.take`. A pull looks first whether the directory is still there."""
        if not self._buffer:
            return None
        self._place.shared.store.check_writable()
        found = self._take(1)
        return found[0] if found else None

    def receive(self, messages: list[Msg]) -> None:
        """What a claim brought (on the loop, within the claim's answer)."""
        if self._left is not None:
            self._left -= len(messages)
        for claim in {msg.token[0] for msg in messages}:
            if not claim.settings.ack_none:
                self._claims.add(claim)
                self.held += claim.left
        self._buffer.extend(messages)
        if self._closed:
            self._hand_back()
        elif self._request is not None and not self._request.found:
            # a pull that was cancelled asked for these: who pulls now must not wait beside a full buffer
            self._place.expire(self._request)

    def _take(self, limit: int) -> list[Msg]:
        """From the buffer; what ran out there is being redelivered and is dropped, but for a last delivery."""
        buffer = self._buffer
        if not buffer:
            return []
        found: list[Msg] = []
        now = self._now()
        while buffer and len(found) < limit:
            msg = buffer.popleft()
            claim: Claim = msg.token[0]
            if now >= claim.until and not self.alive(msg) and not self._is_last(msg):
                self.expired_in_buffer += 1
                self._forget(claim)
                continue
            found.append(msg)
        return found

    def _is_last(self, msg: Msg) -> bool:
        claim, sequence, _ = msg.token
        return bool(claim.numbers(sequence)[0] >= claim.settings.max_deliver)

    def _forget(self, claim: Claim) -> None:
        if not claim.settings.ack_none:
            self.held -= 1
            claim.left -= 1
            if not claim.left:
                self._claims.discard(claim)

    def alive(self, msg: Msg) -> bool:
        """See `PullSession.alive`."""
        claim, sequence, _ = msg.token
        deadline = claim.longer.get(sequence, claim.deadline) if claim.longer else claim.deadline
        return bool(deadline > self._now() * 1e9)

    def settle(self, msg: Msg, outcome: Outcome) -> None:
        """See `MsgOwner.settle`. An ack is a byte; everything else is the place's."""
        claim, sequence, _ = msg.token
        if claim.settings.ack_none:
            return
        self.held -= 1
        claim.left -= 1
        if not claim.left:
            self._claims.discard(claim)
        if self._now() > claim.until and not self.alive(msg):
            self.late_settles += 1
            self._place.shared.late_settles += 1
        if claim.plain and not claim.loose and type(outcome) is Ack:
            claim.acked[sequence - claim.lo if claim.index is None else claim.index[sequence]] = 1
            if not claim.dirty:
                self._place.mark(claim)
                self._place.arm()
            return
        self._place.settle(claim, sequence, outcome)

    def extend(self, msg: Msg) -> None:
        """See `MsgOwner.extend`."""
        claim, sequence, _ = msg.token
        if not claim.settings.ack_none:
            self._place.extend(claim, sequence)

    def keep(self) -> None:
        """See `PullSession.keep`."""
        for claim in self._claims:
            self._place.keep(claim)

    def facts_of(self, msg: Msg) -> tuple[int, int, int]:
        """See `PullSession.facts_of`."""
        claim, sequence, stamp = msg.token
        loose = claim.loose
        return sequence, (loose[sequence][0] if loose and sequence in loose else 1), stamp

    def metadata_of(self, msg: Msg) -> MsgMetadata:
        """See `MsgOwner.metadata_of`."""
        claim, sequence, stamp = msg.token
        deliveries, consumer_sequence = claim.numbers(sequence)
        return MsgMetadata(
            sequence=SequencePair(sequence, consumer_sequence),
            num_delivered=deliveries,
            num_pending=self._pending(claim, sequence),
            timestamp=time_of_ns(stamp),
            stream=self._place.stream,
            consumer=self._place.name,
        )

    def reply_of(self, msg: Msg) -> str:
        """See `MsgOwner.reply_of`."""
        claim, sequence, stamp = msg.token
        deliveries, consumer_sequence = claim.numbers(sequence)
        facts = (sequence, consumer_sequence, stamp)
        return reply_token(self._place.stream, self._place.name, deliveries, facts, self._pending(claim, sequence))

    def _pending(self, claim: Claim, sequence: int) -> int:
        # What was claimed with it is not counted on the disk: ack none deletes it from an interest stream at once.
        place, beside = self._place, claim.count - 1 - claim.place(sequence) if claim.count else 0
        if claim.gap_free:
            return beside + max(0, claim.last_seq - claim.position)
        wanted = place.settings.filter
        return beside + place.shared.count_between(place.stream, wanted, claim.chosen, claim.position, claim.last_seq)

    async def confirm(self, msg: Msg) -> None:
        """See `MsgOwner.confirm`."""
        if msg.outcome is not None:
            raise AlreadySettledError(f"{msg.subject} was settled before: {msg.outcome}")
        self.settle(msg, ACK)
        if msg.token[0].settings.ack_none:
            return
        await self._place.flush()

    async def flush(self) -> None:
        """See `PullSession.flush`."""
        self._place.shared.store.check_usable()
        await self._place.flush()

    async def stop(self) -> None:
        """See `PullSession.stop`."""
        self._stopped = True
        if self._request is not None:
            self._place.expire(self._request)
        await self._place.idle()

    async def aclose(self) -> None:
        """See `PullSession.aclose`."""
        if self._closed:
            return
        self._stopped = self._closed = True
        place = self._place
        place.shared.sessions.pop(self, None)
        if self._request is not None:
            place.expire(self._request)
        self._hand_back()
        if place.shared.store.closed:
            return
        await place.idle()
        self._hand_back()
        if place.ended is None:
            await place.flush()

    def _hand_back(self) -> None:
        """What nobody saw comes back at once, in order, ahead of new messages."""
        while self._buffer:
            msg = self._buffer.popleft()
            if not self.alive(msg):
                continue  # it ran out here: others may have it by now
            late, shared = self.late_settles, self._place.shared
            total = shared.late_settles
            self.settle(msg, RELEASE)
            msg.outcome = RELEASE
            self.late_settles, shared.late_settles = late, total
