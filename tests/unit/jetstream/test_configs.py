"""Configs as a server's JSON, both ways: every field, what is unlimited, what is unknown, what is nonsense."""

import contextlib
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.errors import ConfigError
from headrace.jetstream.protocol.configs import (
    consumer_config_from_json,
    consumer_config_to_json,
    stream_config_from_json,
    stream_config_to_json,
)
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

WHEN = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
SOURCE = StreamSource(
    name="A",
    start_time=WHEN,
    filter_subject="a.*",
    external=ExternalStream(api_prefix="$JS.hub.API", deliver_prefix="d"),
    subject_transforms=[SubjectTransform(source="a.*", destination="b.{{wildcard(1)}}")],
)

STREAM_FIELDS = {
    "description": ("text", "description", "text"),
    "subjects": (("a", "b.>"), "subjects", ["a", "b.>"]),
    "retention": (RetentionPolicy.WORKQUEUE, "retention", "workqueue"),
    "max_consumers": (3, "max_consumers", 3),
    "max_messages": (4, "max_msgs", 4),
    "max_bytes": (5, "max_bytes", 5),
    "max_age": (timedelta(hours=1), "max_age", 3_600_000_000_000),
    "max_messages_per_subject": (6, "max_msgs_per_subject", 6),
    "max_message_size": (7, "max_msg_size", 7),
    "discard": (DiscardPolicy.NEW, "discard", "new"),
    "discard_new_per_subject": (True, "discard_new_per_subject", True),
    "storage": (StorageType.MEMORY, "storage", "memory"),
    "duplicate_window": (timedelta(microseconds=100_001), "duplicate_window", 100_001_000),
    "sealed": (True, "sealed", True),
    "deny_delete": (True, "deny_delete", True),
    "deny_purge": (True, "deny_purge", True),
    "allow_rollup": (True, "allow_rollup_hdrs", True),
    "allow_direct": (True, "allow_direct", True),
    "metadata": ({"a": "b"}, "metadata", {"a": "b"}),
    "template_owner": ("t", "template_owner", "t"),
    "no_ack": (True, "no_ack", True),
    "republish": (
        RePublish(source="a", destination="b", headers_only=True),
        "republish",
        {"src": "a", "dest": "b", "headers_only": True},
    ),
    "replicas": (3, "num_replicas", 3),
    "placement": (Placement(cluster="c", tags=["t"]), "placement", {"cluster": "c", "tags": ["t"]}),
    "mirror": (StreamSource(name="A", start_sequence=9), "mirror", {"name": "A", "opt_start_seq": 9}),
    "sources": (
        (SOURCE,),
        "sources",
        [
            {
                "name": "A",
                "opt_start_time": "2026-01-02T03:04:05.678901Z",
                "filter_subject": "a.*",
                "external": {"api": "$JS.hub.API", "deliver": "d"},
                "subject_transforms": [{"src": "a.*", "dest": "b.{{wildcard(1)}}"}],
            }
        ],
    ),
    "mirror_direct": (True, "mirror_direct", True),
    "first_sequence": (10, "first_seq", 10),
    "consumer_limits": (
        ConsumerLimits(inactive_threshold=1.5, max_ack_pending=11),
        "consumer_limits",
        {"inactive_threshold": 1_500_000_000, "max_ack_pending": 11},
    ),
    "allow_message_ttl": (True, "allow_msg_ttl", True),
    "allow_atomic": (True, "allow_atomic", True),
    "compression": (Compression.S2, "compression", "s2"),
    "subject_transform": (
        SubjectTransform(source="", destination="b.>"),
        "subject_transform",
        {"src": "", "dest": "b.>"},
    ),
    "subject_delete_marker_ttl": (timedelta(seconds=60), "subject_delete_marker_ttl", 60_000_000_000),
    "allow_message_counter": (True, "allow_msg_counter", True),
    "allow_message_schedules": (True, "allow_msg_schedules", True),
    "allow_batched": (True, "allow_batched", True),
}
CONSUMER_FIELDS = {
    "name": ("n", "name", "n"),
    "durable": ("n", "durable_name", "n"),
    "description": ("text", "description", "text"),
    "deliver_policy": (DeliverPolicy.NEW, "deliver_policy", "new"),
    "start_sequence": (2, "opt_start_seq", 2),
    "start_time": (WHEN, "opt_start_time", "2026-01-02T03:04:05.678901Z"),
    "ack_policy": (AckPolicy.ALL, "ack_policy", "all"),
    "ack_wait": (timedelta(seconds=1), "ack_wait", 1_000_000_000),
    "max_deliver": (3, "max_deliver", 3),
    "backoff": (
        (timedelta(seconds=1), timedelta(seconds=2)),
        "backoff",
        [1_000_000_000, 2_000_000_000],
    ),
    "filter_subject": ("a.*", "filter_subject", "a.*"),
    "filter_subjects": (("a", "b"), "filter_subjects", ["a", "b"]),
    "replay_policy": (ReplayPolicy.ORIGINAL, "replay_policy", "original"),
    "rate_limit": (4, "rate_limit_bps", 4),
    "max_waiting": (5, "max_waiting", 5),
    "max_ack_pending": (None, "max_ack_pending", -1),
    "headers_only": (True, "headers_only", True),
    "max_request_batch": (6, "max_batch", 6),
    "max_request_expires": (timedelta(seconds=3), "max_expires", 3_000_000_000),
    "max_request_max_bytes": (7, "max_bytes", 7),
    "inactive_threshold": (timedelta(minutes=5), "inactive_threshold", 300_000_000_000),
    "memory_storage": (True, "mem_storage", True),
    "metadata": ({"a": "b"}, "metadata", {"a": "b"}),
    "replicas": (1, "num_replicas", 1),
    "sample_frequency": (0, "sample_freq", "0"),
    "pause_until": (WHEN, "pause_until", "2026-01-02T03:04:05.678901Z"),
    "priority_groups": (("g",), "priority_groups", ["g"]),
    "priority_policy": (PriorityPolicy.PRIORITIZED, "priority_policy", "prioritized"),
    "pinned_ttl": (timedelta(seconds=9), "priority_timeout", 9_000_000_000),
}
TOGETHER = {  # what a field needs beside it
    "discard_new_per_subject": {"discard": DiscardPolicy.NEW, "max_messages_per_subject": 6},
    "start_sequence": {"deliver_policy": DeliverPolicy.BY_START_SEQUENCE},
    "start_time": {"deliver_policy": DeliverPolicy.BY_START_TIME},
    "priority_groups": {"priority_policy": PriorityPolicy.PRIORITIZED},
    "priority_policy": {"priority_groups": ["g"]},
}


