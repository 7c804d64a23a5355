"""Credentials: what each form puts into CONNECT, and what is said when they are wrong."""

import base64
import builtins
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from headrace.core.errors import ConfigError, UnsupportedError
from headrace.nats.auth import check_credentials, connect_fields
from headrace.nats.errors import AuthenticationError
from headrace.nats.options import ConnectionOptions, Signature
from headrace.nats.servers import parse_servers
from tests.unit.nats.nkeys import creds, public_of, seed_of

NONCE = "bm9uY2U-_x"
SEED = seed_of(bytes(range(32)))


def fields_for(url="nats://h", nonce=NONCE, **given):
    options = ConnectionOptions(**given)
    servers = parse_servers(url)
    check_credentials(options, servers)
    return connect_fields(options, servers[0], nonce)


def verify(signature, seed=bytes(range(32))):
    raw = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    key = Ed25519PrivateKey.from_private_bytes(seed).public_key()
    Ed25519PublicKey.verify(key, raw, NONCE.encode())
    assert "=" not in signature


def test_auth_forms_in_plain_words():
    assert fields_for() == {}
    assert fields_for(token="t") == {"auth_token": "t"}
    assert fields_for(user="u", password="p") == {"user": "u", "pass": "p"}
    assert fields_for(user="u") == {"user": "u", "pass": ""}
    assert fields_for("nats://u:p%2F@h") == {"user": "u", "pass": "p/"}
    assert fields_for("nats://t@h") == {"auth_token": "t"}


def test_auth_forms_nkey():
    fields = fields_for(nkey_seed=SEED)
    assert fields["nkey"] == public_of(bytes(range(32)))
    assert fields["nkey"].startswith("U")
    verify(fields["sig"])
    assert SEED not in json.dumps(fields)


@pytest.mark.parametrize("as_file", [False, True])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_auth_forms_creds(tmp_path, as_file, end):
    text = creds("eyJ0eXAi.eyJqdGk-_.c2ln", SEED).replace("\n", end).encode()
    path = tmp_path / "user.creds"
    path.write_bytes(text)
    fields = fields_for(credentials=path if as_file else text)
    assert fields["jwt"] == "eyJ0eXAi.eyJqdGk-_.c2ln"
    assert "nkey" not in fields
    verify(fields["sig"])
    assert fields_for(credentials=str(path)).keys() == {"jwt", "sig"}


def test_auth_forms_sign():
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    fields = fields_for(sign=lambda nonce: Signature(signature=key.sign(nonce), nkey="UXYZ"))
    assert fields["nkey"] == "UXYZ"
    verify(fields["sig"])
    assert fields_for(sign=lambda _: Signature(signature=b"\xff", jwt="j.w.t")) == {"jwt": "j.w.t", "sig": "_w"}


def test_without_a_nonce_nothing_is_signed():
    assert fields_for(nonce="", nkey_seed=SEED) == {}
    assert fields_for(nonce="", sign=lambda _: pytest.fail("asked")) == {}


@pytest.mark.parametrize(
    "seed",
    ["SUA", "hello", "é" * 58, SEED[:-1], SEED[:-1] + ("A" if SEED[-1] != "A" else "B"), SEED.lower(), "U" + SEED[1:],
     seed_of(bytes(32), kind=0), seed_of(bytes(32), kind=14 << 3), public_of(bytes(32))],
)  # fmt: skip
def test_a_wrong_seed_is_refused_at_construction_and_not_shown(seed):
    with pytest.raises(ConfigError) as caught:
        fields_for(nkey_seed=seed)
    assert seed not in str(caught.value)


def test_credentials_without_their_parts_are_refused():
    for text in (
        b"hello",
        creds("a.b.c", SEED).split("---", 5)[0].encode(),
        b"\xff\xfe",
        creds("a.b.c", "SUXX").encode(),
    ):
        with pytest.raises(ConfigError):
            fields_for(credentials=text)


def test_a_credentials_file_is_read_at_each_connect(tmp_path):
    path = tmp_path / "user.creds"
    options = ConnectionOptions(credentials=path)
    (server,) = parse_servers("nats://h")
    check_credentials(options, [server])
    with pytest.raises(AuthenticationError, match="cannot be read"):
        connect_fields(options, server, NONCE)
    for jwt in ("one.a.b", "two.a.b"):
        path.write_text(creds(jwt, SEED))
        assert connect_fields(options, server, NONCE)["jwt"] == jwt


def test_a_sign_callback_that_fails_or_answers_nonsense():
    with pytest.raises(AuthenticationError) as caught:
        fields_for(sign=lambda _: 1 / 0)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(AuthenticationError, match="Signature"):
        fields_for(sign=lambda _: b"raw")


@pytest.mark.parametrize(
    "given", [{"nkey_seed": SEED}, {"credentials": creds("a.b.c", SEED).encode()}, {"credentials": "f"}]
)
def test_without_cryptography_the_extra_is_named(monkeypatch, given):
    real = builtins.__import__

    def importing(name, *rest):
        if name.startswith("cryptography"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(UnsupportedError, match=r"pip install 'headrace\[nats-auth\]'"):
        fields_for(**given)
