"""Events: tells the log and ``on_failure`` what went wrong, before the worker acts on it."""

from __future__ import annotations

import inspect
import logging
from datetime import UTC, datetime, timedelta

from headrace.core.clock import Clock
from headrace.core.delivery import Delivery
from headrace.flow.judge import FailureEvent, FailureStage, OnExhausted, OnFailure
from headrace.flow.letter import one_line

__all__ = ["Events"]

_log = logging.getLogger("headrace.worker")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SAID = {
    FailureStage.RETRY: (logging.WARNING, "failed"),
    FailureStage.EXHAUSTED: (logging.ERROR, "is out of attempts"),
    FailureStage.DEAD_LETTER: (logging.INFO, "was dead-lettered"),
    FailureStage.DROP: (logging.WARNING, "is dropped"),
    FailureStage.STOP: (logging.ERROR, "stops the worker"),
}


class Events:
    """Where failures are told. What `on_failure` raises is logged and changes nothing."""

    def __init__(self, clock: Clock, policy: OnExhausted | None, on_failure: OnFailure | None) -> None:
        self._clock = clock
        self._policy = policy
        self._on_failure = on_failure

    async def tell(
        self,
        delivery: Delivery,
        error: BaseException,
        stage: FailureStage,
        *,
        will_retry: bool = False,
        delay: float | None = None,
    ) -> None:
        """Log it, and run ``on_failure``."""
        level, said = _SAID[stage]
        if stage is FailureStage.DEAD_LETTER and will_retry:
            level, said = logging.WARNING, "could not be dead-lettered"
        if delay is not None:
            said = f"{said}, again in {delay:.3g} s"
        self.log(level, said, delivery, error)
        if self._on_failure is not None:
            await self._call(self._on_failure, self._event(delivery, error, stage, will_retry=will_retry))

    def log(self, level: int, said: str, delivery: Delivery, error: BaseException) -> None:
        """One line: what, which message, why. Never the body."""
        if not _log.isEnabledFor(level):
            return
        message = delivery.message
        _log.log(
            level,
            "%s %s attempt %d %s: %s: %s",
            one_line(message.topic),
            one_line(message.id),
            delivery.attempt,
            said,
            type(error).__name__,
            one_line(str(error)),
            exc_info=error if level >= logging.ERROR else None,
        )

    def _event(
        self, delivery: Delivery, error: BaseException, stage: FailureStage, *, will_retry: bool
    ) -> FailureEvent:
        return FailureEvent(
            message=delivery.message,
            position=delivery.position,
            group=delivery.group,
            attempt=delivery.attempt,
            error=error,
            stage=stage,
            policy=self._policy,
            will_retry=will_retry,
            time=_EPOCH + timedelta(microseconds=self._clock.now_ns() // 1_000),
            attributes=delivery.attributes(),
        )

    @staticmethod
    async def _call(on_failure: OnFailure, event: FailureEvent) -> None:
        try:
            answer = on_failure(event)
            if inspect.isawaitable(answer):
                await answer
        except Exception:  # noqa: BLE001  (whatever it raises must not decide over a message)
            _log.exception("on_failure raised; the message goes its way all the same")
