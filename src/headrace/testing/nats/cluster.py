"""NatsCluster: three servers that replicate, for what happens when leaders move."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from typing import Any, Self, TypeVar, cast

from headrace.core.errors import BrokerError, BrokerTimeoutError
from headrace.testing.nats.asking import ask
from headrace.testing.nats.server import NatsServer, free_port

__all__ = ["NatsCluster"]

T = TypeVar("T")

_PATIENCE = 60.0
_REFUSED = (OSError, HTTPException, BrokerTimeoutError, ValueError)


class NatsCluster:
    """So many servers with routes between them and JetStream on each; ready when a stream finds a place on all.

    ``servers`` can be killed and started one by one; `config` goes to each. The first election takes seconds.
    """

    def __init__(self, size: int = 3, *, config: str = "") -> None:
        routes = [free_port() for _ in range(size)]
        self.servers = [self._server(number, routes, config) for number in range(size)]
        self._monitors = {server.port: int(server.args[-1]) for server in self.servers}
        self._open = contextlib.ExitStack()

    @staticmethod
    def _server(number: int, routes: list[int], config: str) -> NatsServer:
        others = ", ".join(f'"nats-route://127.0.0.1:{port}"' for port in routes)
        text = f"""
            server_name: n{number}
            cluster {{ name: mill, listen: "127.0.0.1:{routes[number]}", routes: [{others}] }}
        """
        return NatsServer(config=text + config, port=free_port(), args=("-m", str(free_port())))

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opening:
            for server in self.servers:
                opening.enter_context(server)
            self.wait_ready()
            self._patiently("no place for a stream", self._has_places)
            self._open = opening.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def urls(self) -> list[str]:
        """Of all servers, running or not."""
        return [server.url for server in self.servers]

    @property
    def running(self) -> list[NatsServer]:
        """The servers that run."""
        return [server for server in self.servers if server.running]

    def wait_ready(self) -> None:
        """Return once every running server knows a meta leader that sees the others; ``BrokerError`` after a minute."""
        self._patiently("no meta leader", self._is_ready)

    def leader_of(self, stream: str, consumer: str | None = None) -> NatsServer:
        """The server that leads this stream, or this consumer of it; waits for an election that is going on."""
        return self._patiently(f"no leader of {stream} {consumer or ''}", lambda: self._leader(stream, consumer))

    def step_down(self, stream: str, consumer: str | None = None) -> NatsServer:
        """Have its leader step down; the new one, which a server may refuse to be elected for seconds."""
        before = self.leader_of(stream, consumer)
        path = f"CONSUMER.LEADER.STEPDOWN.{stream}.{consumer}" if consumer else f"STREAM.LEADER.STEPDOWN.{stream}"
        ask(before.port, path)
        self._patiently(f"{stream} {consumer or ''} keeps its leader", lambda: self._leader(stream, consumer) != before)
        return self.leader_of(stream, consumer)

    def wait_current(self, stream: str) -> None:
        """Return once every replica of the stream is on line and has caught up."""
        self._patiently(f"{stream} has replicas that lag", lambda: self._is_current(stream))

    def _leader(self, stream: str, consumer: str | None) -> NatsServer | None:
        path = f"CONSUMER.INFO.{stream}.{consumer}" if consumer else f"STREAM.INFO.{stream}"
        name = self._cluster(path).get("leader")
        return next((server for server in self.running if name == f"n{self.servers.index(server)}"), None)

    def _is_current(self, stream: str) -> bool:
        cluster = self._cluster(f"STREAM.INFO.{stream}")
        peers = cast("list[dict[str, Any]]", cluster.get("replicas") or [])
        return "leader" in cluster and all(peer["current"] and not peer.get("offline") for peer in peers)

    def _cluster(self, path: str) -> dict[str, Any]:
        return cast("dict[str, Any]", ask(self.running[0].port, path, timeout=2).get("cluster") or {})

    def _is_ready(self) -> bool:
        running = self.running
        seen = [self._meta(server) for server in running]
        leaders = {meta.get("leader") for meta in seen}
        peers = [peer for meta in seen for peer in meta.get("replicas") or ()]  # the leader alone lists them
        there = sum(peer["current"] and not peer.get("offline") for peer in peers)
        return len(leaders) == 1 and all(leaders) and there >= len(running) - 1

    def _has_places(self) -> bool:
        """Whether a leader finds room on every server: one that has not told its state yet counts as off line."""
        probe, port = "headrace-probe", self.servers[0].port
        config = {"name": probe, "subjects": [probe], "storage": "memory", "num_replicas": len(self.servers)}
        made = ask(port, f"STREAM.CREATE.{probe}", config)
        return "config" in made and bool(ask(port, f"STREAM.DELETE.{probe}").get("success"))

    def _meta(self, server: NatsServer) -> dict[str, Any]:
        link = HTTPConnection("127.0.0.1", self._monitors[server.port], timeout=2)
        try:
            link.request("GET", "/jsz")
            answer = cast("dict[str, Any]", json.loads(link.getresponse().read()))
        finally:
            link.close()
        return cast("dict[str, Any]", answer.get("meta_cluster") or {})

    def _patiently(self, what: str, look: Callable[[], T | None]) -> T:
        """The first true answer; `BrokerError` with `what` when there is none for a minute."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            with contextlib.suppress(*_REFUSED):
                if found := look():
                    return found
            time.sleep(0.02)
        raise BrokerError("\n".join([f"{what} in {_PATIENCE:g} s", *map(self._state, self.servers)]))

    def _state(self, server: NatsServer) -> str:
        """For an error: what a server thinks, and the end of its log."""
        try:
            meta = str(self._meta(server))
        except _REFUSED as error:
            meta = repr(error)
        return f"{server.url} {'runs' if server.running else 'has ended'}: {meta}\n{server.said()[-1_000:]}"
