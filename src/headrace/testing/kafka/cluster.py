"""KafkaCluster: brokers that replicate, for what happens when leaders move."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from headrace.testing.kafka.server import QUICK, KafkaServer
from headrace.testing.kafka.settings import Sasl, Seat, Tls, new_cluster_id

__all__ = ["KafkaCluster"]


class KafkaCluster:
    """So many brokers that are controllers as well, each topic on all of them unless told otherwise.

    ``servers`` can be killed and started one by one; of three, one may be away, and what it led has a new leader after
    3 s. A message is accepted (``acks=all``) once it is on two. Options are those of `KafkaServer`, for each of them.
    """

    def __init__(
        self,
        size: int = 3,
        *,
        config: Mapping[str, str] | None = None,
        tls: Tls | None = None,
        sasl: Sasl | None = None,
        libs: Path | None = None,
        java_options: Sequence[str] = QUICK,
    ) -> None:
        seats = [Seat(number=number) for number in range(1, size + 1)]
        voters = {seat.number: seat.controller_port for seat in seats}
        cluster = new_cluster_id()
        for seat in seats:
            seat.voters = voters
        self.servers = [
            KafkaServer(
                config=config, tls=tls, sasl=sasl, libs=libs, java_options=java_options, seat=seat, cluster=cluster
            )
            for seat in seats
        ]
        self._opened = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opening:
            for server in self.servers:
                opening.callback(server.close)
            _each(self.servers, KafkaServer.open)
            _each(self.servers, KafkaServer.launch)
            self.wait_ready()
            self._opened = opening.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    @property
    def bootstrap(self) -> str:
        """``host:port`` of all brokers, running or not, with commas between."""
        return ",".join(server.bootstrap for server in self.servers)

    @property
    def running(self) -> list[KafkaServer]:
        """The brokers that run."""
        return [server for server in self.servers if server.running]

    def wait_ready(self) -> None:
        """Return once every running broker has joined and messages are accepted; ``BrokerError`` after a minute."""
        _each(self.running, KafkaServer.wait_ready)

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> None:
        """Make a topic and wait until each of its partitions has a leader. ``BrokerError`` if that cannot be."""
        self.running[0].create_topic(name, partitions, config)

    def leader_of(self, topic: str, partition: int = 0) -> KafkaServer:
        """The broker that leads this partition; waits for an election that is going on."""
        from headrace.testing.kafka.probing import leader_of  # noqa: PLC0415  (needs the driver)

        number = leader_of(",".join(server.inner for server in self.running), topic, partition)
        return next(server for server in self.servers if server.seat.number == number)


def _each(servers: list[KafkaServer], step: Callable[[KafkaServer], None]) -> None:
    """At the same time: one is not ready before the others are on their way."""
    with ThreadPoolExecutor(len(servers) or 1) as pool:
        list(pool.map(step, servers))
