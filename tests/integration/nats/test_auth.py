"""Every form of credentials against a real server, and an account's JWTs made here."""

import base64
import json
import time
from contextlib import suppress

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from headrace.nats import AuthenticationError, NoServersError, Signature
from tests.integration.nats.scene import connection_to, plain_server, run, until
from tests.unit.nats.nkeys import creds, public_of, seed_of

pytestmark = pytest.mark.servers
OPERATOR, ACCOUNT, USER = bytes([1] * 32), bytes([2] * 32), bytes([3] * 32)
OPERATOR_KIND, ACCOUNT_KIND = 14 << 3, 0


async def check(connection):
    async with connection:
        await connection.flush()


@run
async def test_token():
    with plain_server(config="authorization { token: s3cret }") as server:
        await check(connection_to(server.url, token="s3cret"))
        await check(connection_to(server.url.replace("//", "//s3cret@")))
        await refused(connection_to(server.url, token="wrong"))
        await refused(connection_to(server.url))


@run
async def test_user_and_password():
    with plain_server(config='authorization { user: "ü", password: "p@ss:word" }') as server:
        await check(connection_to(server.url, user="ü", password="p@ss:word"))
        await check(connection_to(server.url.replace("//", "//%C3%BC:p%40ss%3Aword@")))
        await refused(connection_to(server.url, user="ü", password="wrong"))


@run
async def test_nkey_and_sign():
    config = f"authorization {{ users: [ {{ nkey: {public_of(USER)} }} ] }}"
    with plain_server(config=config) as server:
        await check(connection_to(server.url, nkey_seed=seed_of(USER)))
        key = Ed25519PrivateKey.from_private_bytes(USER)
        answer = lambda nonce: Signature(signature=key.sign(nonce), nkey=public_of(USER))  # noqa: E731
        await check(connection_to(server.url, sign=answer))
        await refused(connection_to(server.url, nkey_seed=seed_of(bytes([9] * 32))))
        await refused(connection_to(server.url, sign=lambda _: Signature(signature=b"x" * 64, nkey=public_of(USER))))


@run
async def test_credentials_file_and_its_renewal(tmp_path):
    path = tmp_path / "user.creds"
    with plain_server(config=operated()) as server:
        path.write_text(creds(user_jwt(), seed_of(USER)))
        await check(connection_to(server.url, credentials=path))
        await check(connection_to(server.url, credentials=path.read_bytes()))
        path.write_text(creds(user_jwt(expires=int(time.time()) - 10), seed_of(USER)))
        await refused(connection_to(server.url, credentials=path))
        lost = []
        connection = connection_to(server.url, credentials=path, on_disconnect=lost.append)
        for _ in range(10):  # a busy machine may need longer than these are good for
            path.write_text(creds(user_jwt(expires=int(time.time()) + 2), seed_of(USER)))
            with suppress(NoServersError):
                await connection.connect()
                break
        path.write_text(creds(user_jwt(), seed_of(USER)))  # the next connect reads the new one
        await until(lambda: connection.stats.reconnects == 1)
        assert isinstance(lost[0], AuthenticationError)
        await connection.flush()
        await connection.aclose()


async def refused(connection):
    with pytest.raises(NoServersError, match="Authorization Violation") as caught:
        await connection.connect()
    assert isinstance(caught.value.__cause__, AuthenticationError)


def operated():
    operator = public_of(OPERATOR, kind=OPERATOR_KIND)
    account = public_of(ACCOUNT, kind=ACCOUNT_KIND)
    limits = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
    mine = jwt(OPERATOR, operator, operator, {"type": "operator", "version": 2})
    theirs = jwt(
        OPERATOR, operator, account, {"type": "account", "version": 2, "limits": {**limits, "wildcards": True}}
    )
    return f"operator: {mine}\nresolver: MEMORY\nresolver_preload: {{ {account}: {theirs} }}\n"


def user_jwt(**claims):
    account = public_of(ACCOUNT, kind=ACCOUNT_KIND)
    extra = {"exp": claims["expires"]} if claims else {}
    nats = {"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1}
    return jwt(ACCOUNT, account, public_of(USER), nats, **extra)


def jwt(secret, issuer, subject, nats, **extra):
    claims = {
        "jti": "x",
        "iat": int(time.time()) - 60,
        "iss": issuer,
        "name": "t",
        "sub": subject,
        "nats": nats,
        **extra,
    }
    parts = [encoded(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "ed25519-nkey"}, claims)]
    signed = ".".join(parts)
    return f"{signed}.{encoded(Ed25519PrivateKey.from_private_bytes(secret).sign(signed.encode()))}"


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
