"""The option classes: every default, every refusal with field and value, and never a secret."""

import copy
import pickle
import traceback
from dataclasses import FrozenInstanceError, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from headrace.core.broker import Start, SubscribeOptions
from headrace.core.errors import ConfigError
from headrace.flow.retry import RetryPolicy
from headrace.kafka.options import KafkaOptions, KafkaSecurity, Token, addresses
from headrace.kafka.reading import KafkaPartitionOptions, KafkaReadOptions, KafkaSubscribeOptions, read_options
from headrace.kafka.stores import MemoryOffsetStore, OffsetStore

SECRET = "geheim-4711"
SASL = {"protocol": "sasl_tls", "mechanism": "PLAIN", "username": "me", "password": SECRET}
BEARER = {"protocol": "sasl_tls", "mechanism": "OAUTHBEARER", "token": lambda: None}


def defaults(options):
    return {field.name: getattr(options, field.name) for field in fields(options)}


def test_config_tables():
    """The tables of the specification, field by field."""
    assert defaults(KafkaOptions()) == {
        "client_id": "headrace", "security": None, "id_header": "Headrace-Id", "driver_options": {},
        "delivery_timeout": None, "linger": 0.005, "compression": "none", "max_message_bytes": 1_000_000,
        "max_buffered_bytes": 64 * 1024 * 1024, "partitioner": "murmur2_random",
    }  # fmt: skip
    core = dict.fromkeys(("group", "start", "lease", "max_in_flight", "prefetch", "create"))
    reading = core | {
        "isolation": "read_committed", "on_out_of_range": "stop", "max_span": 8_192,
        "max_span_bytes": 64 * 1024 * 1024, "key_extractor": None, "order_keyless": False, "commit_interval": 1.0,
    }  # fmt: skip
    assert defaults(KafkaReadOptions()) == reading
    assert defaults(KafkaSubscribeOptions()) == reading | {
        "group_instance_id": None, "group_protocol": "cooperative", "drain_timeout": 30.0, "max_poll_interval": 300.0,
        "session_timeout": None,
    }  # fmt: skip
    partition = defaults(KafkaPartitionOptions(partition=0))
    assert isinstance(partition.pop("offset_store"), MemoryOffsetStore)
    assert partition == reading | {
        "partition": 0, "reconnect": RetryPolicy(initial=0.2, maximum=5.0, jitter=0),
    }  # fmt: skip
    assert KafkaSubscribeOptions().session_seconds == 45.0
    assert KafkaPartitionOptions(partition=0).offset_store is not KafkaPartitionOptions(partition=0).offset_store
    with pytest.raises(TypeError):
        KafkaPartitionOptions()
    with pytest.raises(TypeError):
        KafkaOptions("positional")
    with pytest.raises(FrozenInstanceError):
        KafkaOptions().client_id = "other"


def test_all_that_is_allowed():
    for name, values in {
        "compression": ("none", "gzip", "snappy", "lz4", "zstd"),
        "partitioner": ("murmur2_random", "consistent_random"),
        "linger": (0, timedelta(milliseconds=5), 900),
        "delivery_timeout": (1, timedelta(days=1), None),
        "driver_options": ({"socket.timeout.ms": 1000, "debug": "all", "check.crcs": False, "linger.ms": 0.5},),
        "max_message_bytes": (1_000, 60_000_000),
    }.items():
        for value in values:
            assert getattr(KafkaOptions(**{name: value}), name) == value
    for name, values in {
        "group_protocol": ("cooperative", "eager", "consumer"),
        "isolation": ("read_committed", "read_uncommitted"),
        "on_out_of_range": ("stop", "earliest", "latest"),
        "session_timeout": (6, timedelta(seconds=300)),
        "drain_timeout": (0, timedelta(seconds=299)),
        "max_poll_interval": (86_400,),
        "start": (Start.new(),),
        "lease": (30,),  # the broker says UnsupportedError
    }.items():
        for value in values:
            assert getattr(KafkaSubscribeOptions(**{name: value}), name) == value
    assert KafkaSubscribeOptions(session_timeout=10).session_seconds == 10.0
    assert KafkaSubscribeOptions(max_poll_interval=20, drain_timeout=5).session_seconds == 20.0
    assert KafkaSubscribeOptions(commit_interval=timedelta(seconds=2)).seconds("commit_interval") == 2.0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("client_id", ""), ("client_id", 5), ("client_id", "a\nb"), ("id_header", ""), ("id_header", None),
        ("security", {"protocol": "tls"}), ("driver_options", [("a", 1)]), ("driver_options", {1: 2}),
        ("driver_options", {"linger.ms": None}), ("driver_options", {"linger.ms": [1]}),
        ("delivery_timeout", -1), ("delivery_timeout", 0), ("delivery_timeout", 0.005), ("delivery_timeout", "5"),
        ("delivery_timeout", 10**7), ("linger", -1), ("linger", 901), ("linger", None), ("linger", True),
        ("compression", "brotli"), ("compression", None), ("max_message_bytes", 0), ("max_message_bytes", 999),
        ("max_message_bytes", True), ("max_message_bytes", 1e6), ("max_message_bytes", 10**10),
        ("max_buffered_bytes", 0), ("max_buffered_bytes", 999_999), ("partitioner", "random"), ("partitioner", []),
    ],
)  # fmt: skip
def test_a_wrong_option_is_named(field, value):
    with pytest.raises(ConfigError, match=field):
        KafkaOptions(**{field: value})