def test_no_field_is_forgotten():
    assert {each.name for each in fields(StreamConfig)} == {*STREAM_FIELDS, "name", "extra"}
    assert {each.name for each in fields(ConsumerConfig)} == {*CONSUMER_FIELDS, "extra"}


@pytest.mark.parametrize("name", STREAM_FIELDS)
def test_every_stream_field_goes_out_and_comes_back(name):
    value, wire, on_wire = STREAM_FIELDS[name]
    config = StreamConfig(**{"name": "S", name: value, **TOGETHER.get(name, {})})
    sent = stream_config_to_json(config)
    if name == "template_owner":
        assert wire not in sent, "it can only be read"
        sent[wire] = on_wire
    assert sent[wire] == on_wire
    assert stream_config_from_json(sent) == config


@pytest.mark.parametrize("name", CONSUMER_FIELDS)
def test_every_consumer_field_goes_out_and_comes_back(name):
    value, wire, on_wire = CONSUMER_FIELDS[name]
    config = ConsumerConfig(**{name: value, **TOGETHER.get(name, {})})
    sent = consumer_config_to_json(config)
    assert sent[wire] == on_wire
    assert consumer_config_from_json(sent) == config


def test_nothing_unset_is_sent():
    assert stream_config_to_json(StreamConfig(name="S")) == {
        "name": "S",
        "retention": "limits",
        "discard": "old",
        "storage": "file",
    }
    assert consumer_config_to_json(ConsumerConfig(durable="c")) == {
        "durable_name": "c",
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "replay_policy": "instant",
    }


