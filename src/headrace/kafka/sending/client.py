"""Client: one producer of the driver, and the one thread that owns it. Reports come to the loop in batches."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from headrace.core.clock import SystemClock
from headrace.kafka import driver
from headrace.kafka.errors import KafkaError

__all__ = ["Client", "Flight"]

_log = logging.getLogger("headrace.kafka")
_TICK = 0.1
"""Seconds of one poll: longest wait for whoever asks the thread to stop."""
_IDLE = 1.0
"""Seconds between two looks at a client that has nothing to send: its log and its tokens are served there."""
_PATIENCE = 3.0
"""Seconds for the reports of what was purged."""


class Flight(Protocol):
    """One or many messages that were handed to the driver."""

    def settle(self) -> None:
        """Called on the loop after reports came."""
        ...


class Client:
    """A producer of the driver. Made, polled and closed by its thread; `produce`, which never waits, is the loop's.

    `reported` is called on the loop, once for all reports of one poll, with the flights that the callbacks have put
    into `touched`; `failed` once, when the driver says that this client is of no further use.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        loop: asyncio.AbstractEventLoop,
        reported: Callable[[list[Flight]], None],
        failed: Callable[[Client, KafkaError], None],
        name: str,
    ) -> None:
        self.loop = loop
        self.failure: KafkaError | None = None
        """Why it is of no further use."""
        self.produce: Callable[..., None] = _not_open
        self.touched: list[Flight] = []
        """What got a report in this poll. The thread's."""
        self.sending = 0
        """Messages handed over and not reported yet. The loop's."""
        self.flushing = 0
        """How many wait for everything to be sent: the driver does not linger then. The loop's."""
        self._ended: asyncio.Future[None] = loop.create_future()
        self._make = make
        self._reported = reported
        self._failed = failed
        self._opened: asyncio.Future[None] = loop.create_future()
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._idle = False
        self._stopping = False
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)

    async def open(self) -> None:
        """Make it. ``ConfigError``, ``KafkaError``."""
        try:
            self._thread.start()
        except RuntimeError as error:
            _resolve(self._ended)
            raise KafkaError(f"the thread of a producer did not start: {error}", retriable=True) from error
        try:
            await asyncio.shield(self._opened)
        except asyncio.CancelledError:
            self.stop()
            raise

    def wake(self) -> None:
        """There is something to be polled for."""
        if self._idle:
            self._idle = False
            self._wake.put(None)

    def stop(self) -> None:
        """Throw away what is not sent, report it, end. `ended` tells when."""
        self.produce = _not_open
        if not self._stopping:
            self._stopping = True
            self._wake.put(None)

    async def ended(self) -> None:
        """Return once its thread is no more. Cancelled: it ends all the same."""
        await asyncio.shield(self._ended)
        if self._thread.ident is not None:  # else it did not start
            self._thread.join()

    # -- the thread ---------------------------------------------------------------------------------------------

    def _main(self) -> None:
        try:
            producer = self._make()
        except Exception as error:  # noqa: BLE001  (whoever opens gets it)
            self._tell(_refuse, self._opened, error)
        else:
            self.produce = producer.produce
            self._tell(_resolve, self._opened)
            try:
                self._serve(producer)
            finally:
                self.produce = _not_open  # bound to the producer: it would keep it
                self._close(producer)
                del producer
        self._tell(_resolve, self._ended)

    def _serve(self, producer: Any) -> None:
        while not self._stopping and not self.loop.is_closed():
            if self.sending or len(producer):
                self._poll(producer.flush if self.flushing else producer.poll, _TICK)
                continue
            self._idle = True
            if not self.sending:  # the loop counts first and looks at `_idle` then
                with suppress(Empty):
                    self._wake.get(timeout=_IDLE)
            self._idle = False
            self._poll(producer.poll, 0.0)

    def _poll(self, poll: Callable[[float], object], wait: float) -> None:
        try:
            poll(wait)
        except Exception as error:  # noqa: BLE001  (a fatal error of the driver comes out of poll)
            failure = driver.translated(error)
            if failure.fatal and not self._stopping:
                self._hand_in()  # what was reported before counts
                self._tell(self._failed, self, failure)
                self._until_stopped()
            elif not failure.fatal:
                _log.warning("a report could not be read: %s", failure)
        self._hand_in()

    def _until_stopped(self) -> None:
        """The loop may be calling `produce` right now: it has to let go of it first."""
        with suppress(Empty):
            while not self._stopping:
                self._wake.get(timeout=_PATIENCE)
        self._stopping = True

    def _hand_in(self) -> None:
        if self.touched:
            touched, self.touched = self.touched, []
            self._tell(self._reported, touched)

    def _close(self, producer: Any) -> None:
        clock = SystemClock()
        until = clock.monotonic() + _PATIENCE
        try:
            producer.purge()
            while len(producer) and clock.monotonic() < until:
                self._poll(producer.poll, _TICK)
            self._poll(producer.poll, 0.0)
            if not len(producer):  # else it would wait for ever; without the call it goes with its last reference
                producer.close()
        except Exception as error:  # noqa: BLE001  (nobody is left to whom it would matter)
            _log.debug("a producer did not close well: %s", driver.translated(error))

    def _tell(self, function: Callable[..., object], *arguments: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self.loop.call_soon_threadsafe(function, *arguments)


def _not_open(*_: object) -> None:
    raise BufferError("this client is not open")


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _refuse(future: asyncio.Future[None], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # whoever opened may be gone
