"""Pipeline: messages on their way through the middleware to the sender, in order of their keys."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeVar, cast

import msgspec

from headrace.core.broker import Receipt
from headrace.core.errors import BrokerTimeoutError, ClosedError, ConfigError, Fault, PublishError, UsageError
from headrace.core.message import Message
from headrace.flow.compose import BatchMiddleware, Middleware, check_count, compose, compose_many, rejected
from headrace.flow.judge import Again, judge
from headrace.flow.keyed import Ordering
from headrace.flow.retry import RetryPolicy
from headrace.kafka.sending.checks import unusable
from headrace.kafka.sending.failures import Failures
from headrace.kafka.sending.gate import Gate, Turn
from headrace.kafka.sending.lane import Lane
from headrace.kafka.sending.result import ProduceResult, interrupted
from headrace.kafka.sending.sender import Sender

__all__ = ["Pipeline"]

T = TypeVar("T")
Result = Receipt | PublishError

_LOOK_AGAIN = 0.05


class _Run:
    """One run of the middleware: what the last step has to know."""

    __slots__ = ("attempt", "handed", "turn")

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.attempt = 1
        self.handed = False


_run: ContextVar[_Run] = ContextVar("headrace_kafka_run")


class Pipeline:
    """At most ``places`` messages accepted and without a result; each goes its way in a task of its own.

    The next one of a key starts when the one before is in the driver, with ``Ordering.TOTAL`` when that one has its
    receipt. What the driver has taken is never handed over again.
    """

    def __init__(
        self,
        sender: Sender,
        middleware: Sequence[Middleware[Message, Receipt]],
        *,
        ordering: Ordering,
        retry: RetryPolicy | None,
        failures: Failures | None,
        places: int,
    ) -> None:
        self._sender = sender
        self._ordering = ordering
        self._retry = retry
        self._failures = failures
        self._lane = Lane(places)
        self._gate = Gate()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._send = compose(self._hand_over, *middleware)
        whole = [layer for layer in cast("Sequence[object]", middleware) if isinstance(layer, BatchMiddleware)]
        self._many = (
            compose_many(self._hand_over_many, *whole) if retry is None and len(whole) == len(middleware) else None
        )

    # -- in -----------------------------------------------------------------------------------------------------

    async def submit(self, message: Message) -> asyncio.Future[Receipt]:
        """Accept it, as soon as there is a place; the future of its result always resolves."""
        self._lane.check()
        try:
            self._sender.check(message)
        except PublishError as error:
            await self._ended(message, 1, error)
            raise
        if self._lane.clear:
            self._lane.free -= 1
        else:
            await self._lane.enter()
            try:
                await self._room(1)
            finally:
                self._lane.leave()
        run = _Run(self._gate.enter(self._keys([message])))
        future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._start(run.turn, self._one(message, run), partial(self._landed, message, run, future))
        return future

    async def send_many(self, messages: Sequence[Message]) -> list[Result]:
        """One result per message, in order. A ``many`` middleware takes as many at once as there are places."""
        self._lane.check()
        results: list[Result | None] = [None] * len(messages)
        good: list[int] = []
        for place, message in enumerate(messages):
            try:
                self._sender.check(message)
                good.append(place)
            except (UsageError, ConfigError, PublishError) as error:
                results[place] = unusable(message, error)
        waiting: list[tuple[list[int], asyncio.Future[list[Result]]]] = []
        size = self._lane.places if self._many is not None else 1
        await self._lane.enter()  # for all of them: no other call comes in between
        try:
            for start in range(0, len(good), size):
                part = good[start : start + size]
                await self._room(len(part))
                waiting.append((part, self._accept_list([messages[place] for place in part])))
        except ClosedError as error:
            if not waiting:
                raise
            for place in good[len(waiting) * size :]:
                results[place] = PublishError(str(error), message_id=messages[place].id, fault=Fault.UNAVAILABLE)
        finally:
            self._lane.leave()
        await self._all_ended(messages, results)  # so far they are of those that were not accepted
        for part, future in waiting:
            for place, result in zip(part, await future, strict=True):
                results[place] = result
        return cast("list[Result]", results)

    def _accept_list(self, messages: Sequence[Message]) -> asyncio.Future[list[Result]]:
        run = _Run(self._gate.enter(self._keys(messages)))
        future: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
        self._start(run.turn, self._list(messages, run), partial(self._list_landed, messages, run, future))
        return future

    async def _room(self, count: int) -> None:
        """For who has the turn: take so many places."""
        lane = self._lane
        while lane.free < count:
            await lane.changed()
        lane.free -= count

    def _keys(self, messages: Iterable[Message]) -> set[Hashable]:
        if self._ordering is Ordering.TOTAL:
            return {None}
        if self._ordering is Ordering.NONE:
            return set()
        return {(message.topic, message.key) for message in messages if message.key is not None}

    def _start(self, turn: Turn, work: Coroutine[Any, Any, T], landed: Callable[[asyncio.Task[T]], None]) -> None:
        """A task that is cancelled before its first step runs nothing of its own: what must happen is a callback."""

        def ended(task: asyncio.Task[T]) -> None:
            self._tasks.discard(task)
            turn.leave()
            landed(task)

        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(ended)

    # -- on the way ---------------------------------------------------------------------------------------------

    async def _one(self, message: Message, run: _Run) -> Receipt:
        await run.turn.come()
        return await self._attempts(message, run)

    async def _list(self, messages: Sequence[Message], run: _Run) -> list[Result]:
        await run.turn.come()
        if self._many is not None:
            return await self._whole(self._many, messages, run)
        return [await self._result(messages[0], run)]

    def _landed(
        self, message: Message, run: _Run, future: asyncio.Future[Receipt], task: asyncio.Task[Receipt]
    ) -> None:
        self._lane.give(1)
        error = self._interrupted(message, run) if task.cancelled() else task.exception()
        if future.done():
            return
        if error is None:
            future.set_result(task.result())
        else:
            future.set_exception(error)

    def _list_landed(
        self,
        messages: Sequence[Message],
        run: _Run,
        future: asyncio.Future[list[Result]],
        task: asyncio.Task[list[Result]],
    ) -> None:
        self._lane.give(len(messages))
        ended = [self._interrupted(message, run) for message in messages] if task.cancelled() else []
        error = None if task.cancelled() else task.exception()
        if future.done():
            return
        if task.cancelled():
            future.set_result(list(ended))
        elif error is None:
            future.set_result(task.result())
        else:
            future.set_exception(error)

    def _interrupted(self, message: Message, run: _Run) -> PublishError:
        error = interrupted(message.id)
        if self._failures is not None:  # the task has ended, and cannot tell it itself
            self._failures.later(message, run.attempt, error)
        return error

    async def _ended(self, message: Message, attempt: int, error: Exception) -> None:
        if self._failures is not None:
            await self._failures.ended(message, attempt, error)

    async def _all_ended(self, messages: Sequence[Message], results: Sequence[Result | None]) -> None:
        """Tell what failed at its only attempt."""
        if self._failures is None:
            return
        for message, result in zip(messages, results, strict=True):
            if isinstance(result, PublishError) and isinstance(message, Message):
                await self._ended(message, 1, result)

    async def _result(self, message: Message, run: _Run) -> Result:
        try:
            return await self._attempts(message, run)
        except PublishError as error:
            return error
        except Exception as error:  # noqa: BLE001  (one bad item must not take its neighbours along)
            return rejected(message, error)

    async def _attempts(self, message: Message, run: _Run) -> Receipt:
        """Run the middleware until it comes through, or for good not."""
        _run.set(run)
        while True:
            try:
                return await self._send(message)
            except Exception as error:
                delay = self._delay(error, run)
                if delay is None:
                    failure = _failure(message, error, run)
                    await self._ended(message, run.attempt, error)
                    if failure is error:
                        raise
                    raise failure from error
                if self._failures is not None:
                    await self._failures.repeated(message, run.attempt, error)
            await asyncio.sleep(delay)
            run.attempt += 1

    def _delay(self, error: Exception, run: _Run) -> float | None:
        """Seconds until it is run again; never again what was handed over or refused for good, or after the close."""
        if run.handed or self._retry is None or isinstance(error, UsageError):
            return None
        if isinstance(error, PublishError) and (
            error.fault is Fault.REJECTED or isinstance(error.__cause__, ClosedError)
        ):
            return None
        verdict = judge(error, run.attempt, self._retry, None, random.random())
        return verdict.delay if isinstance(verdict, Again) else None

    async def _whole(
        self, send: Callable[[Sequence[Message]], Awaitable[list[Result]]], messages: Sequence[Message], run: _Run
    ) -> list[Result]:
        _run.set(run)
        results: list[Result]
        try:
            results = check_count(await send(messages), len(messages))
        except Exception as error:  # noqa: BLE001  (the middleware's own)
            results = [_failure(message, error, run) for message in messages]
        await self._all_ended(messages, results)
        return results

    # -- the last step ------------------------------------------------------------------------------------------

    async def _hand_over(self, message: Message) -> Receipt:
        run = _taken()
        try:
            future = await self._sender.submit(message)
        except ClosedError as error:
            raise unusable(message, error) from error
        run.handed = True
        if self._ordering is not Ordering.TOTAL:
            run.turn.leave()
        result: ProduceResult = await future
        run.turn.leave()
        return result if run.attempt == 1 else msgspec.structs.replace(result, attempt=run.attempt)

    async def _hand_over_many(self, messages: Sequence[Message]) -> list[Result]:
        run = _taken()
        if self._ordering is Ordering.TOTAL:
            run.handed = True
            return [await self._after_receipt(message) for message in messages]
        try:
            many = await self._sender.submit_many(messages)
        except ClosedError as error:
            return [unusable(message, error) for message in messages]
        run.handed = True
        run.turn.leave()
        return list(await many.outcome())

    async def _after_receipt(self, message: Message) -> Result:
        try:
            return await self._sender.send_one(message)
        except (PublishError, UsageError, ConfigError) as error:
            return unusable(message, error)

    # -- out ----------------------------------------------------------------------------------------------------

    async def flush(self, hurry: asyncio.Future[None] | None = None) -> None:
        """Until everything accepted before has its result, or somebody is in a hurry."""
        if not self._lane.closed:
            await self._lane.enter()  # behind the calls before this one
            self._lane.leave()
        left = set(self._tasks)
        while left and not (hurry is not None and hurry.done()):
            with suppress(ClosedError, BrokerTimeoutError):
                await self._sender.flush(_LOOK_AGAIN)  # what has come so far does not linger
            _, left = await asyncio.wait(left, timeout=_LOOK_AGAIN)

    def close(self, error: Exception) -> None:
        """Nobody gets in any more."""
        self._lane.close(error)

    async def aclose(self) -> None:
        """End what is on its way: each gets its result now."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def _taken() -> _Run:
    run = _run.get()
    if run.handed:
        raise UsageError("a send middleware called call_next again after the message was handed over")
    return run


def _failure(message: Message, error: Exception, run: _Run) -> PublishError:
    """What the user gets: nothing was sent, or it may be stored and something failed after that."""
    if isinstance(error, PublishError):
        return error
    made = rejected(message, error)
    if run.handed:
        made.fault = Fault.UNKNOWN
    return made
