"""Delivery: one attempt to hand one message to one group; settled once, by a plain function."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import msgspec

from headrace.core.duration import Duration, seconds_of
from headrace.core.errors import AlreadySettledError
from headrace.core.message import Message

__all__ = ["ACK", "RELEASE", "Ack", "Delivery", "DeliveryOwner", "Nak", "Outcome", "Position", "Reject", "Release"]


class Ack(msgspec.Struct, frozen=True, gc=False):
    """Processed."""


class Nak(msgspec.Struct, frozen=True, gc=False):
    """Not processed: again, never earlier than `delay` seconds from now."""

    delay: float = 0.0


class Reject(msgspec.Struct, frozen=True, gc=False):
    """Never again to this group."""

    reason: str = ""


class Release(msgspec.Struct, frozen=True, gc=False):
    """Not run, not a failure: again as soon as anybody can take it."""


Outcome = Ack | Nak | Reject | Release
"""How a delivery ended. Closed: match it, with ``assert_never`` behind."""

ACK = Ack()
RELEASE = Release()


class Position(msgspec.Struct, frozen=True, gc=False):
    """A place in one source (stream, partition, queue). Ordered within a source, ``TypeError`` across two."""

    source: str
    value: int

    def __lt__(self, other: Position) -> bool:
        self._same_source(other)
        return self.value < other.value

    def __le__(self, other: Position) -> bool:
        self._same_source(other)
        return self.value <= other.value

    def __gt__(self, other: Position) -> bool:
        return other < self

    def __ge__(self, other: Position) -> bool:
        return other <= self

    def __str__(self) -> str:
        return f"{self.source}@{self.value}"

    def _same_source(self, other: object) -> None:
        if not isinstance(other, Position) or other.source != self.source:
            raise TypeError(f"{self} and {other} are positions in different sources")


class DeliveryOwner(Protocol):
    """What a delivery asks of the subscription that handed it out: plain functions, no I/O."""

    group: str | None

    def start(self, delivery: Delivery) -> bool:
        """Whether a run may begin now. False: nobody will run it, drop it without settling."""
        ...

    def settle(self, delivery: Delivery, outcome: Outcome) -> None:
        """Record the outcome; it is sent in batches."""
        ...

    def settle_acked(self, deliveries: Sequence[Delivery]) -> None:
        """`settle` with `ACK` for each of them, in order; their settlements say so already."""
        ...

    def extend(self, delivery: Delivery) -> None:
        """Prolong its lease."""
        ...

    def position(self, delivery: Delivery) -> Position | None:
        """Where it stands."""
        ...

    def attributes(self, delivery: Delivery) -> Mapping[str, str | int]:
        """The engine's facts for logs, spans and failure events."""
        ...


class Settlement(msgspec.Struct, eq=False, gc=False):
    """The one settlement that a delivery and all its views share."""

    outcome: Outcome | None = None
    judge: Any = None


class Delivery(msgspec.Struct, eq=False, gc=False):
    """One attempt to hand one message to one group.

    ``attempt`` is the number of this run, from 1: the engine's delivery count where it has one, raised in place by
    a worker for each further run. ``order_key`` is the message's key unless the engine orders by something else;
    ``None`` = no order. ``token`` is the owner's own. The first settle wins: a second one, or `extend` after it,
    raises ``AlreadySettledError``. A late settle never raises.
    """

    message: Message
    attempt: int
    order_key: Hashable | None
    owner: DeliveryOwner
    token: Any = None
    settlement: Settlement = msgspec.field(default_factory=Settlement)

    @property
    def group(self) -> str | None:
        """The group it was handed to."""
        return self.owner.group

    @property
    def outcome(self) -> Outcome | None:
        """How it was settled; ``None`` = not yet."""
        return self.settlement.outcome

    @property
    def position(self) -> Position | None:
        """Where it stands in its source; ``None`` where the engine has no positions."""
        return self.owner.position(self)

    def start(self) -> bool:
        """Ask right before every run. False (lease lost, revoked, closed): drop it, do not settle."""
        return self.owner.start(self)

    def settle(self, outcome: Outcome) -> None:
        """Record the outcome and return; the engine sends outcomes in batches, in order.

        A worker may take the handler's own ``Nak`` first (it parks the message in place): see `judge`.
        """
        settlement = self.settlement
        if settlement.outcome is not None:
            raise AlreadySettledError(
                f"{self.message.topic} {self.message.id} was settled before: {settlement.outcome}"
            )
        settlement.outcome = outcome
        if settlement.judge is not None and isinstance(outcome, Nak):
            settlement.judge(self, outcome)
        else:
            self.owner.settle(self, outcome)

    def ack(self) -> None:
        """Settle: processed."""
        self.settle(ACK)

    def nak(self, delay: Duration = 0.0) -> None:
        """Settle: not processed, again after `delay`. ``ConfigError`` for what is no length of time."""
        self.settle(Nak(seconds_of(delay, "delay")))

    def reject(self, reason: str) -> None:
        """Settle: never again to this group."""
        self.settle(Reject(reason))

    def extend(self) -> None:
        """Prolong the lease: still working. May repeat."""
        if self.settlement.outcome is not None:
            raise AlreadySettledError(f"{self.message.topic} {self.message.id} was settled before")
        self.owner.extend(self)

    def attributes(self) -> Mapping[str, str | int]:
        """The engine's facts for logs, spans and failure events; empty where it has none."""
        return self.owner.attributes(self)

    def with_message(self, message: Message) -> Delivery:
        """A view with another message (decoders use it); it shares the settlement."""
        return Delivery(message, self.attempt, self.order_key, self.owner, self.token, self.settlement)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.settlement.outcome is not None:
            return
        if kind is None:
            self.settle(ACK)
        elif issubclass(kind, asyncio.CancelledError):
            self.settle(RELEASE)
        else:
            self.settle(Nak())
