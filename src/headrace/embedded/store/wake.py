"""Wake: how the processes of one directory know of each other. One datagram socket and one lock file per member.

A member holds an advisory lock (flock) on its file in ``wake/`` while it lives. Whoever finds such a lock free lets
what that member held fall due at once. A commit sends one datagram to every other socket; a poll every 250 ms is
the net.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import apsw

from headrace.core.errors import HeadraceError
from headrace.embedded.store.job import Job
from headrace.embedded.store.locks import close_lock, open_lock
from headrace.embedded.store.sql import every
from headrace.embedded.store.store import Store

__all__ = ["Members"]

POLL = 0.25
LOOK_EVERY_NS = 20_000_000
LOCK, SOCKET = ".lock", ".sock"
_FD = Path("/proc/self/fd")
_MEMBER = re.compile(r"([0-9a-f]{16})\.lock")


class Members:
    """This process among the others."""

    def __init__(self, store: Store, wake: Callable[[], None]) -> None:
        assert store.path is not None  # noqa: S101  (only directories have members)
        self._store = store
        self._wake = wake
        self._folder = store.path / "wake"
        self._name = f"{store.member:016x}"
        self._directory = -1
        self._lock = -1
        self._socket: socket.socket | None = None
        self._poll: asyncio.TimerHandle | None = None
        self._versions: tuple[int, int] | None = None
        self._peers: list[str] = []
        self._left = False
        self._looked = 0
        self._burying = False
        self.wakeups = 0
        """How often other processes told that they had committed."""
        self._sending = False

    def join(self) -> None:
        """Lock, socket, poll. Without sockets the poll alone wakes."""
        self._open()
        self._tick()

    def _open(self) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._close_files()
        self._directory = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._take_lock()
        with suppress(OSError):
            self._bind()

    def _take_lock(self) -> None:
        """Locked before it gets its name: nobody may find it free."""
        fresh = f"{self._name}.new"
        self._lock = open_lock(fresh, folder=self._directory)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        os.rename(fresh, self._name + LOCK, src_dir_fd=self._directory, dst_dir_fd=self._directory)

    def _bind(self) -> None:
        own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        own.setblocking(False)
        mask = os.umask(0o177)
        try:
            own.bind(self._address(self._name))
        except OSError:
            own.close()
            raise
        finally:
            os.umask(mask)
        self._socket = own
        self._store.loop.add_reader(own.fileno(), self._receive)

    def _address(self, name: str) -> str:
        """Through the descriptor of the folder: a long path does not fit into a socket address."""
        folder = _FD / str(self._directory) if _FD.exists() else self._folder
        return str(folder / (name + SOCKET))

    def _receive(self) -> None:
        own = self._socket
        if own is None:
            return
        with suppress(OSError):
            for _ in range(1000):  # many commits are one wake-up
                own.recv(16)
        self.wakeups += 1
        self._wake()

    def notify(self) -> None:
        """Tell the others that something was committed: one datagram each for all commits of a turn."""
        if self._peers and not self._sending and not self._left:
            self._sending = True
            self._store.loop.call_soon(self._send)

    def _send(self) -> None:
        self._sending = False
        own = self._socket
        if own is None or self._left:
            return
        for peer in self._peers:
            try:
                own.sendto(b"!", self._address(peer))
            except (BlockingIOError, FileNotFoundError):
                continue  # a full buffer wakes it anyway; one without a socket polls
            except ConnectionRefusedError:
                with suppress(OSError):
                    os.unlink(peer + SOCKET, dir_fd=self._directory)
            except OSError:
                continue

    def _tick(self) -> None:
        """The net under the datagrams: look for new members, and whether a file has changed."""
        if self._left:
            return
        self._poll = self._store.loop.call_later(POLL, self._tick)
        try:
            if not (self._folder / (self._name + LOCK)).exists():
                self._open()
            self._peers = [name for name in self._others() if name != self._name]
        except OSError:
            self._peers = []
        dead = self._dead()
        if dead and not self._burying:
            self._burying = True
            self._store.consumers.submit(Burial(self, dead))
        with suppress(HeadraceError):
            versions = self._store.glance(_versions)
            if versions != self._versions or dead:
                self._versions = versions
                self._wake()

    def _others(self) -> list[str]:
        """Names of members; a file of any other name is not ours."""
        names = os.listdir(self._directory)  # noqa: PTH208  (a descriptor)
        return [found[1] for found in map(_MEMBER.fullmatch, names) if found is not None]

    def _dead(self) -> list[str]:
        return [name for name in self._peers if self._is_dead(name)]

    def _is_dead(self, name: str) -> bool:
        try:
            other = open_lock(name + LOCK, create=False, folder=self._directory)
        except OSError:
            return False
        try:
            fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two that look must not see each other
        except OSError:
            return False
        else:
            return True
        finally:
            close_lock(other)

    def first_look(self, connection: apsw.Connection) -> None:
        """At open: what belongs to members that are not there falls due (on the consumers thread).

        Their files stay until that is committed: the next tick buries them. One without a file may live and be about
        to make it again (``wake/`` was deleted): only who came alone knows that it does not.
        """
        names = set(self._others())
        living = {name for name in names if name == self._name or not self._is_dead(name)}
        owners = every(
            connection, "SELECT owner FROM lease WHERE owner != 0 UNION SELECT owner FROM pending WHERE owner != 0"
        )
        for (owner,) in owners:
            name = f"{owner:016x}"
            if name not in living and (name in names or self._store.alone):
                release(connection, owner)

    def hand_over(self, connection: apsw.Connection) -> None:
        """Before a claim: what members held that died since falls due at once, before new messages.

        The claim may yet be rolled back, so the next one looks again, until they are buried.
        """
        now = self._store.boot_ns()
        if now - self._looked < LOOK_EVERY_NS or not self._peers:
            return
        dead = self._dead()
        if not dead:
            self._looked = now
        for name in dead:
            release(connection, int(name, 16))

    def buried(self, names: list[str]) -> None:
        """What they held was released, and that is committed."""
        self._burying = False
        for name in names:
            self._bury(name)

    def _bury(self, name: str) -> None:
        for suffix in (LOCK, SOCKET):
            with suppress(OSError):
                os.unlink(name + suffix, dir_fd=self._directory)

    def leave(self) -> None:
        """Not a member any more; nothing stays behind."""
        if self._left:
            return
        self._left = True
        if self._poll is not None:
            self._poll.cancel()
        self._bury(self._name)
        self._close_files()

    def _close_files(self) -> None:
        if self._socket is not None:
            self._store.loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
        if self._lock >= 0:
            close_lock(self._lock)
        if self._directory >= 0:
            os.close(self._directory)
        self._lock = self._directory = -1


def _versions(connection: apsw.Connection) -> tuple[int, int]:
    """Numbers that change with every commit of another connection, one for each file."""
    main = connection.pragma("data_version", schema="main")
    return main, connection.pragma("data_version", schema="consumers_ro")


class Burial(Job):
    """Dead members: what they held falls due. Once that is committed their files go: without one nobody finds them."""

    weight = 0
    isolated = True

    def __init__(self, members: Members, names: list[str]) -> None:
        self._members = members
        self._names = names

    def run(self, connection: apsw.Connection) -> None:
        """Release it."""
        for name in self._names:
            release(connection, int(name, 16))

    def done(self) -> None:
        """They held nothing more."""
        self._members.buried(self._names)

    def failed(self, error: BaseException) -> None:
        """The next tick tries again."""
        self._members.buried([])


def release(connection: apsw.Connection, owner: int) -> None:
    """What this member held falls due."""
    connection.execute("UPDATE lease SET deadline = 0, owner = 0 WHERE owner = ?", (owner,))
    connection.execute("UPDATE pending SET due = 0, owner = NULL WHERE owner = ?", (owner,))
