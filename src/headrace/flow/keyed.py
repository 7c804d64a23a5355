"""KeyedQueues: which delivery may start next. One queue per key in flight, gone when the key is idle. Private to flow.

Plain deques and one heap; nothing here runs a handler or settles anything. A key is *in flight* from its first
delivery in here until its last one is done; its head is ready, running or parked, its followers wait behind.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from enum import Enum
from heapq import heappop, heappush

from headrace.core.delivery import Delivery

__all__ = ["KeyedQueues", "Ordering"]

_LOOP_RESOLUTION = 1e-9


class Ordering(Enum):
    """What waits for what."""

    KEY = "key"
    """Messages of one key, in order, one at a time; retries in place."""
    NONE = "none"
    """Nothing; a retry goes back to the broker where it can wait there."""
    TOTAL = "total"
    """Everything: all messages as one key."""


class KeyedQueues:
    """Deliveries pulled and not done, at most `capacity`, handed to a fixed set of runners.

    `on_full` is called when a runner has nothing to do and yet no place is free for another pull.
    """

    def __init__(self, capacity: int, ordering: Ordering, on_full: Callable[[], None]) -> None:
        self.capacity = capacity
        self.held = 0
        self.closed = False
        self._by_key = ordering is Ordering.KEY
        self._one_key: Hashable | None = "" if ordering is Ordering.TOTAL else None
        self._on_full = on_full
        self._ready: deque[Delivery] = deque()
        self._lanes: dict[Hashable, deque[Delivery] | None] = {}  # None = nothing waits behind the head
        self._left: list[Delivery] = []
        self._parked: dict[int, Delivery] = {}
        self._due: list[tuple[float, int]] = []
        self._serial = 0
        self._timer: asyncio.TimerHandle | None = None
        self._idle: list[asyncio.Future[None]] = []
        self._waiting_for_room: list[asyncio.Future[None]] = []
        self._low = -1  # at this number of held ones somebody wants to know

    # -- the way of a delivery: add, take, (park), done --------------------------------------------------------

    def add(self, deliveries: Sequence[Delivery]) -> None:
        """Take these in, in order."""
        self.held += len(deliveries)
        ready = self._ready
        if not self._by_key and self._one_key is None:
            ready.extend(deliveries)
        else:
            lanes, by_key, one_key = self._lanes, self._by_key, self._one_key
            for delivery in deliveries:
                key = delivery.order_key if by_key else one_key
                if key is None:
                    ready.append(delivery)
                elif key not in lanes:
                    lanes[key] = None
                    ready.append(delivery)
                elif (behind := lanes[key]) is None:
                    lanes[key] = deque((delivery,))
                else:
                    behind.append(delivery)
        if ready and self._idle:
            self.wake()

    def take(self) -> Delivery | None:
        """The next delivery that may start; it is the caller's until `done` or `park`."""
        return self._ready.popleft() if self._ready and not self.closed else None

    def done(self, delivery: Delivery) -> None:
        """It is settled: the next one of its key may start, behind all keys that are ready already."""
        self.held -= 1
        key = delivery.order_key if self._by_key else self._one_key
        if key is not None:
            behind = self._lanes[key]
            if not behind:
                del self._lanes[key]
            elif self.closed:
                self._left.extend(behind)
                del self._lanes[key]
            else:
                self._ready.append(behind.popleft())
        if self.held <= self._low:
            self._tell_room()

    def park(self, delivery: Delivery, delay: float) -> None:
        """Keep its place and its key for `delay` seconds, then let it start again."""
        if self.closed:  # too late to wait for: it goes back with the others
            self._left.append(delivery)
            self._left.extend(self._behind(delivery))
            return
        self._serial += 1
        self._parked[self._serial] = delivery
        heappush(self._due, (asyncio.get_running_loop().time() + delay, self._serial))
        self._arm()

    def withdraw(self, delivery: Delivery) -> list[Delivery]:
        """Nobody will run it: its key is free, and what waited behind it comes back for release (still held)."""
        behind = self._behind(delivery)
        self.gone(1)
        return behind

    def gone(self, count: int) -> None:
        """So many that were given back by `withdraw`, `close` or `left` are not held any more."""
        self.held -= count
        if self.held <= self._low:
            self._tell_room()

    # -- waiting: runners for work, pulls for room --------------------------------------------------------------

    @property
    def has_ready(self) -> bool:
        """Whether one could start now."""
        return bool(self._ready)

    def wake(self, count: int = 1) -> None:
        """Wake so many idle runners. One per pull: it wakes the next when its handler suspends."""
        while count and self._idle:
            future = self._idle.pop()
            if not future.done():
                future.set_result(None)
                count -= 1

    def suspended(self) -> None:
        """A handler waits for something: let another runner see to what is ready, or another pull bring more."""
        if self._ready:
            if self._idle:
                self.wake()
        elif self._waiting_for_room and self.held < self.capacity:
            self._tell_room()

    async def wait_for_work(self) -> None:
        """Return once there may be something to take, or this is closed."""
        if self._waiting_for_room:
            if self.held < self.capacity:
                self._tell_room()
            else:
                self._on_full()
        future = asyncio.get_running_loop().create_future()
        self._idle.append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future in self._idle:
                self._idle.remove(future)
            elif not future.cancelled():
                self.wake()  # it was meant for somebody who is not coming
            raise

    async def wait_for_room(self, low: int) -> None:
        """Return once at most `low` are held, or a runner is idle while there is room."""
        if self.held <= low:
            return
        if self._idle and not self._ready and self.held >= self.capacity:
            self._on_full()
        future = asyncio.get_running_loop().create_future()
        self._waiting_for_room.append(future)
        self._low = max(self._low, low)
        try:
            await future
        finally:
            if future in self._waiting_for_room:
                self._waiting_for_room.remove(future)

    def tell_room(self) -> None:
        """Places may be free: who waits for room looks again."""
        if self._waiting_for_room:
            self._tell_room()

    # -- looking, withdrawing, closing --------------------------------------------------------------------------

    @property
    def parked(self) -> Iterable[Delivery]:
        """Those that wait for their next run."""
        return tuple(self._parked.values())

    @property
    def parked_count(self) -> int:
        """How many wait for their next run."""
        return len(self._parked)

    def withdraw_parked(self, delivery: Delivery) -> list[Delivery]:
        """Like `withdraw`, for one that is parked; its heap entry is passed over when it comes up."""
        for serial, parked in self._parked.items():
            if parked is delivery:
                del self._parked[serial]
                return self.withdraw(delivery)
        return []

    def fullest(self) -> tuple[Hashable | None, int]:
        """The key with the most waiting behind its head, and how many."""
        best = max(self._lanes, key=lambda key: len(self._lanes[key] or ()), default=None)
        return best, len(self._lanes[best] or ()) if best is not None else 0

    def key_of(self, delivery: Delivery) -> Hashable | None:
        """The key that it is ordered by here."""
        return delivery.order_key if self._by_key else self._one_key

    def shut(self) -> None:
        """Nothing starts from here on."""
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.wake(len(self._idle))

    def left(self) -> list[Delivery]:
        """After `shut`: all that will not start, parked ones included, but not what is behind a running one."""
        heads = [*self._ready, *self._parked.values()]
        self._ready.clear()
        self._parked.clear()
        self._due.clear()
        left, self._left = self._left, []
        for head in heads:
            left.append(head)
            left.extend(self._behind(head))
        return left

    def _behind(self, delivery: Delivery) -> list[Delivery]:
        key = self.key_of(delivery)
        return [] if key is None else list(self._lanes.pop(key, None) or ())

    def _tell_room(self) -> None:
        self._low = -1
        waiting, self._waiting_for_room = self._waiting_for_room, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def _arm(self) -> None:
        due = self._due[0][0]
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(due, self._unpark)

    def _unpark(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time() + _LOOP_RESOLUTION
        woken = 0
        while self._due and self._due[0][0] <= now:
            delivery = self._parked.pop(heappop(self._due)[1], None)
            if delivery is not None:
                self._ready.append(delivery)
                woken += 1
        if self._due:
            self._arm()
        self.wake(woken)
