"""Descriptors that hold advisory locks (flock): a forked child must not keep them.

Such a lock belongs to the open file, and a child has a copy of it: a killed parent would look alive for as long as its
child lives. So the child closes its copies, which leaves the parent's lock alone (giving it back would not).
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

__all__ = ["close_lock", "open_lock"]

_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_open: set[int] = set()
_guard = threading.RLock()
"""Held while the list is behind the descriptors, and by who forks: no child gets one that is not listed."""


def open_lock(path: str | Path, *, create: bool = True, folder: int | None = None) -> int:
    """A descriptor to lock, of a file that is made (0600) if it may be. `close_lock` gives it back."""
    with _guard:
        descriptor = os.open(path, _FLAGS | (os.O_CREAT if create else 0), 0o600, dir_fd=folder)
        _open.add(descriptor)
    return descriptor


def close_lock(descriptor: int) -> None:
    """Close it; what it held is free."""
    with _guard:
        _open.discard(descriptor)
        os.close(descriptor)


def _let_go() -> None:
    for descriptor in _open:
        with suppress(OSError):
            os.close(descriptor)
    _open.clear()
    _guard.release()


os.register_at_fork(before=_guard.acquire, after_in_parent=_guard.release, after_in_child=_let_go)
