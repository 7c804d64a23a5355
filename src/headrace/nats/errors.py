"""The errors of the wire client, below core's.

BrokerError
├ ConnectionLostError
│ ├ NoServersError             no server took us; `reasons` has one error for each
│ ├ ProtocolError              what came is not NATS
│ └ StaleConnectionError       pings were not answered
├ NoRespondersError            nobody listens on the subject of the request
├ ServerError                  the server said -ERR
│ ├ AuthenticationError        it does not take the credentials
│ └ PermissionsError           it does not allow a subject; the connection lives
├ SlowConsumerError            messages were dropped: they came faster than they were taken
└ PublishError
  └ PayloadTooLargeError       REJECTED, nothing was sent; `limit` is the server's
"""

from __future__ import annotations

import re

from headrace.core.errors import BrokerError, ClosedError, ConnectionLostError, Fault, PublishError

__all__ = [
    "AuthenticationError",
    "NoRespondersError",
    "NoServersError",
    "PayloadTooLargeError",
    "PermissionsError",
    "ProtocolError",
    "ServerError",
    "SlowConsumerError",
    "StaleConnectionError",
    "error_for_waiter",
    "server_error",
]


_PUBLISH = re.compile('permissions violation for publish to "(.*)"', re.IGNORECASE)
_QUOTED = re.compile(r'\\(["\\])')


class NoServersError(ConnectionLostError):
    """No server could be reached."""

    def __init__(self, reason: str = "", *, reasons: tuple[BaseException, ...] = ()) -> None:
        super().__init__(*((reason,) if reason else ()))
        self.reasons = reasons


class ProtocolError(ConnectionLostError):
    """The server sent what is not NATS."""


class StaleConnectionError(ConnectionLostError):
    """The server does not answer pings."""


class NoRespondersError(BrokerError):
    """Nobody listens on this subject."""


class ServerError(BrokerError):
    """The server reported an error."""


class AuthenticationError(ServerError):
    """The server does not take these credentials."""


class PermissionsError(ServerError):
    """The server does not allow this subject."""

    @property
    def subject(self) -> bytes | None:
        """What may not be published to, where it is about that."""
        found = _PUBLISH.fullmatch(str(self))
        return None if found is None else _QUOTED.sub(r"\1", found[1]).encode("utf-8", "surrogateescape")


class SlowConsumerError(BrokerError):
    """Messages came faster than they were taken and were dropped."""


class PayloadTooLargeError(PublishError):
    """The message is larger than the server takes."""

    fault = Fault.REJECTED


def server_error(text: str) -> ServerError:
    """The error of a ``-ERR 'text'``; the words are nats-server's."""
    lower = text.lower()
    if lower.startswith("permissions violation"):
        return PermissionsError(text)
    if "authorization" in lower or "authentication" in lower:
        return AuthenticationError(text)
    return ServerError(text)


def error_for_waiter(cause: BaseException) -> BrokerError | ClosedError:
    """What one of those gets who wait for an answer that will not come: an error of its own, `cause` chained."""
    kind = next((kind for kind in (ClosedError, PermissionsError) if isinstance(cause, kind)), ConnectionLostError)
    error = kind(str(cause))
    error.__cause__ = cause
    return error
