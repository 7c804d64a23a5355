"""Logging: one DEBUG line per message, and a log level and trace id that travel with it.

``send()`` carries them from context variables into headers, ``receive()`` back around the handler. Failures are logged
by the worker's judge. Never the body.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from headrace.core.broker import Receipt
from headrace.core.clock import current_clock
from headrace.core.delivery import Delivery
from headrace.core.errors import PublishError
from headrace.core.message import Message
from headrace.flow.compose import SendMany, send_changed
from headrace.flow.letter import one_line

__all__ = ["LEVEL_HEADER", "TRACE_HEADER", "CarriedLevelFilter", "carried_level", "receive", "send", "trace_id"]

LEVEL_HEADER = "Headrace-Log-Level"
TRACE_HEADER = "Headrace-Trace-Id"
_LEVELS = frozenset({"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"})
_log = logging.getLogger("headrace.messages")

carried_level: ContextVar[str | None] = ContextVar("headrace_log_level", default=None)
"""The level that what is sent from here carries: one of the five names, else nothing."""
trace_id: ContextVar[str | None] = ContextVar("headrace_trace_id", default=None)
"""The id that what is sent from here carries."""


class CarriedLevelFilter(logging.Filter):
    """Lets one message log at the level it carries: put the logger's own level to DEBUG and this on the handler.

    A record passes at `level` (default INFO) or above, or at the carried level or above.
    """

    def __init__(self, level: int = logging.INFO) -> None:
        super().__init__()
        self._level = level

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record passes."""
        carried = carried_level.get()
        level = logging.getLevelNamesMapping()[carried] if carried in _LEVELS and carried else self._level
        return record.levelno >= min(level, self._level)


def send(
    logger: logging.Logger = _log, *, level_header: str = LEVEL_HEADER, trace_header: str = TRACE_HEADER
) -> SendLogging:
    """Middleware for sending. Headers that the message has already win."""
    return SendLogging(logger, level_header, trace_header)


def receive(
    logger: logging.Logger = _log,
    headers: Sequence[str] = (),
    *,
    level_header: str = LEVEL_HEADER,
    trace_header: str = TRACE_HEADER,
) -> ReceiveLogging:
    """Middleware for receiving; `headers` names those that may be logged."""
    return ReceiveLogging(logger, tuple(headers), level_header, trace_header)


class SendLogging:
    """See `send`."""

    def __init__(self, logger: logging.Logger, level_header: str, trace_header: str) -> None:
        self._logger = logger
        self._level_header = level_header
        self._trace_header = trace_header

    async def __call__(self, message: Message, call_next: Callable[[Message], Awaitable[Receipt]]) -> Receipt:
        """Send one."""
        began = current_clock().monotonic()
        receipt = await call_next(self._carry(message))
        self._say(message, receipt, began)
        return receipt

    async def many(self, messages: Sequence[Message], call_next: SendMany) -> list[Receipt | PublishError]:
        """Send a batch."""
        began = current_clock().monotonic()
        results = await send_changed(messages, self._carry, call_next)
        for message, result in zip(messages, results, strict=True):
            if isinstance(result, Receipt):
                self._say(message, result, began)
        return results

    def _carry(self, message: Message) -> Message:
        headers = message.headers
        level, trace = carried_level.get(), trace_id.get()
        if level in _LEVELS and level and self._level_header not in headers:
            headers = headers.add(self._level_header, level)
        if trace and self._trace_header not in headers:
            headers = headers.add(self._trace_header, one_line(trace))
        return message if headers is message.headers else message.replace(headers=headers)

    def _say(self, message: Message, receipt: Receipt, began: float) -> None:
        if self._logger.isEnabledFor(logging.DEBUG):
            took = (current_clock().monotonic() - began) * 1_000
            facts = "".join(f" {name}={one_line(str(value))}" for name, value in receipt.attributes().items())
            self._logger.debug("sent %s %s in %.1f ms%s", one_line(message.topic), one_line(message.id), took, facts)


class ReceiveLogging:
    """See `receive`."""

    def __init__(self, logger: logging.Logger, headers: tuple[str, ...], level_header: str, trace_header: str) -> None:
        self._logger = logger
        self._headers = headers
        self._level_header = level_header
        self._trace_header = trace_header

    async def __call__(self, delivery: Delivery, call_next: Callable[[Delivery], Awaitable[None]]) -> None:
        """Run the handler with what the message carries."""
        headers = delivery.message.headers
        level = headers.get(self._level_header)
        with _set(carried_level, level if level in _LEVELS else None), _set(trace_id, self._trace(delivery)):
            began = current_clock().monotonic()
            await call_next(delivery)
            if self._logger.isEnabledFor(logging.DEBUG):
                self._say(delivery, (current_clock().monotonic() - began) * 1_000)

    def _trace(self, delivery: Delivery) -> str | None:
        trace = delivery.message.headers.get(self._trace_header)
        return None if trace is None else one_line(trace)

    def _say(self, delivery: Delivery, took: float) -> None:
        message = delivery.message
        facts = [*delivery.attributes().items()]
        facts += [(name, message.headers.get(name) or "") for name in self._headers if name in message.headers]
        said = "".join(f" {one_line(name)}={one_line(str(value))}" for name, value in facts)
        where, which = one_line(message.topic), one_line(message.id)
        self._logger.debug("processed %s %s attempt %d in %.1f ms%s", where, which, delivery.attempt, took, said)


@contextmanager
def _set(variable: ContextVar[str | None], value: str | None) -> Generator[None, None, None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)
