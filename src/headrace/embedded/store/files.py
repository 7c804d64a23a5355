"""The directory on disk: modes, owners, symlinks, file systems, the reserve, and the turnstile between processes."""

from __future__ import annotations

import fcntl
import os
import stat
import threading
import warnings
from contextlib import suppress
from pathlib import Path

from headrace.core.errors import ConfigError, StoreError
from headrace.embedded.errors import NotAStoreError, StoreLockedError, StoreNotFoundError
from headrace.embedded.store.locks import close_lock, open_lock

__all__ = [
    "CONSUMERS_FILE",
    "MAKING",
    "RESERVE",
    "STREAMS_FILE",
    "Turnstile",
    "create_file",
    "hold",
    "join",
    "prepare",
    "reserve",
    "sync_directory",
]

STREAMS_FILE = "streams.db"
CONSUMERS_FILE = "consumers.db"
RESERVE = "reserve"
LOCKS = "locks"
WAKE = "wake"
MAKING = ".making"
_KNOWN = {RESERVE, LOCKS, WAKE, "lock"}
_OURS = (STREAMS_FILE, CONSUMERS_FILE)
_REFUSED = {"nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "afs", "ceph", "glusterfs", "lustre", "sshfs"}
_REFUSED_FUSE = {"fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.cephfs", "fuse.s3fs", "fuse.rclone"}
_WARNED = {"9p", "virtiofs"}
MOUNTS = Path("/proc/self/mounts")
PAUSE = 0.005
"""Between two looks at a lock that is waited for with patience: the kernel's own wait has no end."""


def prepare(path: str | os.PathLike[str], *, create: bool, read_only: bool) -> Path:
    """The directory, resolved and checked; made (0700) if it is missing and may be."""
    if os.name != "posix":
        raise ConfigError("the embedded engine needs Linux or macOS")
    given = Path(os.fspath(path))
    if not given.exists():
        if not create or read_only:
            raise StoreNotFoundError(f"there is no store at {given}")
        given.mkdir(mode=0o700, parents=True, exist_ok=True)
        given.chmod(0o700)
        sync_directory(given.resolve().parent)
    directory = given.resolve()
    if not directory.is_dir():
        raise NotAStoreError(f"{directory} is no directory")
    check_file_system(directory)
    _check(directory, directory=True)
    names = set(os.listdir(directory))  # noqa: PTH208  (names only)
    if STREAMS_FILE not in names:
        if not create or read_only:
            raise StoreNotFoundError(f"there is no store in {directory}")
        if foreign := {name for name in names - _KNOWN if not name.startswith(_OURS)}:
            raise NotAStoreError(f"{directory} is not empty and holds no store: {sorted(foreign)[:3]}")
    for name in names:
        _check(directory / name, directory=name in {LOCKS, WAKE})
    return directory


def _check(path: Path, *, directory: bool) -> None:
    """Nobody else may own or write it; inside the directory nothing may be a symlink."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return  # a WAL or socket that another process has just removed
    if stat.S_ISLNK(found.st_mode):
        raise StoreError(f"{path} is a symlink; they are not followed inside a store")
    if directory != stat.S_ISDIR(found.st_mode) and path.name != "lock":
        raise StoreError(f"{path} is of the wrong kind (mode {found.st_mode:o})")
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        mode = stat.S_IMODE(found.st_mode)
        only = f"only its user ({os.geteuid()}) may write"
        raise StoreError(f"{path} has mode {mode:04o} and owner {found.st_uid}: {only}")


def check_file_system(directory: Path) -> None:
    """A network file system is a ``ConfigError`` (its locks lie), others that may be one are warned of."""
    kind = _file_system(directory)
    if kind in _REFUSED or kind in _REFUSED_FUSE:
        raise ConfigError(f"path must be on a local file system, got {directory} on {kind}")
    if kind in _WARNED or kind.startswith("fuse"):
        warnings.warn(f"{directory} is on {kind}: whether its locks and syncs hold is not known", stacklevel=2)


def _file_system(directory: Path) -> str:
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    best, kind = -1, ""
    for line in lines:
        parts = line.split(" ")
        if len(parts) < 3:
            continue
        point = parts[1].replace("\\040", " ").replace("\\011", "\t")
        if (directory == Path(point) or Path(point) in directory.parents) and len(point) >= best:
            best, kind = len(point), parts[2]
    return kind


def create_file(path: Path) -> None:
    """An empty file, 0600 whatever the umask; its name is on disk afterwards."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """The names in it are on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hold(directory: Path, name: str, patience: float) -> int:
    """A lock of this name, taken (waits); `close_lock` gives it back. A killed process gives back its own.

    ``StoreLockedError`` after about `patience` seconds: a stopped process gives nothing back.
    """
    descriptor = _lock_file(directory, name)
    for _ in range(int(patience / PAUSE) + 1):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            threading.Event().wait(PAUSE)
        except BaseException:
            close_lock(descriptor)
            raise
    close_lock(descriptor)
    raise StoreLockedError(f"{directory}: another process has held the lock {name!r} for {patience:g} s")


def join(directory: Path) -> tuple[int, bool]:
    """Share the lock of all openers: its descriptor, and whether nobody else held it."""
    descriptor = _lock_file(directory, "openers")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        alone = True
    except BlockingIOError:
        alone = False
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor, alone


def _lock_file(directory: Path, name: str) -> int:
    locks = directory / LOCKS
    with suppress(FileExistsError):
        locks.mkdir(mode=0o700)
        locks.chmod(0o700)
    descriptor = open_lock(locks / name)
    os.fchmod(descriptor, 0o600)
    return descriptor


class Turnstile:
    """Lets the writers of all processes in one by one, in turn: who holds `next` is the next to get `write`.

    SQLite's busy handler sleeps and tries again, which starves writers (1.2 s were measured).
    """

    def __init__(self, directory: Path, name: str) -> None:
        self._file = directory / f"{name}.db"
        self._identity = _identity(self._file)
        self._directory, self._name = directory, name
        self._next = _lock_file(directory, f"{name}.next")
        try:
            self._write = _lock_file(directory, f"{name}.write")
        except BaseException:
            close_lock(self._next)
            raise

    def enter(self) -> None:
        """Wait for our turn: in the kernel, since looking again and again costs commits (docs/decisions/0005)."""
        if not self.in_place():
            raise StoreError(f"{self._file} was removed or replaced while it was open")
        fcntl.flock(self._next, fcntl.LOCK_EX)
        try:
            os.pwrite(self._next, b"%-20d" % os.getpid(), 0)
            fcntl.flock(self._write, fcntl.LOCK_EX)
            os.pwrite(self._write, b"%-20d" % os.getpid(), 0)
        finally:
            fcntl.flock(self._next, fcntl.LOCK_UN)

    def in_place(self) -> bool:
        """Whether the file is still the one that was opened: SQLite would go on writing to one that was removed."""
        return _identity(self._file) == self._identity

    def leave(self) -> None:
        """Let the next one in."""
        fcntl.flock(self._write, fcntl.LOCK_UN)

    def holder(self) -> int | None:
        """Who all others wait for: the process that writes, or if none does the one whose turn is next.

        ``None``: not known (any more).
        """
        try:
            # a descriptor of its own: with ours we would take, and give back, what our thread may just have got
            probe = _lock_file(self._directory, f"{self._name}.write")
            try:
                writing = self._write
                with suppress(BlockingIOError):
                    fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    writing = self._next
            finally:
                close_lock(probe)
            text = os.pread(writing, 20, 0).strip()
        except OSError:
            return None
        return int(text) if text.isdigit() else None

    def close(self) -> None:
        """Give both back."""
        for descriptor in (self._next, self._write):
            with suppress(OSError):
                close_lock(descriptor)
        self._next = self._write = -1


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def reserve(directory: Path, size: int) -> None:
    """Make the reserve as large as `size`, written out so that it really takes its blocks."""
    path = directory / RESERVE
    if size == 0 or (path.exists() and path.stat().st_size == size):
        return
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
        else:
            os.ftruncate(descriptor, size)
    finally:
        os.close(descriptor)
