"""Stream and consumer configs as the server's JSON, both ways, by one table of fields each.

A config that is read is taken as it is: another client may have made what ours would refuse, and one such stream must
not end a listing. Fields that are not in a table are kept in ``extra`` and sent back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from datetime import timedelta
from typing import Any, cast

from headrace.jetstream.protocol import values
from headrace.streams.config import (
    AckPolicy,
    Compression,
    ConsumerConfig,
    ConsumerLimits,
    DeliverPolicy,
    DiscardPolicy,
    ExternalStream,
    Placement,
    PriorityPolicy,
    ReplayPolicy,
    RePublish,
    RetentionPolicy,
    StorageType,
    StreamConfig,
    StreamSource,
    SubjectTransform,
)
from headrace.streams.errors import StreamError

__all__ = [
    "CONSUMER_NAMES",
    "SERVERS_OWN",
    "STREAM_NAMES",
    "consumer_config_from_json",
    "consumer_config_to_json",
    "stream_config_from_json",
    "stream_config_to_json",
]

SERVERS_OWN = "_nats."
"""Metadata keys that begin so are the server's."""
_NO_LIMIT = -1


@dataclass(frozen=True)
class _Kind:
    """How one value goes out and comes back. ``read`` gives ``None`` for "not set": the default stays."""

    write: Callable[[Any], Any]
    read: Callable[[object, str], Any]


@dataclass(frozen=True)
class _Field:
    attribute: str
    name: str
    kind: _Kind
    always: bool = False
    """Sent even where it is the default: what a server makes of silence is not ours."""


_Table = tuple[_Field, ...]


def _same(value: Any) -> Any:
    return value


def _count(value: object, where: str) -> int | None:
    """A limit: 0 and -1 say that there is none."""
    number = values.whole(value, where)
    return number if number > 0 else None


def _length(value: object, where: str) -> timedelta | None:
    length = values.length(value, where)
    return length if length > timedelta() else None


def _pending(value: object, where: str) -> int | None:
    """``max_ack_pending``: here -1 says "no limit" and 0 "the default", so that ``None`` must stay apart."""
    number = values.whole(value, where)
    return number or None


def _metadata(value: object, where: str) -> dict[str, str] | None:
    given = values.mapping(value, where)
    return {name: each for name, each in given.items() if not name.startswith(SERVERS_OWN)} or None


def _text(value: object, where: str) -> str | None:
    return values.text(value, where) or None


def _percent(value: object, where: str) -> int | None:
    given = values.text(value, where).removesuffix("%")
    if not given:
        return None
    if not (given.isascii() and given.isdigit()) or len(given) > len("100"):
        raise StreamError(f"{where} must be a percentage, got {given[:20]!r}")
    return int(given)


def _lengths_out(waits: Sequence[timedelta]) -> list[int]:
    return [values.ns_of(wait) for wait in waits]


def _word(kind: type[Any]) -> _Kind:
    return _Kind(lambda member: member.value, values.word(kind))


def _part(kind: type[Any], table: _Table, whole: Callable[[Any], Any] = _same) -> _Kind:
    """An object of its own; an empty one is none. ``whole`` is asked for the form that the wire has."""

    def read(value: object, where: str) -> Any:
        given = values.record(value, where)
        return _made(kind, table, given, where) if given else None

    return _Kind(lambda part: _written(whole(part), table), read)


def _parts(part: _Kind) -> _Kind:
    def read(value: object, where: str) -> tuple[Any, ...]:
        return tuple(part.read(each, where) for each in values.records(value, where) if each)

    return _Kind(lambda given: [part.write(each) for each in given], read)


def _with_external(source: StreamSource) -> StreamSource:
    """``domain`` is short for the API prefix of that domain."""
    if source.domain is None:
        return source
    return replace(source, domain=None, external=ExternalStream(api_prefix=f"$JS.{source.domain}.API"))


_TEXT = _Kind(_same, _text)
_TEXT_OR_EMPTY = _Kind(_same, values.text)
_FLAG = _Kind(_same, values.flag)
_COUNT = _Kind(_same, _count)
_TEXTS = _Kind(list, values.texts)
_LENGTH = _Kind(values.ns_of, _length)
_LENGTHS = _Kind(_lengths_out, values.lengths)
_TIME = _Kind(values.text_of_time, values.time)
_METADATA = _Kind(dict, _metadata)

