"""One broker for all processes of a test run: the first that asks has it started, the end of the run ends it.

It runs under a process of its own, ``python -m headrace.testing.kafka.shared``, which looks five times a second whether
the run is still there: so no test process has to wait for the others, and none takes the broker with it when it dies.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

from headrace.core.errors import BrokerError
from headrace.testing.kafka.jars import find_java, find_libs
from headrace.testing.kafka.server import KafkaServer

__all__ = ["shared_address"]

_PATIENCE = 90.0
_STEP = 0.02
_LOOK = 0.2
# The shell ends at once, so what it has started is nobody's child: no process of the run has to wait for it.
_DETACH = 'log=$1 ended=$2; shift 2; { "$@"; : >"$ended"; } </dev/null >"$log" 2>&1 &'


def shared_address(folder: Path, owner: int) -> str:
    """``host:port`` of the broker of this folder, which is started if there is none; it ends with the process `owner`.

    ``ConfigError`` without java or jars, ``BrokerError`` if it does not start.
    """
    find_java()
    find_libs()
    address = folder / "kafka-address"
    with (folder / "kafka-lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not address.exists():
            _start(folder, address, owner)
        return address.read_text(encoding="ascii")


def _start(folder: Path, address: Path, owner: int) -> None:
    log, ended = folder / "kafka-log", folder / "kafka-ended"
    ended.unlink(missing_ok=True)
    command = [sys.executable, "-m", "headrace.testing.kafka.shared", str(address), str(owner)]
    subprocess.run(["/bin/sh", "-c", _DETACH, "sh", str(log), str(ended), *command], check=True, start_new_session=True)
    deadline = time.monotonic() + _PATIENCE
    while not address.exists():
        if ended.exists() or time.monotonic() > deadline:
            raise BrokerError(f"no Kafka for this run:\n{log.read_text(encoding='utf-8', errors='replace')[-2_000:]}")
        time.sleep(_STEP)


def _keep(address: Path, owner: int) -> None:
    with KafkaServer() as server:
        new = address.with_suffix(".new")
        new.write_text(server.bootstrap, encoding="ascii")
        new.replace(address)
        while _lives(owner):
            time.sleep(_LOOK)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    _keep(Path(sys.argv[1]), int(sys.argv[2]))
