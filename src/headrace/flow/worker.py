"""Worker: runs subscriptions into a handler until it is told to stop. Its life: open, pull, run, stop, drain, close."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self, cast

from headrace.core.broker import Broker, SubscribeOptions, Subscription
from headrace.core.codec import Codec
from headrace.core.delivery import Delivery
from headrace.core.duration import Duration, seconds_of, seconds_or_none
from headrace.core.errors import ClosedError, ConfigError, UsageError
from headrace.flow.attempt import Attempts, Rules, Step
from headrace.flow.burial import Burial
from headrace.flow.checks import (
    capabilities_of,
    check_policies,
    check_target,
    checked_options,
    checked_topics,
    has_wildcard,
)
from headrace.flow.compose import Middleware, compose
from headrace.flow.drain import Drain
from headrace.flow.events import Events
from headrace.flow.handlers import Handler, Threads, bind
from headrace.flow.judge import DeadLetter, OnExhausted, OnFailure
from headrace.flow.keyed import KeyedQueues, Ordering
from headrace.flow.place import Place
from headrace.flow.pulls import Pulls
from headrace.flow.retry import RetryPolicy
from headrace.flow.signals import on_stop_signal
from headrace.flow.stats import Stats
from headrace.flow.sweep import Sweep

__all__ = ["Worker"]

_SIGNAL_TIMEOUT = 30.0
_NO_OPTIONS = SubscribeOptions()
_FOR_EVER = RetryPolicy()


class Worker:
    """Hands the messages of `topics` to `handler`: returned = processed, raised = judged by `retry`.

    ``concurrency`` handlers at once (32). ``ordering``: what waits for what (`Ordering.KEY`). ``retry``: for ever with
    growing waits; a policy that ends needs ``on_exhausted``: `DeadLetter`, ``DROP``, ``BLOCK`` or ``STOP``.
    ``middleware`` goes around each run, the first is the outermost. ``on_failure`` is told of each failure.
    ``handler_timeout``: longest run (none). ``codec`` overrides the handler's annotation. ``subscribe``: further
    options, ``max_in_flight`` = pulled and not done, waiting ones included (at least 256, or 4 times concurrency).

    Everything that can be checked is checked here: ``ConfigError``, ``UnsupportedError``. Used once.
    """

    def __init__(
        self,
        broker: Broker,
        topics: str | Sequence[str],
        handler: Handler,
        *,
        group: str | None = None,
        concurrency: int = 32,
        ordering: Ordering = Ordering.KEY,
        retry: RetryPolicy = _FOR_EVER,
        on_exhausted: OnExhausted | None = None,
        middleware: Sequence[Middleware[Delivery, None]] = (),
        on_failure: OnFailure | None = None,
        handler_timeout: Duration | None = None,
        codec: Codec[Any] | None = None,
        subscribe: SubscribeOptions = _NO_OPTIONS,
    ) -> None:
        capabilities = capabilities_of(broker)
        self._broker = broker
        self._topics = checked_topics(topics, capabilities)
        self._options = checked_options(subscribe, group, concurrency, capabilities)
        check_policies(ordering, retry, on_exhausted, capabilities)
        self._on_exhausted = on_exhausted
        if isinstance(on_exhausted, DeadLetter):
            check_target(on_exhausted, self._topics, broker)
        timeout = seconds_or_none(handler_timeout, "handler_timeout", least=0.001)
        self._threads = Threads(concurrency, broker.clock)
        step = _step(handler, codec, middleware, self._threads, timeout)
        rules = Rules(retry, on_exhausted, _nak_limit(ordering, broker), random.random)
        events = Events(broker.clock, on_exhausted, on_failure)
        self._places = [Place() for _ in range(concurrency)]
        self._queues = KeyedQueues(self._options.max_in_flight or 0, ordering, self._full)
        self._assemble(step, rules, events, timeout)
        self._life: asyncio.Task[None] | None = None
        self._opened = False
        self._stopping: asyncio.Event = asyncio.Event()
        self._error: BaseException | None = None
        self._block: asyncio.Task[Any] | None = None
        self._block_cancelled = False

    def _assemble(self, step: Step, rules: Rules, events: Events, timeout: float | None) -> None:
        """Make the parts that its life consists of; none of them starts anything."""
        queues, places, release, fail = self._queues, self._places, self._release, self._fail
        self._subscriptions: list[Subscription] = []
        self._stats = stats = Stats(queues, places, self._subscriptions)
        self._burial = Burial(self._broker, create=self._options.create is not False)
        self._sweep = Sweep(queues, places, stats, handler_timeout=timeout, release=release, fail=fail)
        self._pulls = Pulls(queues, stats, self._sweep.arm)
        self._attempts = Attempts(
            queues, stats, step, rules, events=events, burial=self._burial, release=release, fail=fail
        )
        self._drain = Drain(queues, places, self._attempts, pulls=self._pulls, sweep=self._sweep, release=release)

    @property
    def stats(self) -> Stats:
        """Plain counters, and what is held now."""
        return self._stats

    # -- from outside -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run until `shutdown`, SIGINT or SIGTERM. Raises what ended it otherwise.

        Signals: stop with 30 s for what runs (``TimeoutError`` if that is late), a second one: stop now. Cancelled:
        hands back what it holds, within 5 s, then ``CancelledError``.
        """
        life = self._begin()
        if life is None:
            return
        signals = 0

        def stop() -> None:
            nonlocal signals
            signals += 1
            self._stop(_SIGNAL_TIMEOUT if signals == 1 else 0.0)

        with on_stop_signal(stop):
            await self._join(life)

    async def shutdown(self, timeout: Duration = 30.0) -> None:
        """Stop: nothing new is started or pulled, what runs may finish, the rest goes back; then return.

        ``TimeoutError`` if that takes longer than `timeout` (30 s): what runs is cancelled then. Idempotent; of
        several at once the shortest counts. ``UsageError`` from inside one of its own handlers.
        """
        seconds = seconds_of(timeout, "timeout")
        current = asyncio.current_task()
        if any(place.task is current for place in self._places if place.task is not None):
            raise UsageError("a handler cannot wait for the end of its own worker: shut it down from another task")
        life = self._life
        self._stop(seconds)
        if life is None:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        if not life.done():
            await asyncio.wait((life,))
        if self._drain.late and loop.time() >= deadline and not life.cancelled():
            raise TimeoutError(f"handlers still ran {seconds:g} s after shutdown began")

    async def idle(self) -> None:
        """Return once nothing is held and the group has no backlog. ``UsageError`` if the engine cannot say."""
        pause = 0.001
        while self._life is not None and not self._life.done():
            await self._pulls.emptied(self._life)
            waiting = await self._backlog()
            if not waiting and self._opened and not self._queues.held:
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, 1.0)

    async def __aenter__(self) -> Self:
        """Open the subscriptions and start; no signals are caught."""
        life = self._begin()
        if life is None:
            raise ClosedError("the worker was shut down before")
        self._block = asyncio.current_task()
        while not self._opened and not life.done():
            try:
                await self._pulls.wait_opened(life)
            except asyncio.CancelledError:
                self._stop(0.0)
                await self._join(life)
                raise
        if life.done():
            await self._join(life)
        life.add_done_callback(self._end_block)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Shut down; an error that ended the worker has cancelled the block and is raised here."""
        block, self._block = self._block, None
        ours = self._block_cancelled and block is not None and block.uncancel() == 0
        if self._life is None:
            return
        cancelled = kind is not None and issubclass(kind, asyncio.CancelledError)
        self._stop(0.0 if cancelled and not ours else _SIGNAL_TIMEOUT)
        try:
            await self._join(self._life)
        except asyncio.CancelledError:
            raise
        except BaseException as raised:
            if error is None or (cancelled and ours):
                raise
            error.add_note(f"the worker ended with {type(raised).__name__}: {raised}")

    # -- its life ------------------------------------------------------------------------------------------------------

    def _begin(self) -> asyncio.Task[None] | None:
        if self._life is not None:
            if self._life.done():
                raise ClosedError("the worker has ended; make another one")
            raise UsageError("the worker runs already")
        if self._stopping.is_set():
            return None
        self._life = asyncio.create_task(self._live(), name="headrace-worker")
        return self._life

    async def _live(self) -> None:
        """From open to closed. What ended it is kept: a task that raises SystemExit would tear the loop down."""
        try:
            async with AsyncExitStack() as stack:
                await self._open(stack)
                try:
                    await self._stopping.wait()
                finally:
                    await self._drain.run(self._subscriptions)
        except asyncio.CancelledError:
            if not self._drain.late:
                raise
        except BaseException as error:  # noqa: BLE001  (kept, and raised by `_join`)
            self._fail(error)
        finally:
            self._drain.end()
            self._threads.close()
        if self._error is None and self._drain.late:
            self._error = TimeoutError("handlers still ran when the time for the shutdown was over")

    async def _open(self, stack: AsyncExitStack) -> None:
        if isinstance(self._on_exhausted, DeadLetter):
            for topic in self._topics:
                if self._on_exhausted.topic is not None or not has_wildcard(topic):
                    await self._burial.declare(self._on_exhausted, self._on_exhausted.target(topic))
        many = len(self._topics) > 1 and self._broker.capabilities.many_topics
        for topics in [self._topics] if many else self._topics:
            subscription = await stack.enter_async_context(self._broker.subscribe(topics, self._options))
            self._subscriptions.append(subscription)
            self._sweep.watch(subscription)
        for number, place in enumerate(self._places):
            place.task = asyncio.create_task(self._attempts.run(place), name=f"headrace-runner-{number}")
            place.task.add_done_callback(self._ended)
        for subscription in self._subscriptions:
            self._pulls.start(subscription, self._ended)
        self._opened = True
        self._pulls.tell_opened()

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A runner or a pull ended: by an error, or cancelled by a stranger; both end the worker."""
        if task.cancelled():
            if not self._stopping.is_set():
                self._stop(0.0)
        elif (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """The first error ends the worker; what comes later is noted on it."""
        if self._error is None:
            self._error = error
        elif self._error is not error:
            self._error.add_note(f"then {type(error).__name__}: {error}")
        self._stop(_SIGNAL_TIMEOUT)

    def _stop(self, seconds: float) -> None:
        self._stopping.set()
        if self._life is not None and not self._life.done():
            self._drain.within(seconds, self._life)

    async def _join(self, life: asyncio.Task[None]) -> None:
        """Wait for the end of its life; a cancellation of the waiting one makes it end now, and is raised after."""
        cancelled: asyncio.CancelledError | None = None
        while not life.done():
            try:
                await asyncio.wait((life,))
            except asyncio.CancelledError as error:
                cancelled = error
                self._stop(0.0)
        if cancelled is not None:
            raise cancelled from self._error
        life.result()
        if self._error is not None:
            raise self._error

    def _end_block(self, life: asyncio.Task[None]) -> None:
        if self._block is not None and (life.cancelled() or self._error is not None):
            self._block_cancelled = True
            self._block.cancel()

    # -- what its parts ask of it --------------------------------------------------------------------------------------

    def _release(self, deliveries: Sequence[Delivery]) -> None:
        self._drain.release(deliveries, self._stats)

    def _full(self) -> None:
        self._pulls.full(self._places)

    async def _backlog(self) -> int:
        total = 0
        for subscription in self._subscriptions:
            waiting = await subscription.backlog()
            if waiting is None:
                raise UsageError("this engine cannot say what is left to do")
            total += waiting
        return total


def _step(
    handler: Handler,
    codec: Codec[Any] | None,
    middleware: Sequence[Middleware[Delivery, None]],
    threads: Threads,
    timeout: float | None,
) -> Step:
    bound = bind(handler, codec)
    if bound.sync and timeout is not None:
        raise ConfigError("a plain function cannot be stopped: handler_timeout needs an async handler")
    step = compose(threads.step(bound.call) if bound.sync else bound.call, *middleware)
    outermost = middleware[0] if middleware else None
    if outermost is None or _gives_coroutine(outermost):
        return cast("Step", step)

    async def run(delivery: Delivery) -> None:
        await step(delivery)

    return run


def _gives_coroutine(layer: Callable[..., object]) -> bool:
    return inspect.iscoroutinefunction(layer) or inspect.iscoroutinefunction(getattr(layer, "__call__", None))  # noqa: B004


def _nak_limit(ordering: Ordering, broker: Broker) -> float | None:
    capabilities = broker.capabilities
    if ordering is not Ordering.NONE or not capabilities.delayed_nak:
        return None
    limit = capabilities.max_nak_delay
    return float("inf") if limit is None else limit.total_seconds()