_TRANSFORM: _Table = (_Field("source", "src", _TEXT_OR_EMPTY), _Field("destination", "dest", _TEXT))
_EXTERNAL: _Table = (_Field("api_prefix", "api", _TEXT), _Field("deliver_prefix", "deliver", _TEXT))
_REPUBLISH: _Table = (
    _Field("source", "src", _TEXT),
    _Field("destination", "dest", _TEXT),
    _Field("headers_only", "headers_only", _FLAG),
)
_PLACEMENT: _Table = (_Field("cluster", "cluster", _TEXT), _Field("tags", "tags", _TEXTS))
_LIMITS: _Table = (
    _Field("inactive_threshold", "inactive_threshold", _LENGTH),
    _Field("max_ack_pending", "max_ack_pending", _COUNT),
)
_A_TRANSFORM = _part(SubjectTransform, _TRANSFORM)
_SOURCE: _Table = (
    _Field("name", "name", _TEXT),
    _Field("start_sequence", "opt_start_seq", _COUNT),
    _Field("start_time", "opt_start_time", _TIME),
    _Field("filter_subject", "filter_subject", _TEXT),
    _Field("external", "external", _part(ExternalStream, _EXTERNAL)),
    _Field("subject_transforms", "subject_transforms", _parts(_A_TRANSFORM)),
)
_A_SOURCE = _part(StreamSource, _SOURCE, _with_external)
_STREAM: _Table = (
    _Field("name", "name", _TEXT),
    _Field("description", "description", _TEXT),
    _Field("subjects", "subjects", _TEXTS),
    _Field("retention", "retention", _word(RetentionPolicy), always=True),
    _Field("max_consumers", "max_consumers", _COUNT),
    _Field("max_messages", "max_msgs", _COUNT),
    _Field("max_bytes", "max_bytes", _COUNT),
    _Field("max_age", "max_age", _LENGTH),
    _Field("max_messages_per_subject", "max_msgs_per_subject", _COUNT),
    _Field("max_message_size", "max_msg_size", _COUNT),
    _Field("discard", "discard", _word(DiscardPolicy), always=True),
    _Field("discard_new_per_subject", "discard_new_per_subject", _FLAG),
    _Field("storage", "storage", _word(StorageType), always=True),
    _Field("duplicate_window", "duplicate_window", _LENGTH),
    _Field("sealed", "sealed", _FLAG),
    _Field("deny_delete", "deny_delete", _FLAG),
    _Field("deny_purge", "deny_purge", _FLAG),
    _Field("allow_rollup", "allow_rollup_hdrs", _FLAG),
    _Field("allow_direct", "allow_direct", _FLAG),
    _Field("metadata", "metadata", _METADATA),
    _Field("template_owner", "template_owner", _TEXT),
    _Field("no_ack", "no_ack", _FLAG),
    _Field("republish", "republish", _part(RePublish, _REPUBLISH)),
    _Field("replicas", "num_replicas", _COUNT),
    _Field("placement", "placement", _part(Placement, _PLACEMENT)),
    _Field("mirror", "mirror", _A_SOURCE),
    _Field("sources", "sources", _parts(_A_SOURCE)),
    _Field("mirror_direct", "mirror_direct", _FLAG),
    _Field("first_sequence", "first_seq", _COUNT),
    _Field("consumer_limits", "consumer_limits", _part(ConsumerLimits, _LIMITS)),
    _Field("allow_message_ttl", "allow_msg_ttl", _FLAG),
    _Field("allow_atomic", "allow_atomic", _FLAG),
    _Field("compression", "compression", _word(Compression)),
    _Field("subject_transform", "subject_transform", _A_TRANSFORM),
    _Field("subject_delete_marker_ttl", "subject_delete_marker_ttl", _LENGTH),
    _Field("allow_message_counter", "allow_msg_counter", _FLAG),
    _Field("allow_message_schedules", "allow_msg_schedules", _FLAG),
    _Field("allow_batched", "allow_batched", _FLAG),
)
_CONSUMER: _Table = (
    _Field("name", "name", _TEXT),
    _Field("durable", "durable_name", _TEXT),
    _Field("description", "description", _TEXT),
    _Field("deliver_policy", "deliver_policy", _word(DeliverPolicy), always=True),
    _Field("start_sequence", "opt_start_seq", _COUNT),
    _Field("start_time", "opt_start_time", _TIME),
    _Field("ack_policy", "ack_policy", _word(AckPolicy), always=True),
    _Field("ack_wait", "ack_wait", _LENGTH),
    _Field("max_deliver", "max_deliver", _COUNT),
    _Field("backoff", "backoff", _LENGTHS),
    _Field("filter_subject", "filter_subject", _TEXT),
    _Field("filter_subjects", "filter_subjects", _TEXTS),
    _Field("replay_policy", "replay_policy", _word(ReplayPolicy), always=True),
    _Field("rate_limit", "rate_limit_bps", _COUNT),
    _Field("max_waiting", "max_waiting", _COUNT),
    _Field("max_ack_pending", "max_ack_pending", _Kind(lambda most: most or _NO_LIMIT, _pending)),
    _Field("headers_only", "headers_only", _FLAG),
    _Field("max_request_batch", "max_batch", _COUNT),
    _Field("max_request_expires", "max_expires", _LENGTH),
    _Field("max_request_max_bytes", "max_bytes", _COUNT),
    _Field("inactive_threshold", "inactive_threshold", _LENGTH),
    _Field("memory_storage", "mem_storage", _FLAG),
    _Field("metadata", "metadata", _METADATA),
    _Field("replicas", "num_replicas", _COUNT),
    _Field("sample_frequency", "sample_freq", _Kind(str, _percent)),
    _Field("pause_until", "pause_until", _TIME),
    _Field("priority_groups", "priority_groups", _TEXTS),
    _Field("priority_policy", "priority_policy", _word(PriorityPolicy)),
    _Field("pinned_ttl", "priority_timeout", _LENGTH),
)
STREAM_NAMES = {field.name: field.attribute for field in _STREAM}
"""Wire name -> attribute."""
CONSUMER_NAMES = {field.name: field.attribute for field in _CONSUMER}
"""Wire name -> attribute."""


