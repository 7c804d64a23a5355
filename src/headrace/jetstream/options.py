"""JetStreamOptions: how a `JetStream` talks to its server, and the trace of what it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from headrace.core.duration import Duration
from headrace.core.errors import ConfigError, PublishError
from headrace.nats.options import ConnectionOptions
from headrace.streams.checks import check_count, check_kind, check_text, set_duration, timedelta_of
from headrace.streams.config import StreamMessage
from headrace.streams.errors import InvalidSubjectError
from headrace.streams.subjects import validate_filter, validate_name

__all__ = ["ClientTrace", "JetStreamOptions"]

DEFAULT_PREFIX = "$JS.API"


@dataclass(frozen=True, kw_only=True)
class ClientTrace:
    """Told of API requests and their answers, not of publishes. What it raises is logged and ignored.

    ``request_sent(subject, payload)``, ``response_received(subject, payload, headers)``: `headers` is the raw block as
    received, b"" if there is none; the subject is that of the request. Of a batch get the end is the response.
    """

    request_sent: Callable[[str, bytes], None] | None = None
    response_received: Callable[[str, bytes, bytes], None] | None = None

    def __post_init__(self) -> None:
        for name in ("request_sent", "response_received"):
            if getattr(self, name) is not None and not callable(getattr(self, name)):
                raise ConfigError(f"{name} must be callable, got {getattr(self, name)!r}")


@dataclass(frozen=True, kw_only=True)
class JetStreamOptions:
    """How streams on a server are used.

    ``connection``: for `connect`; a `JetStream` over a connection of yours refuses it. ``api_prefix`` or ``domain``
    (prefix ``$JS.<domain>.API``): where the API is. ``timeout``: of each API request and each publish. ``max_pending``:
    outstanding async publishes. ``stall_wait``: longest wait for room among them (None = `timeout`, 0 = never wait).
    ``on_publish_error(message, error)``: told once of each failed async publish (None: it is logged, subject only).
    """

    connection: ConnectionOptions = field(default_factory=ConnectionOptions)
    api_prefix: str | None = None
    domain: str | None = None
    timeout: Duration = 5.0
    max_pending: int = 4000
    stall_wait: Duration | None = None
    on_publish_error: Callable[[StreamMessage, PublishError], None] | None = None
    trace: ClientTrace | None = None

    def __post_init__(self) -> None:
        check_kind(self, "connection", ConnectionOptions)
        check_kind(self, "trace", ClientTrace)
        check_text(self, "api_prefix", "domain")
        if self.api_prefix is not None and self.domain is not None:
            raise ConfigError(f"domain and api_prefix exclude each other, got {self.domain!r} and {self.api_prefix!r}")
        if self.domain is not None:
            validate_name(self.domain, error=ConfigError)
        if self.api_prefix is not None and {"*", ">"} & set(validate_filter(self.api_prefix).split(".")):
            raise InvalidSubjectError(f"api_prefix must have no wildcard token, got {self.api_prefix!r}")
        object.__setattr__(self, "timeout", timedelta_of(self.timeout, "timeout"))
        set_duration(self, "stall_wait", least=-1.0)
        most: Any = self.max_pending
        if most is None:
            raise ConfigError("max_pending must be an integer >= 1, got None")
        check_count(self, "max_pending")
        if self.on_publish_error is not None and not callable(self.on_publish_error):
            raise ConfigError(f"on_publish_error must be callable, got {self.on_publish_error!r}")

    @property
    def prefix(self) -> str:
        """What every API subject begins with."""
        if self.domain is not None:
            return f"$JS.{self.domain}.API"
        return DEFAULT_PREFIX if self.api_prefix is None else self.api_prefix
