"""Nothing that was set is silently dropped: options too new for the server are refused, others must come back (3.3.4).

Servers before 2.12 ignore a field that they do not know; later ones refuse it (10025).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from headrace.core.errors import UnsupportedError
from headrace.jetstream.protocol.configs import CONSUMER_NAMES, SERVERS_OWN, STREAM_NAMES
from headrace.jetstream.protocol.values import time
from headrace.nats.info import ServerInfo
from headrace.streams.config import ConsumerConfig, PriorityPolicy, StreamConfig
from headrace.streams.errors import StreamError

__all__ = [
    "BATCH_GET",
    "MESSAGE_TTL",
    "dropped_of_consumer",
    "dropped_of_stream",
    "may_get_lost",
    "not_kept",
    "require_known",
]

Version = tuple[int, int]

MESSAGE_TTL: Version = (2, 11)
BATCH_GET: Version = (2, 11)
_STREAM_SINCE: dict[str, Version] = {
    "allow_message_ttl": MESSAGE_TTL,
    "subject_delete_marker_ttl": MESSAGE_TTL,
    "allow_atomic": (2, 12),
    "allow_message_counter": (2, 12),
    "allow_message_schedules": (2, 12),
    "allow_batched": (2, 14),
}
_CONSUMER_SINCE: dict[str, Version] = {
    "pause_until": (2, 11),
    "priority_groups": (2, 11),
    "pinned_ttl": (2, 11),
}
_PRIORITIZED: Version = (2, 12)
_SEALED = ("max_age", "discard", "deny_delete", "deny_purge")
"""What a server sets by itself in a sealed stream: nothing comes and nothing goes there any more."""


def require_known(config: StreamConfig | ConsumerConfig, server: ServerInfo) -> None:
    """``UnsupportedError`` for an option that this server is too old for."""
    since = _STREAM_SINCE if isinstance(config, StreamConfig) else _CONSUMER_SINCE
    needs = [(name, version) for name, version in since.items() if getattr(config, name)]
    if isinstance(config, ConsumerConfig) and config.priority_policy is PriorityPolicy.PRIORITIZED:
        needs.append(("priority_policy", _PRIORITIZED))
    for name, (major, minor) in needs:
        if server.version_tuple[:2] < (major, minor):
            value = getattr(config, name)
            raise UnsupportedError(f"{name} needs nats-server {major}.{minor}, this is {server.version}: got {value!r}")


def dropped_of_stream(sent: dict[str, Any], got: dict[str, Any]) -> list[str]:
    """The options of a stream that did not come back as they were sent."""
    by_itself = _SEALED if sent.get("sealed") else ()
    return _dropped({name: value for name, value in sent.items() if name not in by_itself}, got, STREAM_NAMES)


def dropped_of_consumer(sent: dict[str, Any], got: dict[str, Any]) -> list[str]:
    """The options of a consumer that did not come back as they were sent."""
    return _dropped(sent, got, CONSUMER_NAMES)


def may_get_lost(config: StreamConfig | ConsumerConfig) -> bool:
    """Whether servers are known to take an option of it and not to keep it, which only the answer tells.

    What they do not know, and ``mirror_direct``, which they set as the origin has it. Whoever makes such a one looks
    first whether it is there: the answer to a create does not say whether it made anything.
    """
    return bool(config.extra) or (isinstance(config, StreamConfig) and config.mirror_direct)


def not_kept(dropped: list[str], what: str, *, deleted: bool) -> UnsupportedError:
    """What to raise for options that did not come back, and what became of `what`, ``stream 'S'``."""
    end = "it was deleted again" if deleted else "it is as the server has it now"
    return UnsupportedError(f"the server did not keep {', '.join(dropped)} of {what}: {end}")


def _dropped(sent: dict[str, Any], got: dict[str, Any], names: Mapping[str, str]) -> list[str]:
    return [names.get(name, name) for name, value in sent.items() if not _kept(value, got.get(name))]


def _kept(sent: object, got: object) -> bool:
    """Whether it came back. A server may say more than it was told, and a time in another form."""
    if sent == got:
        return True
    if isinstance(sent, dict):
        parts, there = cast("dict[str, Any]", sent), cast("dict[str, Any]", got if isinstance(got, dict) else {})
        return all(
            name.startswith(SERVERS_OWN) or _kept(value, there.get(name)) or (value == "" and name not in there)
            for name, value in parts.items()
        )
    if isinstance(sent, list) and isinstance(got, list):
        ours, theirs = cast("list[object]", sent), cast("list[object]", got)
        return len(ours) == len(theirs) and all(map(_kept, ours, theirs))
    return isinstance(sent, str) and isinstance(got, str) and _same_time(sent, got)


def _same_time(sent: str, got: str) -> bool:
    try:
        return time(sent, "") == time(got, "")
    except StreamError:
        return False
