"""How a subscription on Kafka reads: the options of groups, and of one partition with checkpoints of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from headrace.core.broker import SubscribeOptions
from headrace.core.duration import Duration, seconds_of
from headrace.core.errors import ConfigError
from headrace.core.message import Message
from headrace.flow.retry import RetryPolicy
from headrace.kafka.stores import MemoryOffsetStore, OffsetStore

__all__ = [
    "GroupProtocol",
    "Isolation",
    "KafkaPartitionOptions",
    "KafkaReadOptions",
    "KafkaSubscribeOptions",
    "OutOfRange",
    "read_options",
]

Isolation = Literal["read_committed", "read_uncommitted"]
OutOfRange = Literal["stop", "earliest", "latest"]
GroupProtocol = Literal["cooperative", "eager", "consumer"]

_MIB = 1024 * 1024
_SESSION = 45.0
_LONGEST_SESSION = 3_600.0
_LONGEST_POLL = 86_400.0
"""The driver's own limits."""


@dataclass(frozen=True, kw_only=True)
class KafkaReadOptions(SubscribeOptions):
    """What groups and single partitions have in common.

    ``isolation``: whether records of open and aborted transactions are seen. ``on_out_of_range``: what happens at an
    offset that the broker does not have (any more): ``stop`` raises ``OffsetOutOfRangeError``, the others log a
    warning and go on there. ``max_span``, ``max_span_bytes``: records held per partition, and their bytes, before it
    is paused. ``key_extractor(message)``: the order key; where it answers nothing the record's key. ``order_keyless``:
    records of one partition without a key keep their order. ``commit_interval``: between commits, or saves.
    """

    isolation: Isolation = "read_committed"
    on_out_of_range: OutOfRange = "stop"
    max_span: int = 8_192
    max_span_bytes: int = 64 * _MIB
    key_extractor: Callable[[Message], bytes | str | None] | None = None
    order_keyless: bool = False
    commit_interval: Duration = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_choice(self, "isolation", Isolation)
        _check_choice(self, "on_out_of_range", OutOfRange)
        _check_count(self, "max_span", least=1)
        _check_count(self, "max_span_bytes", least=1)
        if self.key_extractor is not None and not callable(self.key_extractor):
            raise ConfigError(f"key_extractor must be callable, got {self.key_extractor!r}")
        if not isinstance(self.order_keyless, bool):
            raise ConfigError(f"order_keyless must be a bool, got {self.order_keyless!r}")
        seconds_of(self.commit_interval, "commit_interval", least=0.001)

    def seconds(self, name: str) -> float:
        """A length of time of these options, in seconds."""
        length: Any = getattr(self, name)
        return seconds_of(length, name)


@dataclass(frozen=True, kw_only=True)
class KafkaSubscribeOptions(KafkaReadOptions):
    """How to read as a member of a group (``group=None``: all partitions, alone).

    ``group_instance_id``: a static member keeps its partitions over a restart. ``group_protocol``: ``cooperative``,
    ``eager`` beside members that know nothing else, ``consumer`` (KIP-848, Kafka 4). ``drain_timeout``: longest wait
    for running handlers when partitions are taken away; ``max_poll_interval``: after it the broker takes a silent
    member for dead, so it must be longer. ``session_timeout``: until a lost member is given up; default 45 s, at most
    ``max_poll_interval``; with ``consumer`` it is the broker's own.
    """

    group_instance_id: str | None = None
    group_protocol: GroupProtocol = "cooperative"
    drain_timeout: Duration = 30.0
    max_poll_interval: Duration = 300.0
    session_timeout: Duration | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_choice(self, "group_protocol", GroupProtocol)
        instance = self.group_instance_id
        if instance is not None and (not isinstance(instance, str) or not instance or not instance.isprintable()):
            raise ConfigError(f"group_instance_id must be printable text that is not empty, got {instance!a}")
        drain = seconds_of(self.drain_timeout, "drain_timeout")
        longest = seconds_of(self.max_poll_interval, "max_poll_interval", least=0.001, most=_LONGEST_POLL)
        if drain >= longest:
            raise ConfigError(f"drain_timeout must be under max_poll_interval ({longest:g} s), got {drain:g} s")
        if self.session_timeout is None:
            return
        session = seconds_of(self.session_timeout, "session_timeout", least=0.001, most=_LONGEST_SESSION)
        if self.group_protocol == "consumer":
            raise ConfigError(f'session_timeout is the broker\'s with group_protocol="consumer", got {session:g} s')
        if session > longest:
            raise ConfigError(f"session_timeout must not be over max_poll_interval ({longest:g} s), got {session:g} s")

    @property
    def session_seconds(self) -> float:
        """The session's length; with ``group_protocol="consumer"`` it has no meaning."""
        if self.session_timeout is None:
            return min(_SESSION, self.seconds("max_poll_interval"))
        return self.seconds("session_timeout")


@dataclass(frozen=True, kw_only=True)
class KafkaPartitionOptions(KafkaReadOptions):
    """How to read one partition without a group, from checkpoints of one's own.

    ``partition``: its number. ``offset_store``: where the next offset is kept. ``reconnect``: the waits after failures
    that may pass; it goes on for ever, so ``max_attempts`` and ``max_deliveries`` are a ``ConfigError``.
    """

    partition: int
    offset_store: OffsetStore = field(default_factory=MemoryOffsetStore)
    reconnect: RetryPolicy = RetryPolicy(initial=0.2, maximum=5.0, jitter=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group is not None:
            raise ConfigError(f"group must be None where one partition is read, got {self.group!r}")
        _check_count(self, "partition", least=0)
        if not isinstance(self.offset_store, OffsetStore):
            raise ConfigError(f"offset_store must have load and save, got {self.offset_store!r}")
        if not isinstance(self.reconnect, RetryPolicy):
            raise ConfigError(f"reconnect must be a RetryPolicy, got {self.reconnect!r}")
        for name in ("max_attempts", "max_deliveries"):
            if getattr(self.reconnect, name) is not None:
                raise ConfigError(f"reconnect goes on for ever, got {name}={getattr(self.reconnect, name)!r}")


def read_options(options: SubscribeOptions) -> KafkaSubscribeOptions | KafkaPartitionOptions:
    """These options as one of the two kinds here: a plain `SubscribeOptions` counts as `KafkaSubscribeOptions`."""
    if isinstance(options, KafkaSubscribeOptions | KafkaPartitionOptions):
        return options
    given = {each.name: getattr(options, each.name) for each in dataclasses.fields(options)}
    try:
        return KafkaSubscribeOptions(**given)
    except TypeError:
        raise ConfigError(f"subscribe must be KafkaSubscribeOptions, got {type(options).__name__}") from None


def _check_choice(options: object, name: str, choices: Any) -> None:
    value = getattr(options, name)
    if not isinstance(value, str) or value not in get_args(choices):
        raise ConfigError(f"{name} must be one of {', '.join(get_args(choices))}, got {value!r}")


def _check_count(options: object, name: str, *, least: int) -> None:
    value = getattr(options, name)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name} must be an integer >= {least}, got {value!r}")
