"""What a server says of streams, consumers and accounts, and what is nonsense."""

import contextlib
from copy import deepcopy
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.jetstream.protocol.infos import account_info, consumer_info, stream_info
from headrace.streams.errors import StreamError
from headrace.streams.info import (
    AccountInfo,
    AccountLimits,
    AccountTier,
    APIStats,
    ClusterInfo,
    PeerInfo,
    PriorityGroupInfo,
    SequenceInfo,
    StreamSourceInfo,
    StreamState,
)

STREAM = {
    "type": "io.nats.jetstream.api.v1.stream_info_response",
    "config": {"name": "S", "subjects": ["s.>"]},
    "created": "2026-11-21T19:22:46.688057488Z",
    "state": {
        "messages": 3, "bytes": 127, "first_seq": 2, "first_ts": "2026-11-21T19:22:46.705830525Z", "last_seq": 5,
        "last_ts": "2026-11-21T19:22:46.705842473Z", "num_subjects": 2, "num_deleted": 1, "deleted": [3],
        "subjects": {"s.a": 1, "s.b": 2}, "consumer_count": 4,
    },
    "cluster": {
        "name": "C", "leader": "n1",
        "replicas": [{"name": "n2", "current": True, "active": 5_000_000, "lag": 7}, {"name": "n3", "offline": True}],
    },
    "mirror": {"name": "A", "lag": 8, "active": -1},
    "sources": [{"name": "B", "active": 2_000_000_000}],
    "ts": "2026-11-21T19:22:47Z",
}  # fmt: skip
CONSUMER = {
    "stream_name": "S", "name": "c", "created": "2026-11-21T19:22:46Z",
    "config": {"name": "c", "durable_name": "c", "ack_policy": "explicit"},
    "delivered": {"consumer_seq": 4, "stream_seq": 5, "last_active": "2026-11-21T19:22:47.5Z"},
    "ack_floor": {"consumer_seq": 2, "stream_seq": 3}, "num_ack_pending": 2, "num_redelivered": 1, "num_waiting": 6,
    "num_pending": 7, "push_bound": True, "paused": True, "pause_remaining": 1_500_000_000,
    "priority_groups": [
        {"group": "g", "pinned_client_id": "p", "pinned_ts": "2026-11-21T19:22:47Z"},
        {"group": "h", "pinned_ts": "0001-01-01T00:00:00Z"},
    ],
    "cluster": {"leader": "n1"},
}  # fmt: skip
ACCOUNT = {
    "memory": 1, "storage": 2, "streams": 3, "consumers": 4, "domain": "hub",
    "limits": {"max_memory": 0, "max_storage": -1, "max_streams": 9, "max_bytes_required": True},
    "tiers": {"R1": {"memory": 5, "streams": 1, "limits": {"max_consumers": 6}}},
    "api": {"total": 7, "errors": 8, "level": 5},
}  # fmt: skip
AT = datetime(2026, 11, 21, 19, 22, 46, tzinfo=UTC)


def test_a_stream():
    info = stream_info(STREAM)
    assert info.config.name == "S"
    assert info.created == AT.replace(microsecond=688057)
    assert info.timestamp == AT.replace(second=47)
    assert info.state == StreamState(
        messages=3,
        bytes=127,
        first_sequence=2,
        first_time=AT.replace(microsecond=705830),
        last_sequence=5,
        last_time=AT.replace(microsecond=705842),
        consumers=4,
        deleted=(3,),
        num_deleted=1,
        num_subjects=2,
        subjects={"s.a": 1, "s.b": 2},
    )
    peers = (
        PeerInfo(name="n2", current=True, active=timedelta(milliseconds=5), lag=7),
        PeerInfo(name="n3", offline=True),
    )
    assert info.cluster == ClusterInfo(name="C", leader="n1", replicas=peers)
    assert info.mirror == StreamSourceInfo(name="A", lag=8, active=None)
    assert info.sources == (StreamSourceInfo(name="B", active=timedelta(seconds=2)),)


def test_an_empty_stream_has_no_times():
    never = "0001-01-01T00:00:00Z"
    state = {"messages": 0, "bytes": 0, "first_seq": 0, "first_ts": never, "last_seq": 0, "last_ts": never}
    info = stream_info({**STREAM, "state": state, "cluster": None, "mirror": None, "sources": None})
    assert info.state == StreamState()
    assert (info.cluster, info.mirror, info.sources) == (None, None, ())


