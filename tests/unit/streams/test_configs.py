"""What configs refuse, and that every refusal names field and value."""

from datetime import UTC, datetime, timedelta

import pytest

from headrace.core.broker import Expect
from headrace.core.errors import ConfigError, UnsupportedError
from headrace.streams.config import (
    AckPolicy,
    ConsumerConfig,
    ConsumerLimits,
    DeliverPolicy,
    DiscardPolicy,
    ExternalStream,
    FetchOptions,
    OrderedConsumerConfig,
    PriorityPolicy,
    PullOptions,
    PurgeOptions,
    RePublish,
    RetentionPolicy,
    StreamConfig,
    StreamMessage,
    StreamPublishOptions,
    StreamSource,
)
from headrace.streams.consumer import session_options
from headrace.streams.errors import InvalidConsumerNameError, InvalidStreamNameError, InvalidSubjectError

NAIVE = datetime(2026, 1, 1)
AWARE = datetime(2026, 1, 1, tzinfo=UTC)

BAD = [
    (StreamConfig, {"name": ""}, "name"),
    (StreamConfig, {"name": "a.b"}, "name"),
    (StreamConfig, {"name": "s", "max_messages": 0}, "max_messages"),
    (StreamConfig, {"name": "s", "max_bytes": -1}, "max_bytes"),
    (StreamConfig, {"name": "s", "max_bytes": True}, "max_bytes"),
    (StreamConfig, {"name": "s", "max_age": 0}, "max_age"),
    (StreamConfig, {"name": "s", "max_age": -1.0}, "max_age"),
    (StreamConfig, {"name": "s", "max_age": "1s"}, "max_age"),
    (StreamConfig, {"name": "s", "max_age": float("nan")}, "max_age"),
    (StreamConfig, {"name": "s", "subjects": "a"}, "subjects"),
    (StreamConfig, {"name": "s", "subjects": (1,)}, "subjects"),
    (StreamConfig, {"name": "s", "subjects": ("a.*", "a.b")}, "subjects"),
    (StreamConfig, {"name": "s", "retention": "never"}, "retention"),
    (StreamConfig, {"name": "s", "storage": 1}, "storage"),
    (StreamConfig, {"name": "s", "sealed": 1}, "sealed"),
    (StreamConfig, {"name": "s", "metadata": {"a": 1}}, "metadata"),
    (StreamConfig, {"name": "s", "replicas": 6}, "replicas"),
    (StreamConfig, {"name": "s", "max_age": 60, "duplicate_window": 61}, "duplicate_window"),
    (StreamConfig, {"name": "s", "discard_new_per_subject": True}, "discard_new_per_subject"),
    (StreamConfig, {"name": "s", "subjects": ("a",), "mirror": StreamSource(name="m")}, "mirror"),
    (StreamSource, {"name": "s", "domain": "d", "external": ExternalStream(api_prefix="x")}, "domain"),
    (StreamSource, {"name": "s", "start_sequence": 1, "start_time": AWARE}, "start_time"),
    (RePublish, {"destination": ""}, "destination"),
    (ConsumerLimits, {"max_ack_pending": 0}, "max_ack_pending"),
    (ConsumerConfig, {"name": "a", "durable": "b"}, "name"),
    (ConsumerConfig, {"name": "a b"}, "name"),
    (ConsumerConfig, {"ack_wait": 10, "backoff": (5, 10)}, "ack_wait"),
    (ConsumerConfig, {"backoff": (1, 2, 3), "max_deliver": 2}, "backoff"),
    (ConsumerConfig, {"backoff": (1, 0)}, "backoff"),
    (ConsumerConfig, {"backoff": 3}, "backoff"),
    (ConsumerConfig, {"filter_subject": "a", "filter_subjects": ("b",)}, "filter_subject"),
    (ConsumerConfig, {"filter_subjects": ("a.*", "a.b")}, "filter_subjects"),
    (ConsumerConfig, {"start_sequence": 3}, "start_sequence"),
    (ConsumerConfig, {"deliver_policy": DeliverPolicy.BY_START_SEQUENCE}, "start_sequence"),
    (ConsumerConfig, {"deliver_policy": DeliverPolicy.BY_START_TIME, "start_time": NAIVE}, "start_time"),
    (ConsumerConfig, {"max_deliver": 0}, "max_deliver"),
    (ConsumerConfig, {"sample_frequency": 101}, "sample_frequency"),
    (ConsumerConfig, {"priority_groups": ("g",)}, "priority_groups"),
    (OrderedConsumerConfig, {"max_reset_attempts": 0}, "max_reset_attempts"),
    (OrderedConsumerConfig, {"name_prefix": "a.b"}, "name"),
    (PurgeOptions, {"sequence": 2, "keep": 1}, "keep"),
    (PurgeOptions, {"sequence": 0}, "sequence"),
    (StreamMessage, {"subject": "a", "msg_id": ""}, "msg_id"),
    (StreamPublishOptions, {"retry_attempts": -1}, "retry_attempts"),
    (StreamPublishOptions, {"retry_wait": 0}, "retry_wait"),
    (StreamPublishOptions, {"expect_subject": "a"}, "expect_subject"),
    (StreamPublishOptions, {"expect_stream": ""}, "expect_stream"),
    (StreamPublishOptions, {"ttl": 1.5}, "ttl"),
    (StreamPublishOptions, {"ttl": 0.5}, "ttl"),
    (PullOptions, {"max_messages": 0}, "max_messages"),
    (PullOptions, {"expires": 0.5}, "expires"),
    (PullOptions, {"heartbeat": 0.1}, "heartbeat"),
    (PullOptions, {"expires": 10, "heartbeat": 6}, "heartbeat"),
    (PullOptions, {"expires": 100, "heartbeat": 31}, "heartbeat"),
    (PullOptions, {"max_messages": 5, "threshold_messages": 6}, "threshold_messages"),
    (PullOptions, {"threshold_bytes": 6}, "threshold_bytes"),
    (PullOptions, {"stop_after": 0}, "stop_after"),
    (PullOptions, {"min_pending": 1}, "min_pending"),
    (FetchOptions, {"group": "g", "priority": 10}, "priority"),
]


