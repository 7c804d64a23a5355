"""Nothing that was set is dropped silently: what is too new is refused, what does not come back is named."""

import pytest

from headrace.core.errors import UnsupportedError
from headrace.jetstream.protocol.echo import dropped_of_consumer, dropped_of_stream, may_get_lost, require_known
from headrace.nats.info import ServerInfo
from headrace.streams.config import ConsumerConfig, PriorityPolicy, StreamConfig, StreamSource

STREAM = {
    (2, 11): [{"allow_message_ttl": True}, {"subject_delete_marker_ttl": 60.0}],
    (2, 12): [{"allow_atomic": True}, {"allow_message_counter": True}, {"allow_message_schedules": True}],
    (2, 14): [{"allow_batched": True}],
}
GROUPS = {"priority_groups": ["g"], "priority_policy": PriorityPolicy.OVERFLOW}
CONSUMER = {
    (2, 11): [{"pinned_ttl": 60.0}, GROUPS],
    (2, 12): [{**GROUPS, "priority_policy": PriorityPolicy.PRIORITIZED}],
}


def cases(kind, table, **needed):
    return [(kind(**needed, **fields), since, next(iter(fields))) for since, all_ in table.items() for fields in all_]


@pytest.mark.parametrize(
    ("config", "since", "name"), [*cases(StreamConfig, STREAM, name="S"), *cases(ConsumerConfig, CONSUMER)]
)
def test_what_is_too_new_is_refused_by_name(config, since, name):
    major, minor = since
    for version in (f"{major}.{minor}.0", f"{major}.{minor}.0-RC.1", f"{major}.{minor + 1}.7", "3.0.0"):
        require_known(config, ServerInfo(version=version))
    with pytest.raises(UnsupportedError, match=rf"{major}\.{minor}, this is {major}\.{minor - 1}\.9") as caught:
        require_known(config, ServerInfo(version=f"{major}.{minor - 1}.9"))
    if since != (2, 12) or isinstance(config, StreamConfig):
        assert name in str(caught.value)


def test_what_is_not_set_needs_nothing():
    for config in (StreamConfig(name="S"), ConsumerConfig()):
        require_known(config, ServerInfo(version="2.9.0"))


@pytest.mark.parametrize(
    ("sent", "got", "dropped"),
    [
        ({"max_msgs": 5}, {"max_msgs": 5, "max_bytes": -1}, []),
        ({"max_msgs": 5}, {}, ["max_messages"]),
        ({"max_msgs": 5}, {"max_msgs": 6}, ["max_messages"]),
        ({"allow_msg_ttl": True, "new_thing": 1}, {"allow_msg_ttl": False}, ["allow_message_ttl", "new_thing"]),
        ({"metadata": {"a": "b"}}, {"metadata": {"a": "b", "_nats.ver": "2.15.1"}}, []),
        ({"metadata": {"a": "b"}}, {"metadata": {"a": "c"}}, ["metadata"]),
        ({"metadata": {"a": "b"}}, {"metadata": None}, ["metadata"]),
        ({"metadata": {"_nats.ver": "1", "a": "b"}}, {"metadata": {"a": "b", "_nats.ver": "2"}}, []),
        ({"metadata": {}}, {}, []),
        ({"republish": {"dest": "b"}}, {"republish": {"src": ">", "dest": "b"}}, []),
        ({"republish": {"dest": "b"}}, {"republish": {"src": ">", "dest": "c"}}, ["republish"]),
        ({"subject_transform": {"src": "", "dest": "b"}}, {"subject_transform": {"dest": "b"}}, []),
        ({"subjects": ["a", "b"]}, {"subjects": ["a"]}, ["subjects"]),
        ({"sources": [{"name": "A"}]}, {"sources": [{"name": "A", "filter_subject": ""}]}, []),
        ({"sources": [{"name": "A"}]}, {"sources": [{"name": "B"}]}, ["sources"]),
        ({"mirror": {"name": "A", "opt_start_time": "2026-01-01T00:00:00Z"}},
         {"mirror": {"name": "A", "opt_start_time": "2026-01-01T01:00:00+01:00"}}, []),
        ({"mirror": {"name": "A", "opt_start_time": "2026-01-01T00:00:00Z"}},
         {"mirror": {"name": "A", "opt_start_time": "2026-01-01T00:00:01Z"}}, ["mirror"]),
        ({"mirror": {"name": "A"}}, {"mirror": "A"}, ["mirror"]),
        ({"sealed": True, "max_age": 5, "discard": "old"}, {"sealed": True, "max_age": 0, "discard": "new"}, []),
        ({"sealed": True}, {"sealed": False}, ["sealed"]),
    ],
)  # fmt: skip
def test_what_does_not_come_back_is_named(sent, got, dropped):
    assert dropped_of_stream(sent, got) == dropped


def test_options_of_consumers_have_their_names():
    assert dropped_of_consumer({"mem_storage": True, "opt_start_seq": 5}, {}) == ["memory_storage", "start_sequence"]


@pytest.mark.parametrize(
    ("config", "doubtful"),
    [
        (StreamConfig(name="S"), False),
        (StreamConfig(name="S", mirror=StreamSource(name="O"), mirror_direct=True), True),
        (StreamConfig(name="S", extra={"warp": 9}), True),
        (ConsumerConfig(durable="c"), False),
        (ConsumerConfig(durable="c", extra={"warp": 9}), True),
    ],
)
def test_what_may_get_lost_is_looked_for_first(config, doubtful):
    assert may_get_lost(config) is doubtful