def test_a_consumer():
    info = consumer_info(CONSUMER)
    assert (info.stream, info.name, info.created, info.config.durable) == ("S", "c", AT, "c")
    assert info.delivered == SequenceInfo(4, 5, AT.replace(second=47, microsecond=500_000))
    assert info.ack_floor == SequenceInfo(2, 3)
    assert (info.num_ack_pending, info.num_redelivered, info.num_waiting, info.num_pending) == (2, 1, 6, 7)
    assert (info.push_bound, info.paused, info.pause_remaining) == (True, True, timedelta(seconds=1.5))
    assert info.priority_groups == (
        PriorityGroupInfo(group="g", pinned_client_id="p", pinned_time=AT.replace(second=47)),
        PriorityGroupInfo(group="h"),
    )
    assert info.cluster == ClusterInfo(leader="n1")


def test_an_account():
    limits = AccountLimits(max_memory=0, max_streams=9, max_bytes_required=True)
    tier = AccountTier(memory=5, streams=1, limits=AccountLimits(max_consumers=6))
    assert account_info(ACCOUNT) == AccountInfo(
        memory=1,
        storage=2,
        streams=3,
        consumers=4,
        domain="hub",
        api=APIStats(total=7, errors=8, level=5),
        limits=limits,
        tiers={"R1": tier},
    )


@pytest.mark.parametrize(
    ("read", "said", "path", "reason"),
    [
        (stream_info, STREAM, ("config",), "config is missing"),
        (stream_info, STREAM, ("created",), "created is missing"),
        (stream_info, STREAM, ("state", "messages"), "messages is missing"),
        (stream_info, STREAM, ("cluster", "replicas", 0, "name"), "name is missing"),
        (consumer_info, CONSUMER, ("name",), "name is missing"),
        (consumer_info, CONSUMER, ("stream_name",), "stream_name is missing"),
        (consumer_info, CONSUMER, ("ack_floor",), "ack_floor is missing"),
        (consumer_info, CONSUMER, ("delivered", "stream_seq"), "stream_seq is missing"),
        (account_info, ACCOUNT, ("streams",), "streams is missing"),
    ],
)
def test_what_is_missing_is_named(read, said, path, reason):
    said = deepcopy(said)
    part = said
    for step in path[:-1]:
        part = part[step]
    del part[path[-1]]
    with pytest.raises(StreamError, match=reason):
        read(said)


@pytest.mark.parametrize(
    ("read", "said", "changed"),
    [
        (stream_info, STREAM, {"created": "0001-01-01T00:00:00Z"}),
        (stream_info, STREAM, {"created": 5}),
        (stream_info, STREAM, {"state": []}),
        (stream_info, STREAM, {"state": {**STREAM["state"], "deleted": "3"}}),
        (stream_info, STREAM, {"state": {**STREAM["state"], "deleted": ["3"]}}),
        (stream_info, STREAM, {"state": {**STREAM["state"], "subjects": {"a": "1"}}}),
        (stream_info, STREAM, {"sources": [None]}),
        (consumer_info, CONSUMER, {"created": "0001-01-01T00:00:00Z"}),
        (consumer_info, CONSUMER, {"num_pending": 1.5}),
        (consumer_info, CONSUMER, {"paused": "yes"}),
        (consumer_info, CONSUMER, {"priority_groups": {}}),
        (account_info, ACCOUNT, {"tiers": {"R1": 5}}),
        (account_info, ACCOUNT, {"limits": {"max_memory": "1"}}),
    ],
)
def test_what_is_of_another_kind_is_a_stream_error(read, said, changed):
    with pytest.raises(StreamError):
        read({**said, **changed})


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)


@given(st.data(), st.sampled_from([(stream_info, STREAM), (consumer_info, CONSUMER), (account_info, ACCOUNT)]), leaves)
@settings(max_examples=300, deadline=None)
def test_one_wrong_value_anywhere_raises_nothing_else(data, of, wrong):
    read, said = of
    said = deepcopy(said)
    part = said
    while True:
        key = data.draw(st.sampled_from(sorted(part) if isinstance(part, dict) else range(len(part))))
        if not isinstance(part[key], dict | list) or not part[key] or data.draw(st.booleans()):
            part[key] = wrong
            break
        part = part[key]
    with contextlib.suppress(StreamError):
        read(said)
