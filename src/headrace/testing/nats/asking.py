"""One JetStream API request by plain sockets: what the fixtures themselves must know, without a client under test."""

from __future__ import annotations

import json
import socket
from typing import Any, cast

from headrace.core.errors import BrokerTimeoutError

__all__ = ["ask"]

_HELLO = 'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\nSUB answer 1\r\n'


def ask(port: int, subject: str, body: dict[str, Any] | None = None, *, timeout: float = 5.0) -> dict[str, Any]:
    """The JSON answer to ``$JS.API.<subject>``; ``{}`` for "nobody listens". ``BrokerTimeoutError``, ``OSError``."""
    payload = json.dumps(body).encode() if body is not None else b""
    request = f"{_HELLO}PUB $JS.API.{subject} answer {len(payload)}\r\n".encode()
    with socket.create_connection(("127.0.0.1", port), timeout) as link, link.makefile("rb") as lines:
        link.sendall(request + payload + b"\r\n")
        try:
            while line := lines.readline():
                verb, *fields = line.split()
                if verb == b"HMSG":
                    lines.read(int(fields[-1]) + 2)
                    return {}
                if verb == b"MSG":
                    return cast("dict[str, Any]", json.loads(lines.read(int(fields[-1]))))
        except TimeoutError as error:
            raise BrokerTimeoutError(f"no answer to $JS.API.{subject} within {timeout:g} s") from error
    raise BrokerTimeoutError(f"no answer to $JS.API.{subject}: the server hung up")
