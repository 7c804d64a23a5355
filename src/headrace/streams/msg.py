"""Msg: one delivered message of a stream, a thin object over the session that handed it out."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import msgspec

from headrace.core.delivery import ACK, Nak, Outcome, Reject
from headrace.core.duration import Duration, seconds_of
from headrace.core.errors import AlreadySettledError, ConfigError
from headrace.core.headers import NO_HEADERS, Headers

__all__ = ["Msg", "MsgMetadata", "MsgOwner", "RawStreamMsg", "SequencePair", "time_of_ns"]

_CONTROL = re.compile("[\x00-\x1f\x7f]")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def time_of_ns(nanoseconds: int) -> datetime:
    """Nanoseconds since 1970 as an aware datetime in UTC, to the microsecond."""
    return _EPOCH + timedelta(microseconds=nanoseconds // 1_000)


class SequencePair(msgspec.Struct, frozen=True, gc=False):
    """The two numbers of a delivery: its message in the stream, itself in the consumer."""

    stream: int
    consumer: int


class MsgMetadata(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the engine says of one delivery. ``num_pending`` is as of that delivery."""

    sequence: SequencePair
    num_delivered: int
    num_pending: int
    timestamp: datetime
    stream: str
    consumer: str
    domain: str = ""


class RawStreamMsg(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A stored message, read without a consumer."""

    subject: str
    sequence: int
    data: bytes
    headers: Headers = NO_HEADERS
    time: datetime


class MsgOwner(Protocol):
    """What a message asks of the session that handed it out. Plain functions record; only `confirm` waits."""

    def settle(self, msg: Msg, outcome: Outcome) -> None:
        """Record the outcome; sent in order, in batches. Never raises for a late one, which is counted."""
        ...

    def extend(self, msg: Msg) -> None:
        """Restart its ack wait."""
        ...

    def metadata_of(self, msg: Msg) -> MsgMetadata:
        """The facts of this delivery."""
        ...

    def reply_of(self, msg: Msg) -> str:
        """Its acknowledgement subject."""
        ...

    async def confirm(self, msg: Msg) -> None:
        """Ack, and wait until it is confirmed (double ack)."""
        ...


class Msg(msgspec.Struct, eq=False, gc=False):
    """One delivered message: settle it once with `ack`, `double_ack`, `nak` or `term`.

    An engine makes it from what it has; ``headers``, ``metadata`` and ``reply`` are built on first use. The session
    records the outcome and sends it in batches; only `double_ack` waits. ``block``: the header block as stored
    (``Name: value`` CRLF lines). ``token``: the session's own, what it needs to settle and describe this delivery. The
    collector does not look into messages: a session that ends lets go of those it holds.
    """

    _session: MsgOwner
    subject: str
    data: bytes
    block: bytes
    token: Any
    outcome: Outcome | None = None
    _headers: Headers | None = None

    @property
    def headers(self) -> Headers:
        """Its headers, multi-valued."""
        if self._headers is None:
            self._headers = Headers.from_block(self.block) if self.block else NO_HEADERS
        return self._headers

    @property
    def reply(self) -> str:
        """The acknowledgement subject (embedded: a token of the same shape, for logs)."""
        return self._session.reply_of(self)

    @property
    def metadata(self) -> MsgMetadata:
        """Sequences, delivery count and time; ``NotStreamMessageError`` where there are none."""
        return self._session.metadata_of(self)

    @property
    def settled(self) -> bool:
        """Whether it was settled."""
        return self.outcome is not None

    async def ack(self) -> None:
        """Processed. Recorded; `double_ack` waits until it is confirmed."""
        if self.outcome is not None:
            self._check_unsettled()
        self._session.settle(self, ACK)
        self.outcome = ACK

    async def double_ack(self) -> None:
        """Processed, and confirmed by the engine; unsettled again if that fails."""
        self._check_unsettled()
        await self._session.confirm(self)
        self.outcome = ACK

    async def nak(self, delay: Duration | None = None) -> None:
        """Not processed: again at once, or exactly `delay` later."""
        self.settle(Nak(0.0 if delay is None else seconds_of(delay, "delay")))

    async def in_progress(self) -> None:
        """Still working: the ack wait starts again."""
        self._check_unsettled()
        self._session.extend(self)

    async def term(self, reason: str | None = None) -> None:
        """Never again to this consumer. ``ConfigError``: a `reason` of more than one line."""
        if reason is not None and _CONTROL.search(reason):
            raise ConfigError(f"reason must be one line without control characters, got {reason!a}")
        self.settle(Reject(reason or ""))

    def settle(self, outcome: Outcome) -> None:
        """Settle once, without waiting; ``AlreadySettledError`` the second time."""
        self._check_unsettled()
        self._session.settle(self, outcome)
        self.outcome = outcome

    def _check_unsettled(self) -> None:
        if self.outcome is not None:
            raise AlreadySettledError(f"{self.subject} was settled before: {self.outcome}")

    def __repr__(self) -> str:
        return f"Msg(subject={self.subject!r}, {len(self.data)} bytes, outcome={self.outcome})"
