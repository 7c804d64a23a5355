"""StreamSubscription: a `core.Subscription` over one `PullSession`. Nothing is made per message but the delivery."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from headrace.core.delivery import ACK, RELEASE, Delivery, Outcome, Position
from headrace.core.errors import BrokerError, ClosedError, StoreError, UsageError
from headrace.streams.consumer import Consumer
from headrace.streams.errors import (
    ConsumerDeletedError,
    ConsumerNotFoundError,
    StreamError,
    StreamNotFoundError,
)
from headrace.streams.facts import CONSUMER, DELIVERED, SEQUENCE, STREAM, SYSTEM
from headrace.streams.msg import Msg
from headrace.streams.reading import is_terminal, pause_after
from headrace.streams.session import PullSession, SessionOptions
from headrace.streams.wire import decode

__all__ = ["StreamSubscription"]

_log = logging.getLogger(__name__)
Remake = Callable[[int], Awaitable[Consumer]]
"""Make a private consumer anew, behind this stream sequence."""


class StreamSubscription:
    """What a worker pulls from. ``max_in_flight`` is enforced here, so that one member cannot starve the others."""

    def __init__(
        self,
        consumer: Consumer,
        *,
        group: str | None,
        lease: float,
        max_in_flight: int,
        prefetch: int,
        remake: Remake | None,
        system: str = "headrace",
    ) -> None:
        self.group = group
        self.lease: float | None = lease
        self._consumer = consumer
        self._stream = consumer.stream
        self._options = SessionOptions(max_messages=max_in_flight + prefetch, prefetch=prefetch)
        self._session: PullSession = consumer.session(self._options)
        self._sessions = [self._session]
        self._max_in_flight = max_in_flight
        self._remake = remake
        self._system = system
        self._last = consumer.cached_info.delivered.stream
        self._held: dict[Msg, bool] = {}
        """What was handed out and is not settled, in order: whether it was started."""
        self._lost: set[Msg] = set()
        self._owners: dict[Msg, PullSession] = {}
        self._room: asyncio.Future[None] | None = None
        self._pulling = self._outage = False
        self._stopped = False
        self._closed = False

    @property
    def late_settles(self) -> int:
        """Outcomes that were recorded after their lease was over."""
        return sum(session.late_settles for session in self._sessions)

    @property
    def consumer(self) -> Consumer:
        """The consumer it reads."""
        return self._consumer

    async def pull(self, limit: int, wait: float) -> Sequence[Delivery]:
        """See `Subscription.pull`. At ``max_in_flight`` it waits for a settlement."""
        if self._closed:
            raise ClosedError("the subscription was closed")
        if self._pulling:
            raise UsageError("one pull at a time")
        self._pulling = True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        try:
            if self._free() <= 0 and not await self._wait_for_room(wait):
                return []
            messages = await self._pull_through(min(limit, self._free()), deadline)
            if not messages and self._stopped:
                # A stopped session answers at once: whoever pulls in a loop must not keep the loop for itself.
                await asyncio.sleep(max(0.0, deadline - loop.time()))
            return self._deliveries(messages)
        finally:
            self._pulling = False

    def start(self, delivery: Delivery) -> bool:
        """False once the lease is over unextended, or the subscription closed: it is forgotten then."""
        msg: Msg = delivery.token
        session = self._session_of(msg) if self._owners else self._session
        if self._closed or not session.alive(msg):
            self._forget(msg)
            self._lost.add(msg)
            return False
        if msg in self._held:
            self._held[msg] = True
        return True

    def settle(self, delivery: Delivery, outcome: Outcome) -> None:
        """Record the outcome; a late one is sent too (accepted while the message is pending) and counted."""
        msg: Msg = delivery.token
        if self._owners or self._room is not None or self._held.pop(msg, None) is None:
            # Asked first: forgetting drops the owner of a message from before a remake.
            session = self._session_of(msg)
            self._forget(msg)
        else:
            session = self._session
        msg.outcome = outcome
        session.settle(msg, outcome)

    def settle_acked(self, deliveries: Sequence[Delivery]) -> None:
        """See `Subscription.settle_acked`."""
        for delivery in deliveries:
            self.settle(delivery, ACK)

    def extend(self, delivery: Delivery) -> None:
        """Restart its ack wait."""
        msg: Msg = delivery.token
        self._session_of(msg).extend(msg)

    def position(self, delivery: Delivery) -> Position:
        """Stream and sequence."""
        msg: Msg = delivery.token
        return Position(self._stream, self._session_of(msg).facts_of(msg)[0])

    def attributes(self, delivery: Delivery) -> Mapping[str, str | int]:
        """System, stream, consumer, sequence and delivery count."""
        msg: Msg = delivery.token
        sequence, delivered, _ = self._session_of(msg).facts_of(msg)
        return {
            SYSTEM: self._system,
            STREAM: self._stream,
            CONSUMER: self._consumer.name,
            SEQUENCE: sequence,
            DELIVERED: delivered,
        }

    def keep(self) -> None:
        """Restart the ack wait of all it holds."""
        self._session.keep()

    async def stop(self) -> None:
        """Nothing new arrives from here on."""
        if not self._stopped:
            self._stopped = True
            await self._session.stop()

    async def flush(self) -> None:
        """All outcomes so far are confirmed, or it raises."""
        await self._session.flush()

    async def backlog(self) -> int:
        """Pending and unsettled messages of the group that are not held here."""
        info = await self._consumer.info()
        # What it holds no more because a lease ran out is somebody's work again: it must be counted.
        lost = len(self._lost) + sum(not self._session_of(msg).alive(msg) for msg in self._held)
        return max(0, info.num_pending + info.num_ack_pending - max(0, self._session.held - lost))

    async def aclose(self) -> None:
        """Give back in order what was never started, confirm what is settled, end. Twice is fine."""
        if self._closed:
            return
        self._closed = True
        try:
            await self.stop()  # else what is released comes straight into our own open pull
        finally:
            self._release()
            self._free_room()
            for session in self._sessions:
                await session.aclose()

    def _release(self) -> None:
        """What was never started, in order."""
        for msg in [msg for msg, started in self._held.items() if not started]:
            del self._held[msg]
            session = self._session_of(msg)
            if session.alive(msg):  # else others may have it by now
                msg.outcome = RELEASE
                session.settle(msg, RELEASE)

    async def _pull_through(self, limit: int, deadline: float) -> list[Msg]:
        """An outage (a full disk, a stopped neighbour, another leader) ends no reader: said once, and tried again."""
        loop = asyncio.get_running_loop()
        try:
            messages = await self._pull(limit, max(0.0, deadline - loop.time()))
        except (BrokerError, StoreError) as error:
            if not error.retryable if isinstance(error, StoreError) else is_terminal(error):
                raise
            if not self._outage:
                _log.warning("%s: nothing can be pulled now, tried again: %s", self._consumer.name, error)
            self._outage = True
            await asyncio.sleep(max(0.0, min(pause_after(error), deadline - loop.time())))
            return []
        self._outage = False
        return messages

    async def _pull(self, limit: int, wait: float) -> list[Msg]:
        if self._remake is None:
            return await self._session.pull(limit, wait)
        try:
            return await self._session.pull(limit, wait)
        except (ConsumerDeletedError, ConsumerNotFoundError):
            await self._make_anew(self._remake)
            return []

    async def _make_anew(self, remake: Remake) -> None:
        """A private consumer went meanwhile (a server restart, 5 minutes away): continue behind the last message."""
        try:
            self._consumer = await remake(self._last)
        except StreamNotFoundError:
            raise
        except BrokerError as error:
            raise StreamError(f"not made anew: {error}") from error
        for msg in self._held:
            self._owners.setdefault(msg, self._session)
        self._session = self._consumer.session(self._options)
        self._sessions.append(self._session)

    def _deliveries(self, messages: Sequence[Msg]) -> list[Delivery]:
        facts_of, stream, held, last = self._session.facts_of, self._stream, self._held, self._last
        found: list[Delivery] = []
        for msg in messages:
            sequence, delivered, stored_ns = facts_of(msg)
            message = decode(msg.subject, msg.data, msg.block, stream=stream, sequence=sequence, stored_ns=stored_ns)
            held[msg] = False
            if sequence > last:  # noqa: PLR1730  (max() costs three times as much, per message)
                last = sequence
            found.append(Delivery(message, delivered, message.key, self, msg))
        self._last = last
        return found

    def _session_of(self, msg: Msg) -> PullSession:
        if self._owners:
            return self._owners.get(msg, self._session)
        return self._session

    def _forget(self, msg: Msg) -> None:
        if self._held.pop(msg, None) is None:
            self._lost.discard(msg)
        if self._owners:
            self._owners.pop(msg, None)
        if self._room is not None:
            self._free_room()

    def _free(self) -> int:
        return self._max_in_flight - len(self._held)

    async def _wait_for_room(self, wait: float) -> bool:
        if wait <= 0:
            return False
        self._room = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(wait):
                await self._room
        except TimeoutError:
            return False
        finally:
            self._room = None
        return not self._closed

    def _free_room(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
