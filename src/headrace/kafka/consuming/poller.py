"""Poller: the one thread that owns a driver's consumer. Only it polls, commits, pauses, seeks and closes."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from headrace.core.clock import Clock
from headrace.core.errors import ClosedError
from headrace.kafka import driver
from headrace.kafka.codes import Code
from headrace.kafka.consuming.alike import alike
from headrace.kafka.consuming.answers import Ended, give
from headrace.kafka.consuming.commits import Commits, Stays
from headrace.kafka.consuming.fence import Fence
from headrace.kafka.consuming.listener import Listener
from headrace.kafka.consuming.partition import Partition, Run
from headrace.kafka.consuming.places import ends, place
from headrace.kafka.errors import KafkaError

__all__ = ["Plan", "Poller"]

T = TypeVar("T")

_log = logging.getLogger("headrace.kafka")
_TICK = 0.05
"""Seconds of one poll: longest wait for whoever asks something of the thread."""
_MOST = 500
_LEAVING = 10.0
_ASK = 5.0
_PATIENCE = 1.0
"""Seconds of not asking before partitions are paused: a pause throws away what the driver has fetched ahead."""


class Plan(Protocol):
    """What a poller reads: a group's topics, or partitions of its own. Everything on the driver's thread."""

    commits: bool
    """Whether a group's coordinator is told what is finished."""

    def begin(self, poller: Poller, consumer: Any) -> None:
        """Subscribe, or assign."""
        ...

    def look(self, poller: Poller, consumer: Any) -> None:
        """Once per turn of the thread."""
        ...

    def trouble(self, poller: Poller, consumer: Any, record: Any) -> None:
        """A record that is an error, and not the end of a partition. What it raises ends the poller."""
        ...

    def leave(self, poller: Poller, consumer: Any) -> None:
        """The last thing before the consumer closes."""
        ...


