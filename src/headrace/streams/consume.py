"""MessagesContext and ConsumeContext: continuous reading, written once over `PullSession` (jetstream.md 3.6)."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Self

from headrace.core.delivery import Nak, Reject
from headrace.core.errors import ConfigError, HandlerError, RejectError, RetryLaterError
from headrace.streams.errors import IteratorClosedError, NoHeartbeatError, NoMessagesError
from headrace.streams.msg import Msg
from headrace.streams.reading import Reading, ReadStats

__all__ = ["ConsumeContext", "MessageHandler", "MessagesContext"]

MessageHandler = Callable[[Msg], "Awaitable[None] | None"]
"""Takes one message and settles it itself; plain or async."""

_LONGEST_NAK = 30.0


class MessagesContext:
    """Messages one after the other: ``async for``, or `next`. Leaving its ``async with`` stops it.

    Any number of tasks may wait in `next`: one message each, first come first served.
    """

    def __init__(self, reading: Reading, *, error_on_missing_heartbeat: bool = True) -> None:
        self._reading = reading
        self._ready = reading.ready
        self._heartbeat_errors = error_on_missing_heartbeat
        self._gate = asyncio.Lock()  # fair: waiters get their messages in the order they came
        self._queued = 0
        """How many are at the gate or behind it: whoever comes now is not the first."""
        self._closer: asyncio.Task[None] | None = None
        self._raised = False
        reading.speak_as(self)

    @property
    def stats(self) -> ReadStats:
        """What it has done so far."""
        return self._reading.stats

    async def next(self, timeout: float | None = None) -> Msg:
        """The next message. ``NoMessagesError`` after `timeout` seconds, ``IteratorClosedError`` once it is closed.

        A terminal error is raised here once. Cancelling loses no message.
        """
        msg = None if self._queued else self._ready()
        if msg is None:
            msg = await self._wait(timeout)
        if msg is not None:
            return msg
        if not self._reading.stopping:
            raise NoMessagesError(f"no message in {timeout or 0:g} s")
        self._raise_failure()
        raise IteratorClosedError

    def __aiter__(self) -> AsyncIterator[Msg]:
        return self

    async def __anext__(self) -> Msg:
        if not self._queued and (msg := self._ready()) is not None:
            return msg
        msg = await self._wait(None)
        if msg is None:
            self._raise_failure()
            raise StopAsyncIteration
        return msg

    def stop(self) -> None:
        """Hand nothing more over; what is buffered goes back. Twice is fine."""
        self._reading.stop()
        self._begin_close()

    async def drain(self) -> None:
        """Ask for nothing more, hand over what is buffered, then close. Twice is fine."""
        await self._reading.drain()
        async with self._gate:
            # Nobody may be waiting to find the buffer empty: look here, and keep what is found for the next to come.
            if not self._reading.stopping and not self._reading.spare:
                found = await self._reading.session.pull(1, 0.0)
                self._reading.keep(found)
                if not found:
                    self._reading.end()
                    self._begin_close()

    async def wait_closed(self) -> None:
        """Until it is closed; raises what it failed with."""
        await self._reading.closed.wait()
        if self._reading.error is not None:
            raise self._reading.error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        await self._reading.closed.wait()

    async def _wait(self, timeout: float | None) -> Msg | None:
        """The next message, in turn. ``None``: it is over, or the time is."""
        deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
        self._queued += 1
        try:
            try:
                async with asyncio.timeout_at(deadline):
                    await self._gate.acquire()
            except TimeoutError:
                return None
            try:
                return await self._take(deadline)
            finally:
                self._gate.release()
        finally:
            self._queued -= 1

    async def _take(self, deadline: float | None) -> Msg | None:
        while True:
            try:
                return await self._reading.take(deadline)
            except NoHeartbeatError:
                if self._heartbeat_errors:
                    raise
            except Exception:
                if self._reading.error is None:
                    raise
                return None  # terminal: the caller raises it, once
            finally:
                if self._reading.stopping:
                    self._begin_close()

    def _begin_close(self) -> None:
        if self._closer is None:
            self._closer = asyncio.get_running_loop().create_task(self._close())

    async def _close(self) -> None:
        async with self._gate:  # whoever pulls has been woken and leaves first
            await self._reading.close()

    def _raise_failure(self) -> None:
        if self._reading.error is not None and not self._raised:
            self._raised = True
            raise self._reading.error


class ConsumeContext:
    """A handler at work on messages, one at a time. Leaving its ``async with`` stops it and waits for the handler."""

    def __init__(self, reading: Reading, handler: MessageHandler) -> None:
        if not callable(handler):
            raise ConfigError(f"handler must be callable, got {handler!r}")
        self._reading = reading
        self._handler = handler
        reading.speak_as(self)
        self._runner = asyncio.get_running_loop().create_task(self._run())

    @property
    def stats(self) -> ReadStats:
        """What it has done so far."""
        return self._reading.stats

    def stop(self) -> None:
        """Hand nothing more over; what is buffered goes back. From the handler too; twice is fine."""
        self._reading.stop()

    async def drain(self) -> None:
        """Ask for nothing more; what is buffered is handled, then it closes. From the handler too; twice is fine."""
        await self._reading.drain()

    async def wait_closed(self) -> None:
        """Until it is closed, its handler included; raises what it failed with."""
        await self._reading.closed.wait()
        if self._reading.error is not None:
            raise self._reading.error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        await self._reading.closed.wait()

    async def _run(self) -> None:
        reading = self._reading
        try:
            while not reading.stopping:
                msg = reading.ready()
                if msg is None:
                    try:
                        msg = await reading.take(None)
                    except NoHeartbeatError:
                        continue  # reported; the session pulls again
                if msg is not None:
                    await self._handle(msg)
        except Exception as error:  # noqa: BLE001  (whoever waits must hear of it)
            reading.error = error
        finally:
            await reading.close()

    async def _handle(self, msg: Msg) -> None:
        try:
            result = self._handler(msg)
            if inspect.isawaitable(result):
                await result
        except asyncio.CancelledError:
            if not msg.settled:
                self._reading.spare.appendleft(msg)  # goes back with the others, once no pull of ours can take it
            raise
        except Exception as error:  # noqa: BLE001  (any failure of a handler is an answer)
            if not msg.settled:
                msg.settle(self._verdict(msg, error))
            failure = HandlerError(f"handler failed on {msg.subject}: {error!r}")
            failure.__cause__ = error
            await self._reading.report(failure)

    def _verdict(self, msg: Msg, error: Exception) -> Nak | Reject:
        if isinstance(error, RejectError):
            return Reject(error.reason)
        if isinstance(error, RetryLaterError):
            return Nak(error.delay.total_seconds())
        delivered = self._reading.session.facts_of(msg)[1]
        return Nak(min(2.0 ** min(delivered - 1, 10), _LONGEST_NAK))
