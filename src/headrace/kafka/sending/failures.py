"""Failures: tells ``on_failure`` what went wrong with a message that was to be sent."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from headrace.core.clock import Clock
from headrace.core.message import Message
from headrace.flow.judge import FailureEvent, FailureStage, OnFailure
from headrace.kafka.facts import CLIENT, SYSTEM

__all__ = ["Failures"]

_log = logging.getLogger("headrace.kafka")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_GRACE = 0.5
"""Seconds for what is told at the very end."""
_END = (FailureStage.RETRY, FailureStage.EXHAUSTED, FailureStage.STOP)


class Failures:
    """What `on_failure` raises is logged and changes nothing."""

    def __init__(self, clock: Callable[[], Clock], client_id: str, on_failure: OnFailure) -> None:
        self._clock = clock
        self._client_id = client_id
        self._on_failure = on_failure
        self._telling: set[asyncio.Task[None]] = set()

    async def repeated(self, message: Message, attempt: int, error: BaseException) -> None:
        """A run of the middleware failed, and there will be another."""
        await self._tell(message, attempt, error, FailureStage.RETRY, will_retry=True)

    async def ended(self, message: Message, attempt: int, error: BaseException) -> None:
        """It failed for good."""
        for stage in _END:
            await self._tell(message, attempt, error, stage, will_retry=False)

    def later(self, message: Message, attempt: int, error: BaseException) -> None:
        """It failed for good, and who knows that cannot wait: it is told in a task of its own."""
        task = asyncio.get_running_loop().create_task(self.ended(message, attempt, error))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def told(self) -> None:
        """Until `later` has told everything."""
        await asyncio.sleep(0)  # callbacks of futures that just ended
        if self._telling:
            await asyncio.wait(set(self._telling))

    async def aclose(self, seconds: float, hurry: asyncio.Future[None]) -> None:
        """The same for so many seconds, or until somebody is in a hurry; what then still hangs is cancelled."""
        told = asyncio.get_running_loop().create_task(self.told())
        await asyncio.wait({told, hurry}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({told}, timeout=_GRACE)
        told.cancel()
        if self._telling:
            _log.warning("on_failure hangs, and was cancelled for %d messages", len(self._telling))
        for task in self._telling:
            task.cancel()

    async def _tell(
        self, message: Message, attempt: int, error: BaseException, stage: FailureStage, *, will_retry: bool
    ) -> None:
        event = FailureEvent(
            message=message,
            position=None,
            group=None,
            attempt=attempt,
            error=error,
            stage=stage,
            policy=None,
            will_retry=will_retry,
            time=_EPOCH + timedelta(microseconds=self._clock().now_ns() // 1_000),
            attributes={SYSTEM: "kafka", CLIENT: self._client_id},
        )
        try:
            answer = self._on_failure(event)
            if inspect.isawaitable(answer):
                await answer
        except Exception:  # noqa: BLE001  (whatever it raises must not decide over a message)
            _log.exception("on_failure raised; the message goes its way all the same")
