"""What a broker is told: ``server.properties`` from a few choices, and the text of its command line."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from headrace.core.errors import ConfigError
from headrace.testing.nats.server import free_port

__all__ = ["Sasl", "Seat", "Tls", "new_cluster_id", "properties", "scram_arguments", "text"]

_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule"


@dataclass(frozen=True, kw_only=True)
class Tls:
    """Clients speak TLS: paths of PEM files, the key in PKCS 8 without a password.

    With `clients`, the path of an authority's certificate, a client must show a certificate of that authority.
    """

    certificate: Path
    key: Path
    clients: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Sasl:
    """Clients log in: `users` maps names to passwords, each good for every mechanism of `mechanisms`."""

    users: Mapping[str, str]
    mechanisms: tuple[str, ...] = _MECHANISMS

    def __post_init__(self) -> None:
        if unknown := set(self.mechanisms) - set(_MECHANISMS):
            raise ConfigError(f"mechanisms {sorted(unknown)}: only {', '.join(_MECHANISMS)}")
        if odd := [name for name, word in self.users.items() if not (name + word).isalnum()]:
            raise ConfigError(f"users {odd}: letters and digits only, these go through three kinds of quotes")


@dataclass
class Seat:
    """A node's number and ports, and the controller ports of all voters by number (its own alone by default)."""

    number: int = 1
    port: int = field(default_factory=free_port)
    inner_port: int = field(default_factory=free_port)
    controller_port: int = field(default_factory=free_port)
    voters: Mapping[int, int] = field(default_factory=dict[int, int])

    def __post_init__(self) -> None:
        self.voters = self.voters or {self.number: self.controller_port}

    @property
    def ports(self) -> tuple[int, int, int]:
        """All three."""
        return self.port, self.inner_port, self.controller_port


def new_cluster_id() -> str:
    """22 characters of base64, as Kafka wants it; not beginning with a dash, which would read as an option."""
    while (made := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return made


def properties(seat: Seat, data: Path, *, advertised: int | None, tls: Tls | None, sasl: Sasl | None) -> dict[str, str]:
    """Of one node. INNER is for brokers among themselves and for us, always plain; CLIENTS is for those who test."""
    return {
        "process.roles": "broker,controller",
        "node.id": str(seat.number),
        "controller.quorum.voters": ",".join(f"{number}@127.0.0.1:{port}" for number, port in seat.voters.items()),
        "listeners": f"CLIENTS://127.0.0.1:{seat.port},INNER://127.0.0.1:{seat.inner_port},"
        f"CONTROLLER://127.0.0.1:{seat.controller_port}",
        "advertised.listeners": f"CLIENTS://127.0.0.1:{advertised or seat.port},INNER://127.0.0.1:{seat.inner_port}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "INNER",
        "listener.security.protocol.map": f"CLIENTS:{_protocol(tls, sasl)},INNER:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(data),
        "num.partitions": "4",
        "auto.create.topics.enable": "false",
        "group.initial.rebalance.delay.ms": "0",
        # after 7 days is the default, counted from the time that a message has: tests give them any
        "log.retention.ms": "-1",
        # the default, 50 partitions of each, takes seconds to make on a small machine
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.num.partitions": "4",
        # a killed broker is given up, and may come back, after 3 s in place of 9
        "broker.heartbeat.interval.ms": "500",
        "broker.session.timeout.ms": "3000",
        **_replication(len(seat.voters)),
        **_tls_properties(tls),
        **_sasl_properties(sasl),
    }


def text(settings: Mapping[str, str]) -> str:
    """As a Java properties file, which wants backslashes and line ends escaped."""
    lines = (f"{name}={value}".replace("\\", "\\\\").replace("\n", "\\n") for name, value in settings.items())
    return "\n".join(lines) + "\n"


def scram_arguments(sasl: Sasl | None) -> list[str]:
    """For the formatting of the first node: users of SCRAM are part of the stored metadata."""
    if sasl is None:
        return []
    scram = [mechanism for mechanism in sasl.mechanisms if mechanism != "PLAIN"]
    return [
        argument
        for mechanism in scram
        for name, password in sasl.users.items()
        for argument in ("--add-scram", f"{mechanism}=[name={name},password={password}]")
    ]


def _replication(size: int) -> dict[str, str]:
    """On all nodes, of which one may be killed and messages are still accepted."""
    quorum = str(min(2, size))
    return {
        "default.replication.factor": str(size),
        "min.insync.replicas": quorum,
        "offsets.topic.replication.factor": str(size),
        "transaction.state.log.replication.factor": str(size),
        "transaction.state.log.min.isr": quorum,
        "share.coordinator.state.topic.replication.factor": str(size),
        "share.coordinator.state.topic.min.isr": quorum,
    }


def _protocol(tls: Tls | None, sasl: Sasl | None) -> str:
    if sasl is None:
        return "PLAINTEXT" if tls is None else "SSL"
    return "SASL_PLAINTEXT" if tls is None else "SASL_SSL"


def _tls_properties(tls: Tls | None) -> dict[str, str]:
    if tls is None:
        return {}
    found = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.certificate.chain": tls.certificate.read_text(encoding="ascii"),
        "ssl.keystore.key": tls.key.read_text(encoding="ascii"),
    }
    if tls.clients is not None:
        found |= {
            "ssl.truststore.type": "PEM",
            "ssl.truststore.certificates": tls.clients.read_text(encoding="ascii"),
            "ssl.client.auth": "required",
        }
    return {f"listener.name.clients.{name}": value for name, value in found.items()}


def _sasl_properties(sasl: Sasl | None) -> dict[str, str]:
    if sasl is None:
        return {}
    words = " ".join(f'user_{name}="{password}"' for name, password in sasl.users.items())
    logins = {"PLAIN": f"{_PLAIN} required {words};"}
    found = {"sasl.enabled.mechanisms": ",".join(sasl.mechanisms)}
    for mechanism in sasl.mechanisms:
        found[f"{mechanism.lower()}.sasl.jaas.config"] = logins.get(mechanism, f"{_SCRAM} required;")
    return {f"listener.name.clients.{name}": value for name, value in found.items()}
