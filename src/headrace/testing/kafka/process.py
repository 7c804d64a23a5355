"""A program that cannot outlive us: in a process group of its own, with a guard that ends it when we are gone."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from headrace.core.errors import UsageError

__all__ = ["Guarded"]

_PATIENCE = 30.0
# Lines on its standard input: the process group to end, or an empty line for none. The end of the input is our end,
# by whatever signal: the kernel closes the pipe. What was told to die writes for a moment more, in spite of `rm`.
_GUARD = """
group=; while read -r next; do group=$next; done
if [ -n "$group" ]; then
  looks=200; kill -9 -- "-$group"
  while kill -0 -- "-$group" && [ $looks -gt 0 ]; do looks=$((looks - 1)); sleep 0.05; done
fi
rm -rf -- "$1"
"""


class Guarded:
    """A temporary folder, and one program at a time that runs in it; both go with `close`, or with this process.

    `name` says in errors what does not run.
    """

    def __init__(self, name: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="headrace-kafka-"))
        self.log = self.folder / "log"
        """What all its programs have said, on both outputs."""
        self.name = name
        self._seen = 0  # bytes of the log that earlier programs wrote
        self._process: subprocess.Popen[bytes] | None = None
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "sh", str(self.folder)],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def close(self) -> None:
        """End the program as `kill` does, and remove the folder."""
        self.kill()
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        self._guard.wait()
        shutil.rmtree(self.folder, ignore_errors=True)  # should a file have come while the guard removed it

    @property
    def running(self) -> bool:
        """Whether the program lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def ended(self) -> int | None:
        """The exit status of the program that was last started; ``None`` while it runs, and after `kill`."""
        return self._process.poll() if self._process is not None else None

    @property
    def pid(self) -> int:
        """Of the running program; ``UsageError`` when none runs."""
        return self._running().pid

    def start(self, command: Sequence[str]) -> None:
        """Run this in the folder, its output going to the log."""
        with self.log.open("ab") as log:
            self._seen = log.tell()
            self._process = subprocess.Popen(
                command, cwd=self.folder,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._tell(str(self._process.pid))

    def run(self, command: Sequence[str], timeout: float = _PATIENCE) -> int | None:
        """`start` it and wait for its end: the exit status, or ``None`` when it took too long and was killed."""
        self.start(command)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._running().wait(timeout)
        self.kill()
        return None

    def kill(self) -> None:
        """End it and its children at once (SIGKILL)."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # gone; macOS says it of a dead group so
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
            self._tell("")

    def stop(self) -> None:
        """Ask it to end (SIGTERM); killed when it takes more than 30 s."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_PATIENCE)
            self.kill()

    def pause(self) -> None:
        """Freeze it (SIGSTOP)."""
        process = self._running()
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)  # its threads stop one by one

    def resume(self) -> None:
        """Let it go on after `pause` (SIGCONT)."""
        self._running().send_signal(signal.SIGCONT)

    def said(self) -> str:
        """What the program that was last started has said."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(self._seen)
            return log.read().decode(errors="replace")

    def _tell(self, group: str) -> None:
        if self._guard.stdin is not None:
            self._guard.stdin.write(group.encode() + b"\n")
            self._guard.stdin.flush()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise UsageError(f"{self.name} does not run")
        return self._process
