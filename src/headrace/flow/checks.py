"""What a worker checks before it does anything: topics, group, options, policies, against the engine's capabilities."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from headrace.core.broker import Broker, Capabilities, Groups, KeyOrder, SubscribeOptions
from headrace.core.errors import ConfigError, UnsupportedError
from headrace.core.message import check_topic
from headrace.flow.judge import BLOCK, DeadLetter, Ending, OnExhausted
from headrace.flow.keyed import Ordering
from headrace.flow.retry import RetryPolicy

__all__ = [
    "capabilities_of",
    "check_policies",
    "check_target",
    "checked_options",
    "checked_topics",
    "covers",
    "has_wildcard",
]

_LEAST_HELD = 256


def capabilities_of(broker: Broker) -> Capabilities:
    """What it promises. ``ConfigError`` for what is no broker, an address for example."""
    capabilities = getattr(broker, "capabilities", None)
    if not isinstance(capabilities, Capabilities):
        raise ConfigError(f"broker must be a Broker, got {broker!r}")
    return capabilities


def checked_topics(topics: str | Sequence[str], capabilities: Capabilities) -> tuple[str, ...]:
    """The topics; ``ConfigError`` for none, two equal ones or a bad name, ``UnsupportedError`` for wildcards."""
    names = (topics,) if isinstance(topics, str) else tuple(topics)
    if not names:
        raise ConfigError("topics must name at least one topic, got ()")
    for name in names:
        check_topic(name, wildcards=True)
        if has_wildcard(name) and not capabilities.wildcards:
            raise UnsupportedError(f"this engine has no wildcards: {name!r}")
    if len(set(names)) < len(names):
        raise ConfigError(f"topics must differ, got {names!r}")
    return names


def checked_options(
    subscribe: SubscribeOptions, group: str | None, concurrency: int, capabilities: Capabilities
) -> SubscribeOptions:
    """The options to subscribe with: group and ``max_in_flight`` filled in, all of it checked."""
    if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
        raise ConfigError(f"concurrency must be an integer >= 1, got {concurrency!r}")
    if group is not None and subscribe.group is not None and group != subscribe.group:
        raise ConfigError(f"group is {group!r}, but subscribe.group is {subscribe.group!r}")
    held = subscribe.max_in_flight
    if held is not None and held < concurrency:
        raise ConfigError(f"max_in_flight must be >= concurrency ({concurrency}), got {held}")
    options = dataclasses.replace(
        subscribe,
        group=group if group is not None else subscribe.group,
        max_in_flight=held if held is not None else max(_LEAST_HELD, 4 * concurrency),
    )
    if options.group is None and not capabilities.broadcast:
        raise UnsupportedError("this engine has no private subscriptions: give a group")
    if options.group is not None and capabilities.groups is Groups.NONE:
        raise UnsupportedError(f"this engine has no groups, got {options.group!r}")
    if options.lease is not None and not capabilities.extend:
        raise UnsupportedError(f"this engine has no leases, got lease={options.lease!r}")
    # Without a group it is for the engine to say: one partition of Kafka can begin where no group can.
    if options.group is not None and options.start is not None and options.start.kind not in capabilities.replay:
        raise UnsupportedError(f"this engine cannot start a group at {options.start.kind.value!r}")
    return options


def check_policies(
    ordering: Ordering, retry: RetryPolicy, on_exhausted: OnExhausted | None, capabilities: Capabilities
) -> None:
    """Retry, ending and ordering must fit each other and the engine."""
    if not isinstance(ordering, Ordering):
        raise ConfigError(f"ordering must be Ordering.KEY, NONE or TOTAL, got {ordering!r}")
    if on_exhausted is not None and not isinstance(on_exhausted, DeadLetter | Ending):
        raise ConfigError(f"on_exhausted must be DeadLetter(), DROP, BLOCK or STOP, got {on_exhausted!r}")
    if on_exhausted is None and (retry.max_attempts is not None or retry.max_deliveries is not None):
        raise ConfigError("retries that end need on_exhausted=DeadLetter(), DROP, BLOCK or STOP")
    if on_exhausted is BLOCK and ordering is Ordering.NONE:
        raise ConfigError("BLOCK holds up the messages of a key: not with Ordering.NONE")
    if ordering is Ordering.KEY and capabilities.key_order is KeyOrder.NONE:
        raise UnsupportedError("this engine keeps no order by key: use Ordering.NONE")
    if retry.max_deliveries is not None and not capabilities.counts:
        raise UnsupportedError("this engine does not count deliveries: max_deliveries cannot be kept")


def check_target(policy: DeadLetter, topics: Sequence[str], broker: Broker) -> None:
    """A dead letter must not come back to the worker that wrote it."""
    if policy.broker is not None and policy.broker is not broker:
        return
    for topic in topics:
        target = policy.target(topic)
        for source in topics:
            if covers(source, target):
                raise ConfigError(f"the dead-letter topic {target!r} is read by this worker ({source!r})")


def has_wildcard(topic: str) -> bool:
    """Whether a topic to subscribe to is a pattern."""
    return "*" in topic or ">" in topic


def covers(pattern: str, topic: str) -> bool:
    """Whether messages of `topic` (it may be a pattern itself) can match `pattern`."""
    ours, theirs = pattern.split("."), topic.split(".")
    for index, token in enumerate(ours):
        if token == ">":
            return len(theirs) > index
        if index >= len(theirs) or (token not in ("*", theirs[index]) and theirs[index] not in ("*", ">")):
            return False
        if theirs[index] == ">":
            return True
    return len(theirs) == len(ours)
