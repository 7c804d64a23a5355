"""ConnectionOptions: what is wrong is said at construction, and what is secret never."""

import ssl
from dataclasses import fields, replace
from datetime import timedelta

import pytest

from headrace.core.errors import ConfigError
from headrace.nats import Connection, ConnectionOptions, Signature

WRONG = [
    {"name": ""}, {"name": 3}, {"user": ""}, {"password": "x"}, {"password": 3, "user": "u"}, {"token": ""},
    {"token": b"x"}, {"nkey_seed": 7}, {"credentials": 7}, {"credentials": b""}, {"credentials": ""}, {"sign": "x"},
    {"user": "u", "token": "t"}, {"token": "t", "nkey_seed": "s"}, {"credentials": "f", "sign": len},
    {"tls": False}, {"tls": "yes"}, {"tls": 1}, {"tls_first": 1}, {"tls_hostname": ""}, {"insecure_skip_verify": None},
    {"connect_timeout": 0}, {"connect_timeout": None}, {"connect_timeout": float("nan")}, {"reconnect": None},
    {"reconnect_wait": 0}, {"reconnect_wait": -1}, {"reconnect_wait": 6.0}, {"reconnect_max_wait": 0.05},
    {"reconnect_max_wait": float("inf")}, {"max_reconnects": 0}, {"max_reconnects": True}, {"max_reconnects": 1.5},
    {"ping_interval": 0}, {"max_pings_out": 0}, {"reconnect_buffer": -1}, {"write_limit": 0}, {"max_frame": 100},
    {"inbox_prefix": ""}, {"inbox_prefix": "a b"}, {"inbox_prefix": "a..b"}, {"inbox_prefix": "a.*"},
    {"inbox_prefix": "a\r\nPUB"}, {"use_discovered": 1}, {"randomize": 0}, {"drain_timeout": 0}, {"on_error": 3},
    {"on_closed": "x"}, {"on_reconnect": ()}, {"on_disconnect": 1}, {"on_lame_duck": 1},
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_wrong_value_is_refused_and_named(wrong):
    with pytest.raises(ConfigError) as caught:
        ConnectionOptions(**wrong)
    assert any(name in str(caught.value) for name in wrong)


def test_lengths_of_time_have_one_form():
    assert ConnectionOptions(ping_interval=2) == ConnectionOptions(ping_interval=timedelta(seconds=2))
    assert replace(ConnectionOptions(ping_interval=2)).seconds("ping_interval") == 2.0


def test_a_context_says_the_same_as_insecure_skip_verify():
    verifying = ssl.create_default_context()
    open_ = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    open_.check_hostname = False
    half = ssl.create_default_context()
    half.check_hostname = False
    ConnectionOptions(tls=verifying)
    open_.verify_mode = ssl.CERT_NONE
    ConnectionOptions(tls=open_, insecure_skip_verify=True)
    for context, skip in ((verifying, True), (open_, False), (half, False)):
        with pytest.raises(ConfigError, match="insecure_skip_verify"):
            ConnectionOptions(tls=context, insecure_skip_verify=skip)


SECRETS = {
    "password": {"user": "u", "password": "s3cret-word"},
    "token": {"token": "s3cret-word"},
    "credentials": {"credentials": b"s3cret-word"},
    "nkey_seed": {"nkey_seed": "s3cret-word"},
}


@pytest.mark.parametrize("given", SECRETS.values(), ids=SECRETS)
def test_secrets_not_in_repr(given):
    options = ConnectionOptions(**given)
    assert "s3cret-word" not in repr(options)
    assert "s3cret-word" not in shown(options)


def shown(options):
    """The connection made with these options, or why it was not."""
    try:
        return repr(Connection("nats://127.0.0.1:1", options))
    except ConfigError as error:
        return f"{error} {error!r}"


def test_every_field_that_may_hold_a_secret_is_left_out_of_the_repr():
    hidden = {field.name for field in fields(ConnectionOptions) if not field.repr}
    assert hidden == {"password", "token", "nkey_seed", "credentials", "sign"}
    signature = Signature(signature=b"s3cret", jwt="s3cret", nkey="UABC")
    assert "s3cret" not in repr(signature)


def test_a_signature_belongs_to_somebody():
    with pytest.raises(ConfigError):
        Signature(signature=b"x")


def test_credentials_in_url_and_options_are_one_too_many():
    with pytest.raises(ConfigError, match="twice"):
        Connection("nats://a:b@127.0.0.1", ConnectionOptions(token="x"))
