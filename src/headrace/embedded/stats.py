"""EngineStats: plain numbers of one opened engine."""

from __future__ import annotations

from contextlib import suppress

import msgspec

from headrace.embedded.room import Room
from headrace.embedded.store.files import CONSUMERS_FILE, STREAMS_FILE

__all__ = ["EngineStats", "stats_of"]


class EngineStats(msgspec.Struct, frozen=True, kw_only=True):
    """Since it was opened: commits, messages, bytes. Now: size of the logs, bytes accepted and not committed."""

    commits: int = 0
    messages: int = 0
    bytes: int = 0
    wal_bytes: int = 0
    pending_bytes: int = 0
    ack_buffer: int = 0
    wakeups: int = 0
    late_settles: int = 0


def stats_of(room: Room) -> EngineStats:
    """The numbers as they are now."""
    store, wal = room.store, 0
    path = store.path
    for name in (STREAMS_FILE, CONSUMERS_FILE):
        with suppress(OSError):
            wal += 0 if path is None else (path / f"{name}-wal").stat().st_size
    return EngineStats(
        commits=0 if store.options.read_only else store.streams.commits,
        messages=room.publisher.messages,
        bytes=room.publisher.bytes,
        wal_bytes=wal,
        pending_bytes=room.publisher.pending_bytes,
    )