class Poller:
    """`make` gets the two callbacks of the driver (errors, commits) and gives its consumer.

    ``session``: how long the group's coordinator waits for a sign of life (``None``: there is no group).
    """

    def __init__(
        self,
        make: Callable[[Callable[..., None], Callable[..., None]], Any],
        plan: Plan,
        listener: Listener,
        *,
        prefetch: int,
        commit_interval: float,
        session: float | None = None,
        clock: Clock,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.stays: Stays = {}
        self.listener = listener
        self.commits = Commits(self.stays, commit_interval, clock.monotonic, self.fail, session=session or 0.0)
        self._ending, self._leaving = threading.Event(), threading.Event()
        self.failure: BaseException | None = None
        """What ends the thread at its next turn."""
        self._make = make
        self._plan = plan
        self.now = clock.monotonic
        self.fence = Fence(session, clock.monotonic)
        self.now_ns = clock.now_ns
        self._prefetch = prefetch
        self.demand = 0
        """Records that somebody waits for, beyond the prefetch. The loop's."""
        self.patient = True
        """Whether a revoke waits for what runs."""
        self._taken = 0
        self.pulled = 0
        """Records that the loop has taken out of its buffer, in all. The loop writes it, the thread reads it."""
        self._stopped = False
        self._wanted = threading.Event()
        self._work: deque[Callable[[Any], None]] = deque()
        self._held_since: float | None = None
        self._holding: list[Any] = []
        self._span_paused: set[tuple[str, int]] = set()
        self._over = asyncio.Event()
        self._begun: asyncio.Future[None] = self.loop.create_future()
        self._thread = threading.Thread(target=self._live, name="headrace-kafka-poll", daemon=True)

    @property
    def leaving(self) -> bool:
        """Whether nothing that brokers have to answer first is waited for any more, but the last commit."""
        return self._leaving.is_set()

    # -- on the loop ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin: return once the plan has begun, or raise what it raised."""
        self._thread.start()
        await self._begun

    def wake(self) -> None:
        """There is room again, or something to do."""
        self._wanted.set()

    def stop(self) -> None:
        """Fetch nothing more; the membership stays."""
        self._stopped = True
        self._wanted.set()

    def leave(self) -> None:
        """It is to end soon: what waits for brokers gives up, so that the thread can be asked for the last things."""
        self._leaving.set()
        self._wanted.set()

    async def call(self, work: Callable[[Any], T]) -> T:
        """Have the thread do it, between two polls. ``ClosedError`` once it has ended."""
        future: asyncio.Future[T] = self.loop.create_future()

        def do(consumer: Any) -> None:
            try:
                result = work(consumer)
            except BaseException as error:  # noqa: BLE001  (it is raised where it was asked for)
                self.tell(give, future, None, error)
            else:
                self.tell(give, future, result, None)

        if self._over.is_set():
            raise ClosedError("the subscription has ended")
        self._work.append(do)
        self._wanted.set()
        return await future

    def post(self, work: Callable[[Any], None]) -> None:
        """Have the thread do it; nobody waits."""
        self._work.append(work)
        self._wanted.set()

    async def join(self) -> None:
        """End the thread; what is finished was committed before. Twice is fine."""
        self._ending.set()
        self.leave()
        await self.ended()

    async def ended(self) -> None:
        """Return once the thread has ended. While brokers are away the driver needs minutes: it is left alone then."""
        if self._thread.ident is None:
            return
        try:
            await asyncio.wait_for(self._over.wait(), _LEAVING)
            self._thread.join()
        except TimeoutError:
            _log.warning("the brokers do not answer: the consumer is left to close by itself")

    def _tell_failure(self, error: BaseException) -> None:
        if self._begun.done():
            self.listener.failed(error)
        else:
            self._begun.set_exception(error)

    def _end(self) -> None:
        """The thread is through: whoever still waits for it hears that it is over."""
        self._over.set()
        while self._work:
            with suppress(ClosedError):  # of what nobody waits for
                self._work.popleft()(Ended())

    # -- on the thread -------------------------------------------------------------------------------------------------

    def tell(self, function: Callable[..., None], *arguments: Any) -> bool:
        """Call it on the loop. A loop that is closed hears nothing (False): the thread ends."""
        try:
            self.loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            self._ending.set()
            return False
        return True

    def fail(self, error: BaseException) -> None:
        """End with this error, after the turn."""
        if self.failure is None:
            self.failure = error

    def rest(self, seconds: float) -> None:
        """Wait, and show that it lives; not for somebody who wants it to end."""
        self.fence.alive()
        self._leaving.wait(seconds)

    @property
    def asking(self) -> float:
        """Seconds that one question to the brokers may take: often enough it shows that it lives."""
        return min(_ASK, self.fence.longest / 3)

    def hear(self, consumer: Any) -> None:
        """What the driver has to say by now: rebalances, and records."""
        while (record := consumer.poll(0)) is not None:
            self.take(consumer, [record])

    def keep(self, stays: Sequence[Partition]) -> None:
        """They are ours from now on."""
        for stay in stays:
            self.stays[stay.key] = stay
        places = [place(*stay.key) for stay in stays]
        if self._stopped or self._holding:
            self._pause(places)
        elif places:
            self._consumer.resume(places)  # the driver remembers a pause of the stay before, which may have been lost
        self.tell(self.listener.assigned, list(stays))

    def drop(self, stays: Sequence[Partition], *, lost: bool) -> None:
        """They are ours no more."""
        for stay in stays:
            self.stays.pop(stay.key, None)
            self._span_paused.discard(stay.key)
        self.tell(lambda: self.listener.gone(stays, lost=lost))

    def pause(self, consumer: Any, stay: Partition) -> None:
        """Fetch nothing of it: too much of it is unfinished."""
        key = stay.key
        if self.stays.get(key) is stay and key not in self._span_paused:
            self._span_paused.add(key)
            consumer.pause([place(*key)])

    def resume(self, consumer: Any, stay: Partition) -> None:
        """Fetch it again."""
        key = stay.key
        if self.stays.get(key) is stay and key in self._span_paused:
            self._span_paused.discard(key)
            if not self._holding and not self._stopped:
                consumer.resume([place(*key)])

    def pause_again(self, consumer: Any) -> None:
        """What was assigned anew is not paused any more."""
        paused = self.stays.keys() if self._holding else self.stays.keys() & self._span_paused
        if paused:
            consumer.pause([place(*key) for key in paused])

    def _live(self) -> None:
        consumer: Any = None
        try:
            consumer = self._consumer = self._make(self._troubled, self.commits.answered)
            self._plan.begin(self, consumer)
            self.tell(give, self._begun, None, None)
            self.fence.begin()
            while not self._ending.is_set() and self.failure is None and not self.loop.is_closed():
                self._turn(consumer)
        except BaseException as error:  # noqa: BLE001  (told to the loop, whatever it is)
            self.fail(driver.translated(error) if isinstance(error, driver.KafkaException) else error)
        finally:
            self._ending.set()
            if self.failure is not None:
                self.tell(self._tell_failure, self.failure)
            try:
                if consumer is not None:
                    self._close(consumer)
            finally:
                self.tell(self._end)

    def _turn(self, consumer: Any) -> None:
        self.fence.alive()
        while self._work:
            self._work.popleft()(consumer)
        self.commits.send_due(consumer, grouped=self._plan.commits)
        self._plan.look(self, consumer)
        room = self._room()
        if room <= 0:
            self._hold(consumer)
        else:
            self._release(consumer)
            self._poll(consumer, room)

    def ask(self, consumer: Any) -> None:
        """Poll now, if something is wanted; what was there is handed over before the answer."""
        room = self._room()
        if room > 0:
            self._release(consumer)
            self._poll(consumer, room)

    def _room(self) -> int:
        return 0 if self._stopped else self._prefetch + self.demand - (self._taken - self.pulled)

    def _poll(self, consumer: Any, room: int) -> None:
        first = consumer.poll(_TICK)
        if first is None:
            return
        records = [first]
        if room > 1:
            place_of_first = first.topic(), first.partition()
            stay = self.stays.get(place_of_first)
            more = consumer.consume(min(room, _MOST) - 1, 0)
            if self.stays.get(place_of_first) is not stay:  # it went and came back between the two: it comes again
                records.clear()
            records += more
        self.take(consumer, records)

    def take(self, consumer: Any, records: Sequence[Any]) -> None:
        """Sort records by partition, and hand them over."""
        runs: list[Run] = []
        received_ns, at = self.now_ns(), 0
        for same in alike(records):
            first, at = records[at], at + same
            error, stay = first.error(), self.stays.get((first.topic(), first.partition()))
            if error is not None and error.code() != Code.LOCAL_PARTITION_EOF:
                self._hand_over(runs)  # what is done about it comes behind them
                runs = []
                self._trouble(consumer, first)
            elif stay is None:
                continue  # it came with the end of its stay
            else:
                run = runs[-1] if runs and runs[-1].partition is stay and runs[-1].end is None else None
                if run is None:
                    run = Run(stay, [], received_ns)
                    runs.append(run)
                if error is None:
                    run.records += records[at - same : at]
                else:
                    run.end = first.offset()
        self._hand_over(runs)

    def _hand_over(self, runs: list[Run]) -> None:
        if runs:
            self._taken += sum(len(run.records) for run in runs)
            self.tell(self.listener.arrived, runs)

    def _trouble(self, consumer: Any, record: Any) -> None:
        """It may come to whoever polls for another reason: it ends the thread, not only what it is doing."""
        try:
            self._plan.trouble(self, consumer, record)
        except driver.KafkaException as error:
            self.fail(driver.translated(error))
        except Exception as error:  # noqa: BLE001  (told to the loop)
            self.fail(error)

    def _hold(self, consumer: Any) -> None:
        """No room, or nobody wants anything. First nothing is asked; after a while all is paused and polled again."""
        now = self.now()
        if self._held_since is None:
            self._held_since = now
        if now - self._held_since < _PATIENCE and not self._stopped:
            self._wanted.wait(_TICK)
            self._wanted.clear()
            return
        if not self._holding and self.stays:
            self._pause([place(*key) for key in self.stays])
        record = consumer.poll(_TICK)
        if record is not None:
            self.take(consumer, [record])

    def _pause(self, places: list[Any]) -> None:
        if places:
            self._consumer.pause(places)
            self._holding += places

    def _release(self, consumer: Any) -> None:
        self._held_since = None
        self._wanted.clear()
        if self._holding:
            places, self._holding = self._holding, []
            ours = [
                each
                for each in places
                if (key := (each.topic, each.partition)) in self.stays and key not in self._span_paused
            ]
            if ours:
                consumer.resume(ours)

    def _troubled(self, error: KafkaError) -> None:
        """The driver's word on its connections; it tries again by itself, but for what can never work."""
        self.commits.cut_off()
        if ends(error) and (self._plan.commits or error.code != Code.GROUP_AUTHORIZATION_FAILED):
            self.fail(error)

    def _close(self, consumer: Any) -> None:
        for end in (lambda: self._plan.leave(self, consumer), consumer.close):
            try:
                end()
            except (driver.KafkaException, RuntimeError) as error:
                _log.warning("the consumer did not close well: %s", error)
