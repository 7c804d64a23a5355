"""KafkaServer: a real Apache Kafka beside a test, killed and started again on what it stored."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from headrace.core.errors import BrokerError, UsageError
from headrace.testing.kafka.jars import find_java, find_libs
from headrace.testing.kafka.process import Guarded
from headrace.testing.kafka.settings import Sasl, Seat, Tls, new_cluster_id, properties, scram_arguments, text

__all__ = ["QUICK", "KafkaServer", "archive_of"]

QUICK = ("-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto")
"""Options of the JVM with which a broker starts in half the time; for throughput give others."""

_PATIENCE = 60.0
_STEP = 0.02
_START_ATTEMPTS = 3
_SAID = 2_000  # characters of the log that go into an error


def archive_of(libs: Path) -> Path:
    """Where ``python -m headrace.testing.kafka`` keeps the classes of these jars as a JVM loads them fastest."""
    return libs.with_name("classes.jsa")


class KafkaServer:
    """One broker that is its own controller, on 127.0.0.1; a context manager that starts it and, at the end, ends it.

    `config` adds to ``server.properties`` or overrides it; `java_options` go to the JVM. With `tls` or `sasl` clients
    must speak so (`bootstrap` is theirs, the broker's own listener stays plain). `advertised` is the port that clients
    are sent to in place of its own: a ``Proxy``'s, say. `libs` is where Kafka's jars are (``find_libs()``).
    `address`, ``host:port``, is of a running plain broker to use instead of starting one: what would start, end or
    freeze it raises ``UsageError`` then. Automatic creation of topics is off: see `create_topic`. Calls block, for
    seconds at a start.
    """

    def __init__(
        self,
        *,
        config: Mapping[str, str] | None = None,
        tls: Tls | None = None,
        sasl: Sasl | None = None,
        advertised: int | None = None,
        libs: Path | None = None,
        java_options: Sequence[str] = QUICK,
        seat: Seat | None = None,
        cluster: str | None = None,
        address: str | None = None,
    ) -> None:
        self.seat = seat or Seat()
        self.cluster = cluster or new_cluster_id()
        """Its id, as brokers tell it."""
        self._address = address
        self._told = seat is not None  # others know its ports: they are not changed any more
        self._config = dict(config or {})
        self._tls = tls
        self._sasl = sasl
        self._advertised = advertised
        self._libs = libs
        self._java_options = tuple(java_options)
        self._process: Guarded | None = None

    def __enter__(self) -> Self:
        if self._address is not None:
            self.wait_ready()
            return self
        for attempt in range(_START_ATTEMPTS):
            try:
                self.open()
                self.start()
                break
            except BaseException as error:
                self.close()
                if not isinstance(error, BrokerError) or attempt == _START_ATTEMPTS - 1 or not self._may_move():
                    raise
                self.seat = Seat()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it, and remove all that is its own; what the end of the context does."""
        if self._process is not None:
            self._process.close()
            self._process = None

    @property
    def bootstrap(self) -> str:
        """``host:port``, where clients find it, the same after each start."""
        return self._address or f"127.0.0.1:{self._advertised or self.seat.port}"

    @property
    def inner(self) -> str:
        """``host:port`` of its own listener, plain whatever clients must speak."""
        return self._address or f"127.0.0.1:{self.seat.inner_port}"

    @property
    def pid(self) -> int:
        """Of the running process; ``UsageError`` when none runs."""
        return self._home().pid

    @property
    def running(self) -> bool:
        """Whether a process of it lives."""
        return self._process is not None and self._process.running

    @property
    def log(self) -> Path:
        """The file that all its runs have written to; it goes with the context."""
        return self._home().log

    def said(self) -> str:
        """What it has logged since it was last started: little, without a binding of slf4j among the jars."""
        return self._home().said()

    def start(self) -> None:
        """Start it, again after `kill` and `stop`: same ports, same data; returns when it has taken a message.

        ``UsageError`` if it runs, ``BrokerError`` with the end of its log if it will not start.
        """
        self.launch()
        self.wait_ready()

    def open(self) -> None:
        """Make its folder, with formatted storage; for a cluster, whose nodes start together."""
        self._process = Guarded(f"the Kafka on {self.bootstrap}")
        data = self._process.folder / "data"
        settings = properties(self.seat, data, advertised=self._advertised, tls=self._tls, sasl=self._sasl)
        conf = self._process.folder / "server.properties"
        conf.write_text(text(settings | self._config), encoding="utf-8")
        tool = ["kafka.tools.StorageTool", "format", "-t", self.cluster, "-c", str(conf), *scram_arguments(self._sasl)]
        if self._process.run(self._java(*tool), _PATIENCE) != 0:
            raise self._failed("does not format its storage")

    def launch(self) -> None:
        """Start it and do not wait; ``UsageError`` if it runs."""
        if self.running:
            raise UsageError(f"the Kafka on {self.bootstrap} runs already")
        self._home().start(self._java("kafka.Kafka", str(self._home().folder / "server.properties")))

    def wait_ready(self, timeout: float = _PATIENCE) -> None:
        """Return once it has taken an idempotent message; ``BrokerError`` when it has ended, or is late."""
        from headrace.testing.kafka.probing import gives_producer_ids, take_one  # noqa: PLC0415  (needs the driver)

        if self._address is not None:
            take_one(self._address, timeout=timeout)
            return
        deadline = time.monotonic() + timeout
        while not gives_producer_ids(self.seat.inner_port):
            if not self.running or time.monotonic() > deadline:
                raise self._failed("does not start")
            time.sleep(_STEP)
        try:
            take_one(self.inner, cluster=self.cluster, node=self.seat.number, timeout=deadline - time.monotonic())
        except BrokerError as error:
            raise self._failed(f"does not start ({error})") from error

    def kill(self) -> None:
        """End it at once, as a crash would (SIGKILL); what the kernel has of its files survives."""
        self._home().kill()

    def stop(self) -> None:
        """End it in good order (SIGTERM): it hands over what it leads; killed when it takes more than 30 s."""
        self._home().stop()

    def pause(self) -> None:
        """Freeze it: its connections stay open and silent (SIGSTOP)."""
        self._home().pause()

    def resume(self) -> None:
        """Let it go on after `pause`."""
        self._home().resume()

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> None:
        """Make a topic and wait until each of its partitions has a leader. ``BrokerError`` if that cannot be."""
        from headrace.testing.kafka.probing import create_topic  # noqa: PLC0415  (needs the driver)

        create_topic(self.inner, name, partitions, config)

    def _may_move(self) -> bool:
        """Whether somebody else has one of its ports, and nobody knows them yet."""
        return not self._told and any(_answers(port) for port in self.seat.ports)

    def _java(self, *arguments: str) -> list[str]:
        libs = self._libs or find_libs()
        archive = archive_of(libs)
        known = [f"-XX:SharedArchiveFile={archive}"] if archive.exists() else []
        return [find_java(), *known, *self._java_options, "-cp", f"{libs}/*", *arguments]

    def _home(self) -> Guarded:
        if self._address is not None:
            raise UsageError(f"the Kafka on {self._address} was not started here: it is not for us to end or freeze")
        if self._process is None:
            raise UsageError("a KafkaServer lives inside `with KafkaServer() as server:`")
        return self._process

    def _failed(self, what: str) -> BrokerError:
        home = self._home()
        status = f", exit status {home.ended}" if home.ended is not None else ""
        return BrokerError(f"{home.name} {what}{status}:\n{home.said()[-_SAID:]}")


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