@pytest.mark.parametrize(
    "name",
    [
        "bootstrap.servers", "metadata.broker.list", "group.id", "group.instance.id", "group.protocol",
        "group.remote.assignor", "partition.assignment.strategy", "enable.auto.commit", "enable.auto.offset.store",
        "enable.partition.eof", "auto.offset.reset", "isolation.level", "enable.idempotence", "acks",
        "request.required.acks", "message.timeout.ms", "delivery.timeout.ms", "transactional.id", "error_cb",
        "stats_cb", "dr_msg_cb", "oauth_cb", "ssl.certificate.verify_cb", "on_delivery", "on_commit", "logger",
        "sasl.password", "ssl.key.password", "ssl.keystore.password", "ssl.key.pem", "ssl_key",
        "sasl.oauthbearer.client.secret", "sasl.oauthbearer.client.credentials.client.secret",
        "sasl.oauthbearer.assertion.private.key.passphrase", "sasl.oauthbearer.assertion.private.key.pem",
        "sasl.oauthbearer.config", "delivery.report.only.error", "client.id", "session.timeout.ms",
        "max.poll.interval.ms",
    ],
)  # fmt: skip
def test_what_headrace_owns_is_refused(name):
    with pytest.raises(ConfigError, match=name) as caught:
        KafkaOptions(driver_options={name: SECRET})
    assert SECRET not in shown(caught.value)


def test_what_has_no_field_is_taken():
    given = {"heartbeat.interval.ms": 300, "statistics.interval.ms": 0}
    assert KafkaOptions(driver_options=given).driver_options == given


def test_the_callers_mapping_is_copied():
    given = {"linger.ms": 3}
    options = KafkaOptions(driver_options=given)
    given["acks"] = 0
    assert options.driver_options == {"linger.ms": 3}
    assert pickle.loads(pickle.dumps(options)) == copy.deepcopy(options) == options


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("isolation", "serializable"), ("isolation", None), ("on_out_of_range", "reset"), ("max_span", 0),
        ("max_span", True), ("max_span", 1.5), ("max_span_bytes", 0), ("key_extractor", "key"),
        ("order_keyless", 1), ("commit_interval", 0), ("commit_interval", -1), ("commit_interval", None),
        ("group", "a b"), ("group", ""), ("group", "x" * 129), ("max_in_flight", 0),
    ],
)  # fmt: skip
def test_a_wrong_read_option_is_named(field, value):
    for make in (KafkaReadOptions, KafkaSubscribeOptions):
        with pytest.raises(ConfigError, match=field):
            make(**{field: value})


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"group_protocol": "range"}, "group_protocol"), ({"group_protocol": None}, "group_protocol"),
        ({"group_instance_id": ""}, "group_instance_id"), ({"group_instance_id": 7}, "group_instance_id"),
        ({"drain_timeout": 300}, "drain_timeout.*300"),
        ({"drain_timeout": 31, "max_poll_interval": 31}, "drain_timeout"),
        ({"drain_timeout": -1}, "drain_timeout"), ({"drain_timeout": None}, "drain_timeout"),
        ({"max_poll_interval": 90_000}, "max_poll_interval"), ({"max_poll_interval": 0}, "max_poll_interval"),
        ({"session_timeout": 0}, "session_timeout"), ({"session_timeout": 3_601}, "session_timeout"),
        ({"session_timeout": 301}, "session_timeout"),
        ({"session_timeout": 10, "group_protocol": "consumer"}, "session_timeout.*consumer"),
    ],
)  # fmt: skip
def test_a_wrong_group_option_is_named(given, named):
    with pytest.raises(ConfigError, match=named):
        KafkaSubscribeOptions(**given)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"partition": -1}, "partition.*-1"), ({"partition": None}, "partition"), ({"partition": True}, "partition"),
        ({"partition": 0, "group": "billing"}, "group.*billing"),
        ({"partition": 0, "offset_store": {}}, "offset_store"),
        ({"partition": 0, "offset_store": None}, "offset_store"), ({"partition": 0, "reconnect": 5}, "reconnect"),
        ({"partition": 0, "reconnect": RetryPolicy(max_attempts=3)}, "max_attempts=3"),
        ({"partition": 0, "reconnect": RetryPolicy(max_deliveries=3)}, "max_deliveries=3"),
        ({"partition": 0, "isolation": "none"}, "isolation"),
    ],
)  # fmt: skip
def test_a_wrong_partition_option_is_named(given, named):
    with pytest.raises(ConfigError, match=named):
        KafkaPartitionOptions(**given)


def test_a_store_of_the_users_own():
    class Mine:
        async def load(self, topic, partition):
            return None

        async def save(self, topic, partition, next_offset):
            return None

    assert isinstance(Mine(), OffsetStore)
    mine = Mine()
    assert KafkaPartitionOptions(partition=1, offset_store=mine).offset_store is mine


