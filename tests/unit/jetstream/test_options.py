"""JetStreamOptions: what it refuses, and where the API is."""

from datetime import timedelta

import pytest

from headrace.core.errors import ConfigError
from headrace.jetstream import ClientTrace, JetStreamOptions
from headrace.nats.options import ConnectionOptions


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"api_prefix": "" }, "subject"),
        ({"api_prefix": "a..b"}, "subject"),
        ({"api_prefix": "a."}, "subject"),
        ({"api_prefix": "a b"}, "subject"),
        ({"api_prefix": "a.*"}, "api_prefix"),
        ({"api_prefix": "a.>"}, "api_prefix"),
        ({"api_prefix": 5}, "api_prefix"),
        ({"domain": ""}, "name"),
        ({"domain": "a.b"}, "name"),
        ({"domain": "a\r\nb"}, "name"),
        ({"domain": "a", "api_prefix": "b"}, "domain and api_prefix"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": None}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"max_pending": 0}, "max_pending"),
        ({"max_pending": None}, "max_pending"),
        ({"max_pending": True}, "max_pending"),
        ({"stall_wait": -1}, "stall_wait"),
        ({"on_publish_error": 5}, "on_publish_error"),
        ({"trace": 5}, "trace"),
        ({"connection": 5}, "connection"),
    ],
)  # fmt: skip
def test_refused(fields, named):
    with pytest.raises(ConfigError, match=named):
        JetStreamOptions(**fields)


def test_a_trace_takes_callables():
    ClientTrace(request_sent=print)
    for name in ("request_sent", "response_received"):
        with pytest.raises(ConfigError, match=name):
            ClientTrace(**{name: 5})


def test_defaults():
    options = JetStreamOptions()
    assert (options.prefix, options.timeout, options.max_pending) == ("$JS.API", timedelta(seconds=5), 4000)
    assert JetStreamOptions(domain="hub").prefix == "$JS.hub.API"
    assert JetStreamOptions(api_prefix="my.js").prefix == "my.js"
    assert JetStreamOptions(stall_wait=0).stall_wait == timedelta(0)


def test_no_secret_is_shown():
    options = JetStreamOptions(connection=ConnectionOptions(user="u", password="hush"))
    assert "hush" not in repr(options)
