"""Every error that headrace raises on purpose, as one tree.

HeadraceError
├ ConfigError                 a value is wrong; raised at construction, names the value
├ UsageError                  the call is wrong at this moment
│ ├ AlreadySettledError
│ └ ClosedError
├ UnsupportedError            the engine cannot do what was asked
├ BrokerError
│ ├ ConnectionLostError
│ ├ BrokerTimeoutError        also a TimeoutError
│ └ PublishError
│   ├ PublishInterruptedError
│   └ PublishTimeoutError     also a BrokerTimeoutError
├ CodecError
├ HandlerError
│ ├ RejectError               raised by a handler on purpose: never again
│ └ RetryLaterError           raised by a handler on purpose: not now
└ StoreError

The class docstring is the default message. A cause is always chained (``raise … from cause``);
no exception of a driver escapes. Engines add classes below these, never beside them.
"""

from __future__ import annotations

import math
from datetime import timedelta
from enum import Enum
from typing import Any

__all__ = [
    "AlreadySettledError",
    "BrokerError",
    "BrokerTimeoutError",
    "ClosedError",
    "CodecError",
    "ConfigError",
    "ConnectionLostError",
    "Fault",
    "HandlerError",
    "HeadraceError",
    "PublishError",
    "PublishInterruptedError",
    "PublishTimeoutError",
    "RejectError",
    "RetryLaterError",
    "StoreError",
    "UnsupportedError",
    "UsageError",
]


class Fault(Enum):
    """What a failed publish means for the message."""

    REJECTED = "rejected"
    """This message, for good: sending it again cannot help."""
    UNAVAILABLE = "unavailable"
    """Nothing about the message; it is certainly not stored."""
    UNKNOWN = "unknown"
    """It may be stored. Send it again under the same id."""


class HeadraceError(Exception):
    """Something went wrong in headrace."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(args or (_default_message(type(self)),)))


class ConfigError(HeadraceError, ValueError):
    """A value given to headrace is wrong."""


class UsageError(HeadraceError, RuntimeError):
    """This call is not allowed here or now."""


class AlreadySettledError(UsageError):
    """The delivery was settled before."""


class ClosedError(UsageError):
    """The object was closed before."""


class UnsupportedError(HeadraceError, NotImplementedError):
    """The engine cannot do this."""


class BrokerError(HeadraceError):
    """The broker failed."""


class ConnectionLostError(BrokerError):
    """The connection to the broker was lost."""


class BrokerTimeoutError(BrokerError, TimeoutError):
    """The broker did not answer in time."""


class PublishError(BrokerError):
    """The message was not published.

    ``fault`` says what that means for the message, ``message_id`` which one it was, ``limit`` (bytes or messages)
    the limit it went over, where there is one.
    """

    fault: Fault = Fault.UNKNOWN

    def __init__(
        self,
        reason: str = "",
        *,
        message_id: str | None = None,
        limit: int | None = None,
        fault: Fault | None = None,
        **further: Any,
    ) -> None:
        super().__init__(*((reason,) if reason else ()), **further)
        self.message_id = message_id
        self.limit = limit
        if fault is not None:
            self.fault = fault


class PublishInterruptedError(PublishError):
    """The publish was interrupted; the message may be stored."""


class PublishTimeoutError(PublishError, BrokerTimeoutError):
    """No receipt came in time; the message may be stored."""


class CodecError(HeadraceError):
    """A body could not be encoded or decoded. The message never shows the body."""


class HandlerError(HeadraceError):
    """A handler failed."""


class RejectError(HandlerError):
    """The handler says: this message can never succeed."""

    def __init__(self, reason: str = "rejected by the handler") -> None:
        super().__init__(reason)
        self.reason = reason


class RetryLaterError(HandlerError):
    """The handler says: not now, again after ``delay``."""

    def __init__(self, delay: timedelta | float, reason: str = "") -> None:
        seconds = delay.total_seconds() if isinstance(delay, timedelta) else float(delay)
        if not math.isfinite(seconds) or seconds < 0:
            raise ConfigError(f"delay must be a timedelta or seconds >= 0, got {delay!r}")
        super().__init__(reason or f"retry in {seconds:g} s")
        self.delay = timedelta(seconds=seconds)
        self.reason = reason


class StoreError(HeadraceError):
    """A store on disk cannot be used. ``retryable``: the same may work later."""

    retryable: bool = False


def _default_message(cls: type[BaseException]) -> str:
    return (cls.__doc__ or cls.__name__).partition("\n")[0].strip()