def test_what_a_server_says_of_a_bare_stream():
    """As nats-server 2.15.1 answers a create that names only the stream."""
    said = {
        "name": "S", "subjects": ["S"], "retention": "limits", "max_consumers": -1, "max_msgs": -1, "max_bytes": -1,
        "max_age": 0, "max_msgs_per_subject": -1, "max_msg_size": -1, "discard": "old", "storage": "file",
        "num_replicas": 1, "duplicate_window": 120_000_000_000, "placement": {}, "compression": "none",
        "allow_direct": False, "mirror_direct": False, "sealed": False, "deny_delete": False, "deny_purge": False,
        "allow_rollup_hdrs": False, "consumer_limits": {}, "allow_msg_ttl": False,
        "metadata": {"_nats.level": "5", "_nats.req.level": "0", "_nats.ver": "2.15.1"},
    }  # fmt: skip
    wanted = StreamConfig(name="S", subjects=["S"], duplicate_window=timedelta(minutes=2))
    assert stream_config_from_json(said) == wanted


def test_what_a_server_says_of_bare_consumers():
    """As nats-server 2.15.1 answers creates that name only consumer and ack policy."""
    said = {
        "name": "c", "durable_name": "c", "deliver_policy": "all", "ack_policy": "explicit",
        "ack_wait": 30_000_000_000, "max_deliver": -1, "replay_policy": "instant", "max_waiting": 512,
        "max_ack_pending": 1000, "num_replicas": 0, "metadata": {"_nats.req.level": "0"},
    }  # fmt: skip
    config = consumer_config_from_json(said)
    assert config == ConsumerConfig(name="c", durable="c", ack_wait=timedelta(seconds=30), max_waiting=512)
    none = {"name": "c", "deliver_policy": "all", "ack_policy": "none", "replay_policy": "instant"}
    assert consumer_config_from_json(none).max_ack_pending is None, "nothing is pending, so nothing limits it"


def test_one_filter_is_sent_as_one():
    one = consumer_config_to_json(ConsumerConfig(filter_subjects=["a"]))
    assert (one["filter_subject"], "filter_subjects" in one) == ("a", False)
    assert consumer_config_from_json({"filter_subject": "", "ack_policy": "all"}).filters == ()


def test_a_domain_is_an_external_prefix():
    sent = stream_config_to_json(StreamConfig(name="S", mirror=StreamSource(name="A", domain="hub")))
    assert sent["mirror"] == {"name": "A", "external": {"api": "$JS.hub.API"}}
    assert stream_config_from_json(sent).mirror == StreamSource(
        name="A", external=ExternalStream(api_prefix="$JS.hub.API")
    )


def test_unknown_fields_are_kept_and_sent_back():
    said = {
        "name": "S",
        "persist_mode": "async",
        "consumer_limits": {"max_ack_pending": 1, "newer": [1]},
        "sources": [{"name": "A"}, {"name": "B", "consumer": {"name": "x"}}],
        "placement": {"preferred": "p"},
    }
    config = stream_config_from_json(said)
    assert config.extra["persist_mode"] == "async"
    sent = stream_config_to_json(replace(config, description="changed"))
    assert {name: sent[name] for name in said} == said
    assert "sources" not in stream_config_to_json(replace(config, sources=())), "what was kept of a part goes with it"
    consumer = consumer_config_from_json({"ack_policy": "none", "deliver_subject": "push", "idle_heartbeat": 5})
    sent = consumer_config_to_json(consumer)
    assert (sent["deliver_subject"], sent["idle_heartbeat"]) == ("push", 5)


def test_a_known_field_in_extra_never_sets_it():
    assert "max_msgs" not in stream_config_to_json(StreamConfig(name="S", extra={"max_msgs": 5}))


def test_what_others_made_is_read_as_it_is():
    """A server takes subjects and names that we refuse; a listing must not end there. Sending them is refused."""
    config = stream_config_from_json({"name": "S", "subjects": ["foo*bar"]})
    assert config.subjects == ("foo*bar",)
    with pytest.raises(ConfigError, match="foo"):
        stream_config_to_json(config)


def test_times_of_all_forms():
    for text, read in {
        "2026-01-02T03:04:05Z": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "2026-01-02T03:04:05.123456789Z": datetime(2026, 1, 2, 3, 4, 5, 123456, tzinfo=UTC),
        "2026-01-02T03:04:05.1+02:30": datetime(2026, 1, 2, 0, 34, 5, 100000, tzinfo=UTC),
        "0001-01-01T00:00:00Z": None,
    }.items():
        assert consumer_config_from_json({"pause_until": text}).pause_until == read
    east = datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=2)))
    assert consumer_config_to_json(ConsumerConfig(pause_until=east))["pause_until"] == "2025-12-31T22:00:00Z"


