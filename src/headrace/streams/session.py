"""PullSession: one reader of one consumer, the primitive under every way to read. Each engine has its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from headrace.streams.msg import Msg, MsgOwner

__all__ = ["PullSession", "SessionOptions"]


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """What one session may hold. Built from pull, fetch or subscribe options, which have checked it.

    ``max_messages`` and ``max_bytes`` bound what it buffers (``None`` = no bound), thresholds say when it asks for
    more; ``heartbeat`` and ``expires`` in seconds (a server's; embedded keeps them only as options). ``no_wait``: look
    once. ``prefetch``: how many it may hold beyond what a pull asks for (0 = a pull takes exactly what it returns).
    ``stop_after``: never ask for more than so many in all. ``once``: one pull in all, whose end ends it (a fetch).
    ``follows``: consumer sequence of the message before; every further one must be one higher, and a lost link is a gap
    too: ``ConsumerDeletedError`` (ordered readers). The last four are a server's priority groups.
    """

    max_messages: int | None = None
    max_bytes: int | None = None
    threshold_messages: int | None = None
    threshold_bytes: int | None = None
    expires: float = 30.0
    heartbeat: float | None = None
    no_wait: bool = False
    prefetch: int = 0
    stop_after: int | None = None
    once: bool = False
    follows: int | None = None
    group: str | None = None
    min_pending: int | None = None
    min_ack_pending: int | None = None
    priority: int | None = None


class PullSession(MsgOwner, Protocol):
    """One reader of one consumer. One pull at a time (``UsageError``)."""

    @property
    def expired_in_buffer(self) -> int:
        """Dropped unread because their lease was over."""
        ...

    @property
    def late_settles(self) -> int:
        """Settled after the lease was over."""
        ...

    @property
    def held(self) -> int:
        """Handed out or buffered here, and not settled."""
        ...

    def take(self) -> Msg | None:
        """The next message if one is buffered, like a pull of 1, without a coroutine; ``None``: `pull` knows more."""
        ...

    async def pull(self, limit: int, wait: float, *, max_bytes: int | None = None) -> list[Msg]:
        """1..`limit` messages as soon as there is one, none once `wait` seconds have passed (0 looks once).

        Cancel-safe: nothing is awaited between taking and returning. Raises the typed errors (consumer deleted …).
        ``max_bytes`` ends the list before the message that would go over it; ``MaxBytesExceededError`` where that is
        the first one. What is buffered and no longer `alive` is not handed out (it is coming again), but for a last
        allowed delivery. After `stop` it returns what is held, then none at once.
        """
        ...

    def alive(self, msg: Msg) -> bool:
        """Whether its lease still holds."""
        ...

    def facts_of(self, msg: Msg) -> tuple[int, int, int]:
        """Stream sequence, delivery count (from 1), stored time (ns since 1970), no object made."""
        ...

    def keep(self) -> None:
        """Restart the ack wait of all it holds, buffered or handed out."""
        ...

    async def stop(self) -> None:
        """Nothing new arrives from here on; what is held stays."""
        ...

    async def flush(self) -> None:
        """All outcomes so far are confirmed by the engine, or it raises."""
        ...

    async def aclose(self) -> None:
        """Settle what is recorded, hand back in order what was never handed out, flush, end.

        What was handed out and is not settled is left to its lease; settling it later still counts, as long as the
        message is pending (`Consumer.fetch` closes its session before its caller acks the first message).
        """
        ...
