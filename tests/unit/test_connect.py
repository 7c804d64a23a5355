"""connect: what is refused before any I/O."""

import pytest

from headrace import connect
from headrace.core.errors import ConfigError, UnsupportedError


@pytest.mark.parametrize("url", ["", "ftp://x", "file:///x?mode=1", "file://host/x", 3])
def test_wrong(url):
    with pytest.raises((ConfigError, TypeError)):
        connect(url)


@pytest.mark.parametrize("url", ["nats://localhost", "kafka://a,b", "sqs://eu-west-1"])
def test_not_built_yet_is_said(url):
    with pytest.raises(UnsupportedError, match="not built"):
        connect(url)


def test_foreign_options():
    with pytest.raises(ConfigError, match="EmbeddedOptions"):
        connect(":memory:", options=object())