NONSENSE = [
    ({}, "name is missing"),
    ({"name": 5}, "name must be text"),
    ({"name": ""}, "name is missing"),
    ({"name": "S", "max_msgs": "5"}, "max_msgs must be a whole number"),
    ({"name": "S", "max_msgs": True}, "max_msgs must be a whole number"),
    ({"name": "S", "max_msgs": 1.5}, "max_msgs must be a whole number"),
    ({"name": "S", "retention": "forever"}, "retention must be one of limits, interest, workqueue"),
    ({"name": "S", "sealed": 1}, "sealed must be true or false"),
    ({"name": "S", "max_age": 1 << 90}, "max_age must be nanoseconds"),
    ({"name": "S", "subjects": "a"}, "subjects must be a list"),
    ({"name": "S", "subjects": [1]}, "subjects must be text"),
    ({"name": "S", "metadata": {"a": 1}}, "metadata must be text"),
    ({"name": "S", "mirror": []}, "mirror must be an object"),
    ({"name": "S", "mirror": {"opt_start_seq": 1}}, "mirror: name is missing"),
    ({"name": "S", "sources": [1]}, "sources must be an object"),
    ({"name": "S", "sources": [{"name": "A", "opt_start_time": "yesterday"}]}, "must be an RFC 3339 time"),
    ({"name": "S", "sources": [{"name": "A", "opt_start_time": "2026-13-02T03:04:05Z"}]}, "an RFC 3339 time"),
    ({"name": "S", "republish": {"src": "a"}}, "republish: dest is missing"),
    ({"name": "S", "description": "x" * 999, "storage": ["x"] * 999}, "storage must be"),
]


@pytest.mark.parametrize(("said", "reason"), NONSENSE)
def test_nonsense_is_a_stream_error_that_says_where(said, reason):
    with pytest.raises(StreamError, match=reason) as caught:
        stream_config_from_json(said)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("said", ["x", "1000", "-1", "1.5", 5])
def test_a_sample_that_is_no_percentage(said):
    with pytest.raises(StreamError, match="sample_freq"):
        consumer_config_from_json({"sample_freq": said})
    assert consumer_config_from_json({"sample_freq": "50%"}).sample_frequency == 50


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
counts = st.integers(1, 2**53)
lengths = st.timedeltas(timedelta(microseconds=1), timedelta(days=9_999))
moments = st.datetimes(datetime(1971, 1, 1), datetime(2262, 1, 1), timezones=st.just(UTC))
words = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=8)
tokens = st.from_regex(r"[a-z0-9]{1,6}", fullmatch=True)
subjects = st.lists(tokens, unique=True, max_size=3)
maps = st.dictionaries(words.filter(lambda name: not name.startswith("_nats.")), words, min_size=1, max_size=3)
extras = st.dictionaries(tokens.map(lambda name: f"x_{name}"), json, max_size=3)


def maybe(strategy):
    return st.none() | strategy


def sources():
    made = {
        "name": tokens,
        "start_sequence": maybe(counts),
        "filter_subject": maybe(tokens),
        "external": maybe(st.builds(ExternalStream, api_prefix=tokens, deliver_prefix=maybe(tokens))),
        "subject_transforms": st.lists(transforms(), max_size=2),
    }
    return st.builds(StreamSource, **made) | st.builds(
        StreamSource, **{**made, "start_sequence": st.none(), "start_time": moments}
    )


def transforms():
    return st.builds(SubjectTransform, source=tokens, destination=tokens)


def of_fields(kind, given):
    """A strategy per field, by the kind of its default; `given` ones first."""
    made = dict(given)
    for each in fields(kind):
        if each.name in made or each.name == "extra":
            continue
        if isinstance(each.default, bool):
            made[each.name] = st.booleans()
        elif isinstance(each.default, Enum):
            made[each.name] = st.sampled_from(type(each.default))
        elif "Duration" in each.type and "Sequence" not in each.type:
            made[each.name] = maybe(lengths)
        elif each.type in ("str | None", "int | None"):
            made[each.name] = maybe(words if "str" in each.type else counts)
        else:
            raise AssertionError(f"no strategy for {each.name}: {each.type}")
    return made


