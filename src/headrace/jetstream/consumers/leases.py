"""Leases: what a session holds unsettled, and how it is settled, prolonged and confirmed. Its messages' owner.

Acknowledgements are published where the message says; the connection collects them and writes once per loop turn.
"""

from __future__ import annotations

import math

from headrace.core.delivery import ACK, RELEASE, Ack, Outcome
from headrace.core.errors import AlreadySettledError, ClosedError, ConnectionLostError
from headrace.jetstream.consumers.acks import (
    ACK_BODY,
    PROGRESS_BODY,
    body_of,
    facts_in,
    is_ack_subject,
    metadata_in,
    order_in,
    probe_of,
)
from headrace.jetstream.protocol.api import Api
from headrace.jetstream.protocol.infos import consumer_info
from headrace.nats.errors import NoRespondersError
from headrace.streams.config import AckPolicy
from headrace.streams.errors import ConsumerDeletedError, NotStreamMessageError
from headrace.streams.info import ConsumerInfo
from headrace.streams.msg import Msg, MsgMetadata

__all__ = ["Leases"]

_SWEEP_FROM = 1024


class Leases:
    """`held`: message -> when its ack wait began, in the order of delivery. Nothing is, without acknowledgements."""

    def __init__(self, api: Api, info: ConsumerInfo) -> None:
        config = info.config
        self.held: dict[Msg, float] = {}
        self.late = 0
        """Settled after their ack wait."""
        self.tracked = config.ack_policy is not AckPolicy.NONE
        self._api = api
        self._label = f"{info.stream}.{info.name}"
        self._connection = api.connection
        self._send = api.connection.send
        self._now = api.connection.clock.monotonic
        self.wait = config.waits[0].total_seconds() if self.tracked else math.inf
        self._max_deliver = config.max_deliver
        self._covers_below = config.ack_policy is AckPolicy.ALL
        self._unconfirmed = b""
        self._doubt_until = 0.0
        self._confirming: set[Msg] = set()
        self._sweep_at = _SWEEP_FROM
        self._turn_time = 0.0
        self._in_turn = False

    def alive(self, msg: Msg) -> bool:
        """Whether its ack wait is not over."""
        if not self.tracked:
            return is_ack_subject(msg.token)
        began = self.held.get(msg)
        return began is not None and self._now() - began < self.wait

    def is_current(self, msg: Msg) -> bool:
        """Whether it may be handed out: what ran out comes again, unless this was its last delivery."""
        began = self.held.get(msg)
        if began is None or self._now() - began < self.wait:
            return True
        return self._max_deliver is not None and facts_in(msg.token)[1] >= self._max_deliver

    def settle(self, msg: Msg, outcome: Outcome) -> None:
        """Publish the outcome, with the turn's others. What is lost with the link comes again."""
        began = self.held.pop(msg, None)
        reply = msg.token
        if began is None:
            if not self._may_settle(reply):
                return
        elif (self._turn_time if self._in_turn else self._begin_turn()) - began > self.wait:
            self.late += 1
        if self._covers_below and type(outcome) is Ack:
            self._settle_below(reply)
        self._unconfirmed = reply
        try:
            self._send(reply, b"", b"", ACK_BODY if outcome is ACK else body_of(outcome))
        except (ConnectionLostError, ClosedError):
            return  # no room while away, or closed: not settled, so it comes again

    def metadata_of(self, msg: Msg) -> MsgMetadata:
        """See `MsgOwner.metadata_of`."""
        return metadata_in(msg.token)

    def reply_of(self, msg: Msg) -> str:
        """See `MsgOwner.reply_of`."""
        reply: bytes = msg.token
        return reply.decode("utf-8", "surrogateescape")

    def release(self, msg: Msg) -> bool:
        """Hand back what nobody saw; not what ran out, which others may have by now."""
        if not self.alive(msg):
            return False
        if self.tracked:
            self.settle(msg, RELEASE)
        return True

    def extend(self, msg: Msg) -> None:
        """Begin its ack wait anew."""
        if msg in self.held:
            self.held[msg] = self._now()
        elif not self._may_settle(msg.token):
            return
        self._publish(msg.token, PROGRESS_BODY)

    def keep(self) -> None:
        """Begin all ack waits anew that are not over."""
        now, wait, held = self._now(), self.wait, self.held
        for msg, began in held.items():
            if now - began < wait:
                held[msg] = now
                self._publish(msg.token, PROGRESS_BODY)

    async def confirm(self, msg: Msg) -> None:
        """Ack, and wait for the server's word. ``BrokerTimeoutError``, ``ConsumerDeletedError``: not settled."""
        reply: bytes = msg.token
        if msg not in self.held and not self._may_settle(reply):
            return
        if msg in self._confirming:
            raise AlreadySettledError(f"{msg.subject} is being settled")
        self._confirming.add(msg)
        try:
            await self._ask(reply, ACK_BODY)
        finally:
            self._confirming.discard(msg)
        if self._covers_below:
            self._settle_below(reply)
        self.held.pop(msg, None)

    async def flush(self) -> None:
        """Everything settled so far has been taken in: a consumer works off its acknowledgements in order."""
        reply = self._unconfirmed
        if not reply:
            return
        if self._now() < self._doubt_until:
            self._doubt_until = 0.0
            await self._look_for_lost()
        await self._ask(probe_of(reply), PROGRESS_BODY)
        if self._unconfirmed is reply:
            self._unconfirmed = b""

    def lost(self) -> None:
        """The link is gone. Until an ack wait has passed, nobody knows whether the last outcomes arrived."""
        if self._unconfirmed and self.tracked:
            self._doubt_until = self._now() + self.wait

    def sweep(self) -> None:
        """Forget what ran out and was never settled, now and then: it lives on in another delivery."""
        if len(self.held) < self._sweep_at:
            return
        now, wait = self._now(), self.wait
        for msg in [msg for msg, began in self.held.items() if now - began >= wait]:
            del self.held[msg]
        self._sweep_at = max(_SWEEP_FROM, 2 * len(self.held))

    def forget(self) -> None:
        """The session is closed: what is out may still be settled, but is watched no more."""
        self.held.clear()

    def _begin_turn(self) -> float:
        """One look at the clock for all that is settled in a turn of the loop."""
        self._in_turn = True
        self._turn_time = self._now()
        self._connection.loop.call_soon(self._end_turn)
        return self._turn_time

    def _end_turn(self) -> None:
        self._in_turn = False

    async def _look_for_lost(self) -> None:
        """What is pending there and not held here may be ours, settled on the lost link, or another member's."""
        info = consumer_info(await self._api.ask(f"CONSUMER.INFO.{self._label}"))
        if info.num_ack_pending > len(self.held):
            self._unconfirmed = b""
            raise ConnectionLostError("the link went with outcomes on their way: what did not arrive comes again")

    def _may_settle(self, reply: bytes) -> bool:
        """Whether it is to be published, for a message that is not held. ``NotStreamMessageError``."""
        if not is_ack_subject(reply):
            raise NotStreamMessageError
        return self.tracked

    def _settle_below(self, reply: bytes) -> None:
        order = order_in(reply)
        for msg in [msg for msg in self.held if order_in(msg.token) < order]:
            del self.held[msg]

    def _publish(self, reply: bytes, body: bytes) -> None:
        try:
            self._send(reply, b"", b"", body)
        except (ConnectionLostError, ClosedError):
            return  # no room while away, or closed: not settled, so it comes again

    async def _ask(self, reply: bytes, body: bytes) -> None:
        subject = reply.decode("utf-8", "surrogateescape")
        try:
            await self._connection.request(subject, body, timeout=self._api.timeout)
        except NoRespondersError as error:
            raise ConsumerDeletedError("nobody takes acknowledgements: the consumer is gone") from error
