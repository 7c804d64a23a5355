"""The credentials that go into CONNECT: user and password, token, nkey, JWT of a credentials file, or a callback's.

Nothing here shows a secret: not in a message, not in a repr, not in the cause of an error.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.core.errors import ConfigError, UnsupportedError
from headrace.nats.errors import AuthenticationError
from headrace.nats.options import ConnectionOptions, Signature
from headrace.nats.servers import Server

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["check_credentials", "connect_fields"]

_SEED = 18 << 3  # "S"
_USER = 20 << 3  # "U"
_PART = re.compile(r"-+BEGIN ([A-Z ]+)-+\s*([A-Za-z0-9_.=\-]+?)\s*-{3,}END [A-Z ]+-+")


def check_credentials(options: ConnectionOptions, servers: list[Server]) -> None:
    """What can be said of the credentials before a server is asked. ``ConfigError``, or ``UnsupportedError``."""
    if options.has_credentials and any(server.has_credentials for server in servers):
        raise ConfigError("credentials are given twice: in a server's URL and in the options")
    if options.nkey_seed is not None:
        _NKey(options.nkey_seed)
    if isinstance(options.credentials, bytes):
        _NKey(_parse_credentials(options.credentials)[1])
    elif options.credentials is not None:
        _ed25519()


def connect_fields(options: ConnectionOptions, server: Server, nonce: str) -> dict[str, str]:
    """The fields of CONNECT that say who we are, to this server. ``AuthenticationError`` if they cannot be made."""
    if server.token is not None:
        return {"auth_token": server.token}
    if server.user is not None:
        return {"user": server.user, "pass": server.password or ""}
    if options.token is not None:
        return {"auth_token": options.token}
    if options.user is not None:
        return {"user": options.user, "pass": options.password or ""}
    if not nonce:  # this server asks for no signature, so it gets neither that nor a name
        return {}
    if options.nkey_seed is not None:
        key = _NKey(options.nkey_seed)
        return _signed(Signature(signature=key.sign(nonce.encode()), nkey=key.public))
    if options.credentials is not None:
        jwt, seed = _parse_credentials(_read(options.credentials))
        return _signed(Signature(signature=_NKey(seed).sign(nonce.encode()), jwt=jwt))
    if options.sign is not None:
        return _signed(_ask(options.sign, nonce))
    return {}


def _signed(signature: Signature) -> dict[str, str]:
    fields = {"sig": base64.urlsafe_b64encode(signature.signature).rstrip(b"=").decode()}
    if signature.nkey is not None:
        fields["nkey"] = signature.nkey
    if signature.jwt is not None:
        fields["jwt"] = signature.jwt
    return fields


def _ask(sign: Callable[[bytes], Signature], nonce: str) -> Signature:
    try:
        answer = sign(nonce.encode())
    except Exception as error:
        raise AuthenticationError("the sign callback failed") from error
    if not isinstance(answer, Signature) or not isinstance(answer.signature, bytes):
        raise AuthenticationError(f"the sign callback must answer a Signature, not {type(answer).__name__}")
    return answer


def _read(credentials: str | Path | bytes) -> bytes:
    if isinstance(credentials, bytes):
        return credentials
    try:
        return Path(credentials).read_bytes()
    except OSError as error:
        raise AuthenticationError(f"the credentials file cannot be read: {error}") from error


def _parse_credentials(data: bytes) -> tuple[str, str]:
    """JWT and seed of a ``.creds`` file."""
    parts = dict(_PART.findall(data.decode("utf-8", "replace")))
    try:
        return parts["NATS USER JWT"], parts["USER NKEY SEED"]
    except KeyError:
        raise ConfigError("credentials must hold a NATS USER JWT and a USER NKEY SEED") from None


class _NKey:
    """A user's key pair: base32 of two prefix bytes, 32 bytes of Ed25519 seed, and a checksum (ADR-14)."""

    def __init__(self, seed: str) -> None:
        text = seed.strip()
        try:
            raw = base64.b32decode(text + "=" * (-len(text) % 8))
        except (binascii.Error, ValueError):
            raw = b""
        if len(raw) != 36 or raw[0] & 0xF8 != _SEED or _checksum(raw[:-2]) != raw[-2:]:
            raise ConfigError("nkey_seed must be an nkey seed of a user (SU…)")
        if ((raw[0] & 7) << 5 | raw[1] >> 3) != _USER:
            raise ConfigError("nkey_seed must be the seed of a user (SU…), not of an account, operator or server")
        self._key = _ed25519().from_private_bytes(raw[2:34])
        bare = bytes([_USER]) + self._key.public_key().public_bytes_raw()
        self.public = base64.b32encode(bare + _checksum(bare)).rstrip(b"=").decode()

    def sign(self, nonce: bytes) -> bytes:
        return self._key.sign(nonce)


def _checksum(data: bytes) -> bytes:
    return binascii.crc_hqx(data, 0).to_bytes(2, "little")


def _ed25519() -> type[Ed25519PrivateKey]:
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415  (extra)
    except ImportError as error:
        raise UnsupportedError("nkeys and credentials files need: pip install 'headrace[nats-auth]'") from error
    return Ed25519PrivateKey