@pytest.mark.parametrize(("kind", "fields", "named"), BAD)
def test_a_wrong_value_is_refused_by_name(kind, fields, named):
    with pytest.raises(ConfigError, match=named):
        kind(**fields)


def test_names_and_subjects_have_their_own_errors():
    with pytest.raises(InvalidStreamNameError):
        StreamConfig(name="a>b")
    with pytest.raises(InvalidConsumerNameError):
        ConsumerConfig(durable="a*b")
    with pytest.raises(InvalidSubjectError):
        StreamConfig(name="s", subjects=("a..b",))


def test_lengths_of_time_read_as_timedelta_in_every_spelling():
    assert StreamConfig(name="s", max_age=90) == StreamConfig(name="s", max_age=timedelta(seconds=90))
    assert ConsumerConfig(backoff=[1, timedelta(seconds=2)]).backoff == (timedelta(seconds=1), timedelta(seconds=2))


def test_wire_words_become_policies():
    config = StreamConfig(name="s", retention="workqueue", discard="new")
    assert (config.retention, config.discard) == (RetentionPolicy.WORKQUEUE, DiscardPolicy.NEW)
    assert ConsumerConfig(ack_policy="none").ack_policy is AckPolicy.NONE


def test_the_callers_mapping_is_copied():
    given = {"a": "b"}
    config = StreamConfig(name="s", metadata=given)
    given["a"] = "c"
    assert config.metadata == {"a": "b"}


def test_what_can_only_be_read_is_unsupported_on_writing():
    with pytest.raises(UnsupportedError, match="template_owner"):
        StreamConfig(name="s", template_owner="t").require_writable()
    with pytest.raises(UnsupportedError, match="rate_limit"):
        ConsumerConfig(rate_limit=1).require_writable()
    StreamConfig(name="s").require_writable()


def test_what_a_consumer_waits():
    seconds = timedelta(seconds=1)
    assert ConsumerConfig().waits == (30 * seconds,)
    assert ConsumerConfig(ack_wait=3).waits == (3 * seconds,)
    assert ConsumerConfig(backoff=(1, 5), ack_wait=1).waits == (seconds, 5 * seconds)


def test_sequence_zero_is_an_expectation_of_its_own():
    options = StreamPublishOptions(expect=Expect(last_for_topic=0), expect_subject="a.b")
    assert options.expect == Expect(last_for_topic=0)
    assert StreamPublishOptions(ttl=timedelta.max).ttl == timedelta.max
    assert StreamPublishOptions(stall_wait=0).stall_wait == timedelta()


def test_pull_options_become_session_options():
    assert session_options(PullOptions()).threshold_messages == 250
    assert session_options(PullOptions(max_messages=1)).threshold_messages == 1
    by_bytes = session_options(PullOptions(max_bytes=1001))
    assert (by_bytes.max_messages, by_bytes.threshold_bytes, by_bytes.prefetch) == (None, 501, 999_999)
    few = session_options(PullOptions(stop_after=3))
    assert (few.max_messages, few.prefetch, few.stop_after) == (3, 2, 3)
    assert session_options(PullOptions(expires=4)).heartbeat == 2.0
    assert session_options(PullOptions()).heartbeat == 5.0


def test_a_priority_group_needs_its_policy():
    config = ConsumerConfig(priority_groups=["a"], priority_policy=PriorityPolicy.OVERFLOW)
    assert config.priority_groups == ("a",)