def stream_config_to_json(config: StreamConfig) -> dict[str, Any]:
    """What a server is sent: nothing that is not set. ``template_owner`` is never sent."""
    return _with_extra(_written(replace(config, template_owner=None), _STREAM), config.extra, _STREAM)


def stream_config_from_json(data: dict[str, Any]) -> StreamConfig:
    """What a server says; `StreamError` for nonsense."""
    config: StreamConfig = _made(StreamConfig, _STREAM, data, "stream config")
    return config


def consumer_config_to_json(config: ConsumerConfig) -> dict[str, Any]:
    """What a server is sent: nothing that is not set, one filter always as ``filter_subject``."""
    filters = config.filters
    config = replace(
        config,
        filter_subject=filters[0] if len(filters) == 1 else None,
        filter_subjects=filters if len(filters) > 1 else (),
    )
    return _with_extra(_written(config, _CONSUMER), config.extra, _CONSUMER)


def consumer_config_from_json(data: dict[str, Any]) -> ConsumerConfig:
    """What a server says; `StreamError` for nonsense."""
    config: ConsumerConfig = _made(ConsumerConfig, _CONSUMER, data, "consumer config")
    unlimited = data.get("max_ack_pending") == _NO_LIMIT
    if unlimited or (config.ack_policy is AckPolicy.NONE and not data.get("max_ack_pending")):
        object.__setattr__(config, "max_ack_pending", None)
    return config


def _defaults(kind: type[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in fields(kind):
        if each.default is not MISSING:
            found[each.name] = each.default
        elif each.default_factory is not MISSING:
            found[each.name] = each.default_factory()
    return found


def _written(part: Any, table: _Table) -> dict[str, Any]:
    defaults, found = _defaults(part.__class__), dict[str, Any]()
    for field in table:
        value = getattr(part, field.attribute)
        if field.always or field.attribute not in defaults or value != defaults[field.attribute]:
            found[field.name] = field.kind.write(value)
    return found


def _made(kind: type[Any], table: _Table, data: dict[str, Any], where: str) -> Any:
    """An object of this dataclass without its checks, see above."""
    found = _defaults(kind)
    for field in table:
        value = data.get(field.name)
        read = None if value is None else field.kind.read(value, f"{where}: {field.name}")
        if read is not None:
            found[field.attribute] = read
        elif field.attribute not in found:
            raise StreamError(f"{where}: {field.name} is missing")
    if "extra" in found:
        found["extra"] = _extra(data, table)
    made = object.__new__(kind)
    for name, value in found.items():
        object.__setattr__(made, name, value)
    return made


_PARTS: dict[str, _Table] = {
    "republish": _REPUBLISH,
    "placement": _PLACEMENT,
    "mirror": _SOURCE,
    "sources": _SOURCE,
    "consumer_limits": _LIMITS,
    "subject_transform": _TRANSFORM,
}


def _extra(data: dict[str, Any], table: _Table) -> dict[str, Any]:
    """What no table knows, also inside the parts."""
    found = _unknown(data, table)
    for name, inner in _PARTS.items():
        given: object = data.get(name) if name not in found else None
        if isinstance(given, list):
            of_each = [_unknown(each, inner) for each in cast("list[dict[str, Any]]", given)]
            left: Any = of_each if any(of_each) else None
        else:
            left = _unknown(cast("dict[str, Any]", given), inner) if given else None
        if left:
            found[name] = left
    return found


def _unknown(data: dict[str, Any], table: _Table) -> dict[str, Any]:
    known = {field.name for field in table}
    return {name: value for name, value in data.items() if name not in known}


def _with_extra(data: dict[str, Any], extra: Mapping[str, Any], table: _Table) -> dict[str, Any]:
    """Ours, and what was kept for the server. What was kept of a part goes with that part."""
    known = {field.name for field in table}
    for name, kept in extra.items():
        if name not in known:
            data[name] = kept
        elif name in data and name in _PARTS:
            data[name] = _joined(data[name], kept, name)
    return data


def _joined(ours: object, kept: object, name: str) -> Any:
    if name != "sources":
        return values.record(kept, name) | values.record(ours, name)
    given, left = values.records(ours, name), values.records(kept, name)
    if len(given) != len(left):
        return given
    return [of_it | each for each, of_it in zip(given, left, strict=True)]
