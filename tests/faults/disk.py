"""Disks that fail: SQLite's files behind an apsw VFS that records, refuses or breaks what goes to them."""

import random
from contextlib import contextmanager
from pathlib import Path

import apsw

NAME = "headrace-fault"


class Disk(apsw.VFS):
    """The default VFS while it is on; every write, truncate and sync of a main file or a WAL is told to `on`."""

    def __init__(self, on):
        self.on = on
        self.base = apsw.vfs_names()[0]
        super().__init__(NAME, self.base, makedefault=True)

    def xOpen(self, name, flags):  # noqa: N802
        return File(self, name, flags)

    def xDelete(self, name, sync):  # noqa: N802
        self.on("delete", Path(name).name, 0, b"")
        super().xDelete(name, sync)


class File(apsw.VFSFile):
    def __init__(self, disk, name, flags):
        self.disk = disk
        self.name = Path(name.filename() if isinstance(name, apsw.URIFilename) else name or "temporary").name
        super().__init__(disk.base, name, flags)

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
def disk(on):
    """Every connection opened inside goes through `on(kind, file, offset, data)`, which may raise."""
    faulty = Disk(on)
    try:
        yield faulty
    finally:
        faulty.unregister()


class Surface:
    """What is on the platter: per file what was synced, and in order what was written since."""

    def __init__(self, directory):
        self.synced = {path.name: bytearray(path.read_bytes()) for path in directory.iterdir() if path.is_file()}
        self.loose = {}

    def apply(self, kind, name, offset, data):
        if kind == "sync":
            content = self.synced.setdefault(name, bytearray())
            for each in self.loose.pop(name, []):
                change(content, *each)
        elif kind == "delete":
            self.synced.pop(name, None)
            self.loose.pop(name, None)
        else:
            self.loose.setdefault(name, []).append((kind, offset, data))

    def fallen(self, how, seed):
        """The files after the power went: of what was not synced, nothing, everything, or anything, torn by sectors."""
        chance = random.Random(seed)
        files = {}
        for name in {*self.synced, *self.loose}:
            content = bytearray(self.synced.get(name, b""))
            for kind, offset, data in self.loose.get(name, []):
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
