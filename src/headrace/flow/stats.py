"""Stats of a worker: plain counters, and what it holds at this moment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.core.broker import Subscription
    from headrace.flow.keyed import KeyedQueues
    from headrace.flow.place import Place

__all__ = ["Stats"]


class Stats:
    """Counters since the worker began. ``naked``: handed back for later; ``retried``: runs that come again, in place
    or through the broker; ``released``: handed back without a verdict; ``withdrawn``: taken from us before a run;
    ``full``: times that a runner had nothing to do while every place was taken.
    """

    __slots__ = (
        "_places",
        "_queues",
        "_subscriptions",
        "acked",
        "dead_lettered",
        "dropped",
        "full",
        "late_errors",
        "naked",
        "pulled",
        "rejected",
        "released",
        "retried",
        "started",
        "withdrawn",
    )

    def __init__(self, queues: KeyedQueues, places: Sequence[Place], subscriptions: Sequence[Subscription]) -> None:
        self._queues = queues
        self._places = places
        self._subscriptions = subscriptions
        self.pulled = self.started = self.acked = self.naked = self.rejected = self.released = 0
        self.retried = self.dead_lettered = self.dropped = self.withdrawn = self.full = 0
        self.late_errors = 0
        """Handlers that raised after they had settled the delivery themselves."""

    @property
    def held(self) -> int:
        """Pulled and not done: ready, waiting, running and parked."""
        return self._queues.held

    @property
    def running(self) -> int:
        """Runs under way."""
        return sum(place.delivery is not None for place in self._places)

    @property
    def parked_keys(self) -> int:
        """Keys whose head waits for its next run."""
        return self._queues.parked_count

    @property
    def late_settles(self) -> int:
        """Outcomes that came after the lease was over or the subscription closed."""
        return sum(subscription.late_settles for subscription in self._subscriptions)

    def __repr__(self) -> str:
        names = [name for name in self.__slots__ if not name.startswith("_")]
        names += ["held", "running", "parked_keys", "late_settles"]
        return f"Stats({', '.join(f'{name}={getattr(self, name)}' for name in names)})"
