"""What a server says of itself (INFO), and what a connection counts."""

from __future__ import annotations

import re

import msgspec

from headrace.nats.errors import ProtocolError

__all__ = ["ConnectionStats", "ServerInfo", "server_info_of"]

_NUMBER = re.compile(r"\d+")


class ServerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """INFO of the server at the other end; what it does not say has the default."""

    server_id: str = ""
    server_name: str = ""
    version: str = ""
    cluster: str = ""
    domain: str = ""
    host: str = ""
    port: int = 0
    proto: int = 0
    client_id: int = 0
    client_ip: str = ""
    api_level: int = msgspec.field(default=0, name="api_lvl")
    max_payload: int = 1024 * 1024
    headers: bool = False
    jetstream: bool = False
    auth_required: bool = False
    tls_required: bool = False
    tls_available: bool = False
    lame_duck: bool = msgspec.field(default=False, name="ldm")
    nonce: str = ""
    connect_urls: tuple[str, ...] = ()

    @property
    def version_tuple(self) -> tuple[int, int, int]:
        """``(2, 15, 1)``; what is no number is 0, a suffix does not count."""
        plain = self.version.partition("-")[0]
        numbers = [int(found[0][:9]) if (found := _NUMBER.match(part)) else 0 for part in plain.split(".")]
        major, minor, patch = (*numbers, 0, 0, 0)[:3]
        return major, minor, patch


class ConnectionStats(msgspec.Struct, kw_only=True):
    """Counted over all links of a connection, never set back. Bytes are those of the frames, before TLS.

    ``errors``: lost links, and whatever went to ``on_error``. ``unknown_replies``: nobody waited for them any more.
    """

    in_messages: int = 0
    in_bytes: int = 0
    out_messages: int = 0
    out_bytes: int = 0
    reconnects: int = 0
    errors: int = 0
    unknown_replies: int = 0


_decoder = msgspec.json.Decoder(ServerInfo)


def server_info_of(data: bytes) -> ServerInfo:
    """The INFO of this JSON. ``ProtocolError``: no JSON, wrong types, a payload limit that is none."""
    try:
        info = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"INFO cannot be read: {error}") from error
    if info.max_payload <= 0:
        raise ProtocolError(f"INFO has a max_payload of {info.max_payload}")
    return info
