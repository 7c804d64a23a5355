"""Disks that fail: SQLite's files behind an apsw VFS that records, refuses or breaks what goes to them."""

import random
import shutil
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import apsw

NAME = "headrace-fault"


class Disk(apsw.VFS):
    """The default VFS while it is on: what is made, written, truncated, synced, deleted (and read) is told to `on`."""

    def __init__(self, on, *, reads):
        self.on = on
        self.reads = reads
        self.base = apsw.vfs_names()[0]
        super().__init__(NAME, self.base, makedefault=True)

    def xOpen(self, name, flags):  # noqa: N802
        path = Path(name.filename() if isinstance(name, apsw.URIFilename) else name or "temporary")
        if name and flags[0] & apsw.SQLITE_OPEN_CREATE and not path.exists():
            self.on("make", path.name, 0, b"")
        return File(self, name, flags, path.name)

    def xDelete(self, name, sync):  # noqa: N802
        self.on("delete", Path(name).name, 0, b"")
        super().xDelete(name, sync)


class File(apsw.VFSFile):
    def __init__(self, disk, name, flags, short):
        self.disk = disk
        self.name = short
        super().__init__(disk.base, name, flags)

    def xRead(self, amount, offset):  # noqa: N802
        if self.disk.reads:
            self.disk.on("read", self.name, offset, b"")
        return super().xRead(amount, offset)

    def xWrite(self, data, offset):  # noqa: N802
        self.disk.on("write", self.name, offset, bytes(data))
        super().xWrite(data, offset)

    def xTruncate(self, size):  # noqa: N802
        self.disk.on("truncate", self.name, size, b"")
        super().xTruncate(size)

    def xSync(self, flags):  # noqa: N802
        self.disk.on("sync", self.name, 0, b"")
        super().xSync(flags)


@contextmanager
def disk(on, *, reads=False):
    """Every connection opened inside goes through `on(kind, file, offset, data)`, which may raise."""
    faulty = Disk(on, reads=reads)
    try:
        yield faulty
    finally:
        faulty.unregister()


class Recorder:
    """What went to the disk and what was acknowledged, in one order."""

    def __init__(self):
        self.log, self.lock = [], threading.Lock()

    def __call__(self, *event):
        with self.lock:
            self.log.append(event)

    def acknowledged(self, sequence, body):
        self("ack", sequence, 0, body)


class Surface:
    """What is on the platter: per file what was synced, and in order what was written since; and the directory's
    entries, which are on disk once a file made in it was synced (SQLite syncs the directory then).
    """

    def __init__(self, directory=None):
        found = directory.iterdir() if directory is not None else ()
        self.synced = {path.name: bytearray(path.read_bytes()) for path in found if path.is_file()}
        self.loose = {}
        self.made = set()
        """Whose entry may not be on disk yet."""
        self.gone = {}
        """Whose entry may still be on disk, with what was synced of it."""

    def apply(self, kind, name, offset, data):
        if kind == "sync":
            content = self.synced.setdefault(name, bytearray())
            for each in self.loose.pop(name, []):
                change(content, *each)
            if name in self.made:
                self.made.clear()
                self.gone.clear()
        elif kind == "failed":  # a sync; what it was to write counts as written for the kernel, and never is
            self.loose.pop(name, None)
        elif kind == "make":
            self.made.add(name)
            self.loose.setdefault(name, [])
        elif kind == "rename":
            if name in self.synced:
                self.gone[name] = self.synced[name]
                self.synced[data] = self.synced.pop(name)
            self.made.add(data)
        elif kind == "delete":
            content = self.synced.pop(name, None)
            if content is not None and name not in self.made:
                self.gone[name] = content
            self.made.discard(name)
            self.loose.pop(name, None)
        else:
            self.loose.setdefault(name, []).append((kind, offset, data))

    def fallen(self, how, seed):
        """The files after the power went. Of what was not synced: nothing ("lost"), everything ("kept"), or anything,
        torn by sectors ("torn"); "entries": nothing, and what was made is not there, what was deleted is.
        """
        chance = random.Random(seed)
        files = dict(self.gone) if how == "entries" else {}
        for name in {*self.synced, *self.loose}:
            if how == "entries" and name in self.made:
                continue
            content = bytearray(self.synced.get(name, b""))
            changes = list(self.loose.get(name, []))
            if how == "torn":
                chance.shuffle(changes)  # the disk writes in an order of its own
            for kind, offset, data in changes:
                if how == "kept":
                    change(content, kind, offset, data)
                elif how == "torn" and chance.random() < 0.7:
                    whole = kind == "truncate" or chance.random() < 0.5
                    change(
                        content, kind, offset, data if whole else data[: chance.randrange(len(data) + 1) // 512 * 512]
                    )
            files[name] = content
        return files


def change(content, kind, offset, data):
    if kind == "truncate":
        del content[offset:]
        content.extend(bytes(offset - len(content)))
    elif data:
        content.extend(bytes(max(0, offset - len(content))))
        content[offset : offset + len(data)] = data


@contextmanager
def platter():
    """A directory in memory, for stores that fell with the power."""
    folder = Path(tempfile.mkdtemp(prefix="headrace-cut-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def lay(folder, files):
    """The store as the power cut left it."""
    for old in folder.iterdir():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o600)
