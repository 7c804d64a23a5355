"""EmbeddedOptions: how a store is opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Any

from headrace.core.duration import Duration, seconds_of
from headrace.core.errors import ConfigError, PublishError
from headrace.streams.config import StreamMessage

__all__ = ["Durability", "EmbeddedOptions"]

MIB = 1024 * 1024


class Durability(Enum):
    """What a receipt promises."""

    FSYNC = "fsync"
    """The message is on disk: nothing that was acknowledged is lost, not even with the power."""
    RELAXED = "relaxed"
    """It survives the death of the process; a power cut takes at most the last `relaxed_window`."""


@dataclass(frozen=True, kw_only=True)
class EmbeddedOptions:
    """How a store is opened. A wrong value is a ``ConfigError`` that names the field and the value.

    ``timeout``: longest wait of a publish or management call for its commit. ``max_pending_bytes``: accepted and not
    committed; above it `publish` waits. ``max_pending``, ``stall_wait``, ``on_publish_error``: of `publish_async`.
    ``ack_flush``: longest time a plain ack stays in memory only. ``reserve_bytes``: a file given back to a full disk so
    that purge and retention still work (0 = none). ``check_rows``: verify the checksum of every message read.
    ``secure_delete``: whether a store that is made overwrites what is deleted; an existing one keeps what it was made
    with.
    """

    durability: Durability = Durability.FSYNC
    relaxed_window: Duration = timedelta(milliseconds=100)
    read_only: bool = False
    create: bool = True
    max_payload: int = MIB
    max_pending_bytes: int = 64 * MIB
    timeout: Duration = timedelta(seconds=30)
    max_pending: int = 4000
    stall_wait: Duration | None = None
    on_publish_error: Callable[[StreamMessage, PublishError], None] | None = None
    ack_flush: Duration = timedelta(milliseconds=50)
    reserve_bytes: int = 16 * MIB
    check_rows: bool = True
    secure_delete: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.durability, Durability):
            raise ConfigError(f"durability must be a Durability, got {self.durability!r}")
        for name in ("read_only", "create", "check_rows", "secure_delete"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} must be a bool, got {getattr(self, name)!r}")
        self._check_lengths_of_time()
        self._check_counts()
        if self.on_publish_error is not None and not callable(self.on_publish_error):
            raise ConfigError(f"on_publish_error must be callable, got {self.on_publish_error!r}")

    def _check_lengths_of_time(self) -> None:
        for name, least, most in (
            ("relaxed_window", 0.001, 60.0),
            ("timeout", 0.001, 86_400.0),
            ("ack_flush", 0.001, 10.0),
            ("stall_wait", 0.0, 86_400.0),
        ):
            value: Any = getattr(self, name)  # None is refused as any other wrong value
            if name != "stall_wait" or value is not None:
                # frozen for the user; here each length of time gets its one form
                length = timedelta(seconds=seconds_of(value, name, least=least, most=most))
                object.__setattr__(self, name, length)

    def _check_counts(self) -> None:
        for name, least, most in (
            ("max_payload", 1, 64 * MIB),
            ("max_pending_bytes", self.max_payload, 1 << 60),
            ("max_pending", 1, 1 << 60),
            ("reserve_bytes", 0, 1 << 60),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise ConfigError(f"{name} must be an integer in {least}..{most}, got {value!r}")
        if 0 < self.reserve_bytes < MIB:
            raise ConfigError(f"reserve_bytes must be 0 or at least {MIB}, got {self.reserve_bytes!r}")

    def seconds(self, name: str) -> float:
        """A length of time of these options, in seconds."""
        length: Any = getattr(self, name)
        return seconds_of(length, name)