def test_plain_options_count_as_kafkas():
    found = read_options(SubscribeOptions(group="billing", max_in_flight=5, start=Start.new(), create=False))
    assert found == KafkaSubscribeOptions(group="billing", max_in_flight=5, start=Start.new(), create=False)
    assert read_options(KafkaReadOptions(group="billing", max_span=7)) == KafkaSubscribeOptions(
        group="billing", max_span=7
    )
    for options in (KafkaSubscribeOptions(group="a"), KafkaPartitionOptions(partition=3)):
        assert read_options(options) is options


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("localhost:9092", ["localhost:9092"]),
        (" a:1 , b:2,a:1,, ", ["a:1", "b:2"]),
        (["a:1", "b:2, c:3", "a:1"], ["a:1", "b:2", "c:3"]),
        (("h1:9092", "h2"), ["h1:9092", "h2:9092"]),
        ("[::1]:9092,kafka-0.kafka.svc.cluster.local:65535", ["[::1]:9092", "kafka-0.kafka.svc.cluster.local:65535"]),
    ],
)
def test_addresses(given, expected):
    assert addresses(given) == expected


@pytest.mark.parametrize(
    "given",
    [
        "", " , ", [], [""], None, 9092, b"a:1", [None], {"a:1": 1}, "a:", ":9092", "a:0", "a:65536", "a:x", "a:-1",
        "a b:1", "::1:9092", "kafka://a:1", "a:1/x", "SSL://a:1", "a:1:2", "a:999999",
    ],
)  # fmt: skip
def test_wrong_addresses(given):
    with pytest.raises(ConfigError, match="brokers"):
        addresses(given)


# --- security --------------------------------------------------------------------------------------


def shown(*things):
    """Everything of it that a log or a terminal may show."""
    texts = []
    for thing in things:
        texts += [repr(thing), str(thing), ascii(thing)]
        if isinstance(thing, BaseException):
            texts += traceback.format_exception(thing)
            texts.append(repr(thing.args))
    return "\n".join(texts)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"protocol": "ssl"}, "protocol"), ({"protocol": None}, "protocol"),
        ({**SASL, "mechanism": "GSSAPI"}, "mechanism"),
        ({**SASL, "mechanism": None}, "mechanism"), ({**SASL, "password": None}, "password"),
        ({**SASL, "username": ""}, "username"), ({**SASL, "password": ""}, "password"),
        ({**SASL, "password": 5}, "password"),
        ({**SASL, "token": lambda: None}, "token"), ({**BEARER, "token": None}, "token"),
        ({**BEARER, "token": SECRET}, "token"), ({**BEARER, "password": SECRET}, "password"),
        ({"protocol": "tls", "password": SECRET}, "password"), ({"mechanism": "PLAIN"}, "mechanism"),
        ({"ca_file": "ca.pem"}, "ca_file"), ({**SASL, "protocol": "sasl_plaintext", "ca_file": "a"}, "ca_file"),
        ({"protocol": "tls", "ca_file": 5}, "ca_file"), ({"protocol": "tls", "ca_file": ""}, "ca_file"),
        ({"protocol": "tls", "certificate_file": "a"}, "key_file"),
        ({"protocol": "tls", "key_file": "a"}, "certificate_file"),
        ({"protocol": "tls", "key_password": SECRET}, "key_password"),
    ],
)  # fmt: skip
def test_wrong_security_is_named(given, named):
    with pytest.raises(ConfigError, match=named) as caught:
        KafkaSecurity(**given)
    assert SECRET not in shown(caught.value)


def test_security_that_is_right():
    KafkaSecurity()
    KafkaSecurity(protocol="tls")
    KafkaSecurity(protocol="tls", ca_file=Path("ca.pem"), certificate_file="a", key_file="b", key_password=SECRET)
    for mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
        KafkaSecurity(**{**SASL, "mechanism": mechanism})
    KafkaSecurity(**BEARER)


@pytest.mark.parametrize(
    "given", [("", datetime.now(UTC)), (None, datetime.now(UTC)), (SECRET, 5), (SECRET, datetime(2026, 1, 1))]
)
def test_a_wrong_token_is_refused(given):
    with pytest.raises(ConfigError, match=r"Token|expires") as caught:
        Token(*given)
    assert SECRET not in shown(caught.value)


def test_secrets_never_shown():
    security = KafkaSecurity(**SASL, certificate_file="a", key_file="b", key_password=SECRET)
    options = KafkaOptions(security=security)
    token = Token(SECRET, datetime.now(UTC))
    bearer = KafkaSecurity(**{**BEARER, "token": lambda secret=SECRET: Token(secret, datetime.now(UTC))})
    assert SECRET not in shown(security, options, token, bearer, KafkaOptions(security=bearer))
    for given in (f"kafka://me:{SECRET}@h:9092", f"me:{SECRET}@h:9092"):
        with pytest.raises(ConfigError) as caught:
            addresses(given)
        assert SECRET not in str(caught.value)
