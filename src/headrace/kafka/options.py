"""KafkaOptions: how the clients of a broker are made. Checked here, before any I/O; no secret is ever shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, cast, get_args

from headrace.core.duration import Duration, seconds_of
from headrace.core.errors import ConfigError

__all__ = [
    "Compression",
    "KafkaOptions",
    "KafkaSecurity",
    "Mechanism",
    "Partitioner",
    "SecurityProtocol",
    "Token",
    "addresses",
]

SecurityProtocol = Literal["plaintext", "tls", "sasl_plaintext", "sasl_tls"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]
Compression = Literal["none", "gzip", "snappy", "lz4", "zstd"]
Partitioner = Literal["murmur2_random", "consistent_random"]
DriverValue = str | int | float | bool

_MIB = 1024 * 1024
_LONGEST_LINGER = 900.0
_LONGEST_TIMEOUT = 2_147_483.0
"""The driver counts milliseconds in 31 bits."""

_PORT = 9092
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s:/@?#\[\]]+)(:(?P<port>[0-9]{1,5}))?\Z")

_OWNED = {
    "acks",
    "auto.offset.reset",
    "bootstrap.servers",
    "client.id",
    "delivery.report.only.error",  # a success without a report would leave its caller waiting
    "delivery.timeout.ms",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "isolation.level",
    "log.queue",
    "logger",
    "max.poll.interval.ms",
    "message.timeout.ms",
    "metadata.broker.list",
    "on_commit",
    "on_delivery",
    "opaque",
    "partition.assignment.strategy",
    "request.required.acks",
    "session.timeout.ms",
    "transactional.id",
}
"""What headrace itself decides, under every name that the driver has for it (and `group.*`, callbacks, secrets)."""
_SECRET_WORDS = ("password", "secret", "passphrase", "key.pem", "ssl_key", "oauthbearer.config")


@dataclass(frozen=True)
class Token:
    """What a ``token`` callback answers: a bearer token, and when it `expires` (aware). It is asked again before."""

    value: str = field(repr=False)
    expires: datetime

    def __post_init__(self) -> None:
        if not isinstance(self.value, str) or not self.value:
            raise ConfigError("the value of a Token must be text that is not empty")
        if not isinstance(self.expires, datetime) or self.expires.tzinfo is None:
            raise ConfigError(f"expires must be an aware datetime, got {self.expires!r}")


@dataclass(frozen=True, kw_only=True)
class KafkaSecurity:
    """How we and the brokers know each other. A wrong value is a ``ConfigError`` that names the field, never a secret.

    ``protocol``: ``tls`` and ``sasl_tls`` verify certificate and host name of every broker, by ``ca_file`` (PEM) or
    the system's authorities. ``certificate_file``, ``key_file``, ``key_password``: who we are (PEM).
    ``mechanism``: with the sasl protocols; ``username`` and ``password`` for all but OAUTHBEARER, which takes
    ``token``, called in a thread whenever a token is needed.
    """

    protocol: SecurityProtocol = "plaintext"
    mechanism: Mechanism | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    token: Callable[[], Token] | None = field(default=None, repr=False)
    ca_file: str | Path | None = None
    certificate_file: str | Path | None = None
    key_file: str | Path | None = None
    key_password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        _check_choice(self, "protocol", SecurityProtocol)
        if self.mechanism is not None:
            _check_choice(self, "mechanism", Mechanism)
        for name in ("username", "password", "key_password"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value):
                raise ConfigError(f"{name} must be text that is not empty, got {type(value).__name__}")
        for name in ("ca_file", "certificate_file", "key_file"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str | Path) or not str(value)):
                raise ConfigError(f"{name} must be a path, got {value!r}")
        if self.token is not None and not callable(self.token):
            raise ConfigError(f"token must be callable, got {type(self.token).__name__}")
        self._check_sasl()
        self._check_tls()

    def _check_sasl(self) -> None:
        given = [name for name in ("mechanism", "username", "password", "token") if getattr(self, name) is not None]
        if not self.protocol.startswith("sasl_"):
            if given:
                raise ConfigError(f"{given[0]} needs a sasl protocol, got protocol={self.protocol!r}")
            return
        if self.mechanism is None:
            raise ConfigError(f"protocol={self.protocol!r} needs a mechanism")
        bearer = self.mechanism == "OAUTHBEARER"
        for name in ("token",) if bearer else ("username", "password"):
            if name not in given:
                raise ConfigError(f"mechanism={self.mechanism!r} needs a {name}")
        for name in ("username", "password") if bearer else ("token",):
            if name in given:
                raise ConfigError(f"mechanism={self.mechanism!r} takes no {name}")

    def _check_tls(self) -> None:
        names = ("ca_file", "certificate_file", "key_file", "key_password")
        given = [name for name in names if getattr(self, name) is not None]
        if given and not self.protocol.endswith("tls"):
            raise ConfigError(f"{given[0]} needs protocol tls or sasl_tls, got protocol={self.protocol!r}")
        if (self.certificate_file is None) != (self.key_file is None):
            raise ConfigError("certificate_file and key_file need each other")
        if self.key_password is not None and self.key_file is None:
            raise ConfigError("key_password needs a key_file")


@dataclass(frozen=True, kw_only=True)
class KafkaOptions:
    """How the clients of a `KafkaBroker` are made.

    ``client_id``: what brokers log. ``id_header``: the header that carries a message's id. ``driver_options``: raw
    settings of librdkafka by its own names, copied and unchecked but for these: what headrace owns is refused here, a
    name that the driver does not know when the broker is opened.

    Sending: ``delivery_timeout`` (None: the driver repeats for ever), ``linger`` (wait for more before a request),
    ``compression``, ``max_message_bytes`` (body, key and headers), ``max_buffered_bytes`` (accepted and not yet
    confirmed), ``partitioner`` (the default puts a key where Java clients put it).
    """

    client_id: str = "headrace"
    security: KafkaSecurity | None = None
    id_header: str = "Headrace-Id"
    driver_options: Mapping[str, DriverValue] = field(default_factory=dict[str, DriverValue])
    delivery_timeout: Duration | None = None
    linger: Duration = 0.005
    compression: Compression = "none"
    max_message_bytes: int = 1_000_000
    max_buffered_bytes: int = 64 * _MIB
    partitioner: Partitioner = "murmur2_random"

    def __post_init__(self) -> None:
        for name in ("client_id", "id_header"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value or not value.isprintable():
                raise ConfigError(f"{name} must be printable text that is not empty, got {value!a}")
        if self.security is not None and not isinstance(self.security, KafkaSecurity):
            raise ConfigError(f"security must be KafkaSecurity, got {type(self.security).__name__}")
        _check_choice(self, "compression", Compression)
        _check_choice(self, "partitioner", Partitioner)
        object.__setattr__(self, "driver_options", _checked_driver_options(self.driver_options))
        self._check_sending()

    def _check_sending(self) -> None:
        linger = seconds_of(self.linger, "linger", most=_LONGEST_LINGER)
        if self.delivery_timeout is not None:
            timeout = seconds_of(self.delivery_timeout, "delivery_timeout", least=0.001, most=_LONGEST_TIMEOUT)
            if timeout <= linger:
                raise ConfigError(f"delivery_timeout must be over linger ({linger:g} s), got {self.delivery_timeout!r}")
        _check_range(self, "max_message_bytes", 1_000, 1_000_000_000)
        _check_range(self, "max_buffered_bytes", 1_024, 2_147_483_647 * 1_024)
        if self.max_buffered_bytes < self.max_message_bytes:
            raise ConfigError(
                f"max_buffered_bytes must be at least max_message_bytes ({self.max_message_bytes}), "
                f"got {self.max_buffered_bytes!r}"
            )


def addresses(brokers: str | Sequence[str]) -> list[str]:
    """The addresses ``host:port`` in order, each once, from a comma list or several. ``ConfigError`` for any other.

    Without a port it is 9092.
    """
    texts: list[object] = [brokers] if isinstance(brokers, str) else list(brokers) if _is_list(brokers) else [None]
    found: dict[str, None] = {}
    for text in texts:
        if not isinstance(text, str):
            raise ConfigError(f"brokers must be host:port, or several, got {brokers!r}")
        for part in text.split(","):
            if address := part.strip():
                found[_checked_address(address)] = None
    if not found:
        raise ConfigError(f"brokers must name at least one host:port, got {brokers!r}")
    return list(found)


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, bytes)


def _checked_address(address: str) -> str:
    found = _ADDRESS.match(address)
    if found is None or not 0 < int(found["port"] or _PORT) < 65_536:
        raise ConfigError(f"brokers must be host:port, got {_shown(address)}")
    return address if found["port"] else f"{address}:{_PORT}"


def _shown(address: str) -> str:
    """Without what stands before an ``@``: who writes a URL here may have put a password into it."""
    return ascii(f"…@{address.rpartition('@')[2]}" if "@" in address else address)


def _checked_driver_options(given: Mapping[str, DriverValue]) -> Mapping[str, DriverValue]:
    if not isinstance(given, Mapping):
        raise ConfigError(f"driver_options must be a mapping, got {type(given).__name__}")
    copied = dict(given)
    for name, value in cast("dict[object, object]", copied).items():
        if not isinstance(name, str) or not name:
            raise ConfigError(f"driver_options: names must be text, got {name!r}")
        if _is_owned(name):
            raise ConfigError(f"driver_options: {name} is headrace's own")
        if not isinstance(value, str | int | float | bool):
            raise ConfigError(f"driver_options: {name} must be str, int, float or bool, got {type(value).__name__}")
    return copied


def _is_owned(name: str) -> bool:
    return (
        name in _OWNED
        or name.startswith("group.")
        or name.endswith("_cb")
        or any(word in name for word in _SECRET_WORDS)
    )


def _check_choice(options: object, name: str, choices: Any) -> None:
    value = getattr(options, name)
    if not isinstance(value, str) or value not in get_args(choices):
        raise ConfigError(f"{name} must be one of {', '.join(get_args(choices))}, got {value!r}")


def _check_range(options: object, name: str, least: int, most: int) -> None:
    value = getattr(options, name)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigError(f"{name} must be an integer in {least}..{most}, got {value!r}")
