"""RetryPolicy: which attempt waits how long. A pure schedule; it holds no state and draws no random number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from headrace.core.duration import Duration, seconds_of
from headrace.core.errors import ConfigError

__all__ = ["RetryPolicy"]

_LARGEST_POWER = 700.0  # e**709 is the largest float


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Wait ``initial * multiplier ** (attempt - 1)``, at most ``maximum``, after the failed run number ``attempt``.

    ``max_attempts``: runs in all (1 = no retry; default: for ever). ``initial`` (1 s), ``multiplier`` (2), ``maximum``
    (60 s). ``jitter`` (0.2): up to this part of the wait is taken off, at random. ``schedule``: the waits themselves,
    the last one repeats; it replaces the three above. ``max_deliveries``: a message handed out more often than this
    is not run at all (it may be what kills the process). ``ConfigError`` for values that make no sense.
    """

    max_attempts: int | None = None
    initial: Duration = 1.0
    multiplier: float = 2.0
    maximum: Duration = 60.0
    jitter: float = 0.2
    schedule: Sequence[Duration] | None = None
    max_deliveries: int | None = None

    def __post_init__(self) -> None:
        _check_count(self.max_attempts, "max_attempts")
        _check_count(self.max_deliveries, "max_deliveries")
        initial, maximum = seconds_of(self.initial, "initial"), seconds_of(self.maximum, "maximum")
        if initial > maximum:
            raise ConfigError(f"initial must not be over maximum ({maximum:g} s), got {self.initial!r}")
        if not _is_number(self.multiplier) or not 1 <= self.multiplier < math.inf:
            raise ConfigError(f"multiplier must be >= 1, got {self.multiplier!r}")
        if not _is_number(self.jitter) or not 0 <= self.jitter <= 1:
            raise ConfigError(f"jitter must be 0..1, got {self.jitter!r}")
        if self.schedule is not None:
            if isinstance(self.schedule, str | bytes) or not len(self.schedule):
                raise ConfigError(f"schedule must name at least one wait, got {self.schedule!r}")
            object.__setattr__(self, "schedule", tuple(self.schedule))  # the caller's list may change later
            for wait in self.schedule:
                seconds_of(wait, "schedule")

    def delay(self, attempt: int, u: float = 0.0) -> timedelta | None:
        """How long to wait after the failed run `attempt` (from 1); ``None`` = that was the last one.

        `u` in [0, 1) is the caller's random number for the jitter.
        """
        if self.max_attempts is not None and attempt >= self.max_attempts:
            return None
        return self.wait(attempt, u)

    def wait(self, attempt: int, u: float = 0.0) -> timedelta:
        """Like `delay`, but without an end: for what repeats for ever."""
        return timedelta(seconds=self._base(max(attempt, 1)) * (1 - self.jitter * u))

    def _base(self, attempt: int) -> float:
        if self.schedule is not None:
            return seconds_of(self.schedule[min(attempt, len(self.schedule)) - 1], "schedule")
        initial, maximum = seconds_of(self.initial, "initial"), seconds_of(self.maximum, "maximum")
        if initial == 0 or self.multiplier == 1:
            return initial
        # In logarithms: the power itself overflows long before attempt 10**9.
        power = (attempt - 1) * math.log(self.multiplier)
        if math.log(initial) + power >= math.log(maximum):
            return maximum
        if power > _LARGEST_POWER:
            return min(maximum, math.exp(math.log(initial) + power))
        return min(maximum, initial * self.multiplier ** (attempt - 1))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def _check_count(value: int | None, name: str) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ConfigError(f"{name} must be an integer >= 1 (1 = no retry), got {value!r}")
