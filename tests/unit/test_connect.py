"""connect: what is refused before any I/O."""

import pytest

from headrace import connect
from headrace.core.errors import ConfigError, UnsupportedError
from headrace.embedded import EmbeddedOptions
from headrace.jetstream.options import JetStreamOptions

SECRET = "s3cret"


@pytest.mark.parametrize("url", ["", "ftp://x", "file:///x?mode=1", "file://host/x", 3])
def test_wrong(url):
    with pytest.raises((ConfigError, TypeError)):
        connect(url)


def test_not_built_yet_is_said():
    with pytest.raises(UnsupportedError, match="not built"):
        connect("sqs://eu-west-1")


@pytest.mark.parametrize("url", ["kafka://", "kafka://a:0", "kafka://a?b=c", "kafka://ann:secret@a", "kafka://a b"])
def test_addresses_of_kafka_are_checked(url):
    with pytest.raises(ConfigError) as caught:
        connect(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["nats://localhost", "NATS://localhost:4222", "tls://a,b:4223", "nats://a,nats://b", "nats://u:p@[::1]:4222"]
)
def test_servers(url):
    connect(url)
    connect(url, options=JetStreamOptions(timeout=1))


@pytest.mark.parametrize(
    "url",
    [
        "nats://", "nats://,", "nats://a:x", "nats://a:0", "nats://a/path", "nats://a,kafka://b", "nats://a b", "tls://a#x",
        f"nats://u:{SECRET}@", f"nats://u:{SECRET}@a:x", f"nats://u:{SECRET}@a/x", f"nats://u:{SECRET}@a,b,c:x",
        f"nats://a,nats://{SECRET}@b:99999", f"nats://u:{SECRET}@a?tls=1", f"nats://u:a?{SECRET}@b:x",
    ],
)  # fmt: skip
def test_wrong_servers_never_show_credentials(url):
    with pytest.raises(ConfigError) as caught:
        connect(url)
    assert SECRET not in str(caught.value)


def test_an_unknown_query_key_is_named():
    with pytest.raises(ConfigError, match=r"'timeout'.*'b:4222'.*JetStreamOptions"):
        connect("nats://a,b:4222?timeout=5")


def test_foreign_options():
    with pytest.raises(ConfigError, match="EmbeddedOptions"):
        connect(":memory:", options=JetStreamOptions())
    with pytest.raises(ConfigError, match="JetStreamOptions"):
        connect("nats://localhost", options=EmbeddedOptions())