def streams():
    mirrored = st.booleans()

    @st.composite
    def draw(pick):
        values = {
            name: pick(strategy)
            for name, strategy in of_fields(
                StreamConfig,
                {
                    "name": tokens,
                    "subjects": subjects,
                    "metadata": maybe(maps),
                    "template_owner": st.none(),
                    "republish": maybe(
                        st.builds(RePublish, source=maybe(tokens), destination=tokens, headers_only=st.booleans())
                    ),
                    "replicas": st.integers(1, 5),
                    "placement": maybe(st.builds(Placement, cluster=tokens, tags=st.lists(tokens, max_size=2))),
                    "mirror": st.none(),
                    "sources": st.lists(sources(), max_size=2),
                    "consumer_limits": maybe(
                        st.builds(ConsumerLimits, inactive_threshold=lengths, max_ack_pending=maybe(counts))
                    ),
                    "subject_transform": maybe(transforms()),
                    "duplicate_window": st.none(),
                },
            ).items()
        }
        if pick(mirrored):
            values |= {"mirror": pick(sources()), "subjects": (), "sources": ()}
        if values["max_age"] is None:
            values["duplicate_window"] = pick(maybe(lengths))
        if values["discard"] is DiscardPolicy.OLD or values["max_messages_per_subject"] is None:
            values["discard_new_per_subject"] = False
        return StreamConfig(**values, extra=pick(extras))

    return draw()


def consumers():
    @st.composite
    def draw(pick):
        values = {
            name: pick(strategy)
            for name, strategy in of_fields(
                ConsumerConfig,
                {
                    "name": maybe(tokens),
                    "durable": st.none(),
                    "start_sequence": st.none(),
                    "start_time": st.none(),
                    "max_deliver": st.none(),
                    "backoff": st.lists(lengths, max_size=3),
                    "filter_subject": st.none(),
                    "filter_subjects": subjects.filter(lambda given: len(given) != 1),
                    "max_ack_pending": maybe(counts),
                    "metadata": maybe(maps),
                    "replicas": maybe(st.integers(1, 5)),
                    "sample_frequency": maybe(st.integers(0, 100)),
                    "pause_until": maybe(moments),
                    "priority_groups": st.just(()),
                    "priority_policy": st.just(PriorityPolicy.NONE),
                },
            ).items()
        }
        values["durable"] = pick(st.sampled_from([None, values["name"]]))
        if values["backoff"]:
            values["ack_wait"] = pick(st.sampled_from([None, values["backoff"][0]]))
        if values["deliver_policy"] is DeliverPolicy.BY_START_SEQUENCE:
            values["start_sequence"] = pick(counts)
        if values["deliver_policy"] is DeliverPolicy.BY_START_TIME:
            values["start_time"] = pick(moments)
        if not values["filter_subjects"]:
            values["filter_subject"] = pick(maybe(tokens))
        policy = pick(st.sampled_from(PriorityPolicy))
        if policy is not PriorityPolicy.NONE:
            values |= {"priority_policy": policy, "priority_groups": pick(st.lists(tokens, min_size=1, max_size=2))}
        if values["ack_policy"] is AckPolicy.NONE:
            values["max_ack_pending"] = pick(st.sampled_from([None, 5]))
        return ConsumerConfig(**values, extra=pick(extras))

    return draw()


def over_the_wire(data):
    return msgspec.json.decode(msgspec.json.encode(data))


@given(streams())
@settings(max_examples=200, deadline=None)
def test_config_json_round_trip_of_streams(config):
    assert stream_config_from_json(over_the_wire(stream_config_to_json(config))) == config


@given(consumers())
@settings(max_examples=200, deadline=None)
def test_config_json_round_trip_of_consumers(config):
    assert consumer_config_from_json(over_the_wire(consumer_config_to_json(config))) == config


@given(st.dictionaries(st.sampled_from([wire for _, wire, _ in STREAM_FIELDS.values()]), json))
@settings(max_examples=200, deadline=None)
def test_any_json_is_a_config_or_a_stream_error(said):
    for read in (stream_config_from_json, consumer_config_from_json):
        with contextlib.suppress(StreamError):
            read({"name": "S", **said})
