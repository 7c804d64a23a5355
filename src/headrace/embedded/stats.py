"""EngineStats: plain numbers of one opened engine."""

from __future__ import annotations

from contextlib import suppress

import msgspec

from headrace.embedded.room import Room
from headrace.embedded.store.files import CONSUMERS_FILE, STREAMS_FILE

__all__ = ["EngineStats", "SyncTimes", "stats_of"]


class SyncTimes(msgspec.Struct, frozen=True, kw_only=True):
    """Microseconds."""

    mean: float = 0.0
    max: float = 0.0


class EngineStats(msgspec.Struct, frozen=True, kw_only=True):
    """What this handle did since it was opened, and what it holds now.

    ``commits`` of messages and management; ``messages`` and ``bytes`` stored, as the streams count them (no
    duplicates, nothing refused). ``fsync_us``: how long those commits took, sync included; in ``RELAXED``, where they
    are not synced, the syncs in between. ``wakeups``: how often other processes told that they had committed.
    ``late_settles``: outcomes that came after their lease. Now: ``wal_bytes`` of both logs, ``pending_bytes`` accepted
    and not committed, ``ack_buffer`` outcomes that are in memory only.
    """

    commits: int = 0
    messages: int = 0
    bytes: int = 0
    fsync_us: SyncTimes = SyncTimes()
    wal_bytes: int = 0
    pending_bytes: int = 0
    ack_buffer: int = 0
    wakeups: int = 0
    late_settles: int = 0


def stats_of(room: Room) -> EngineStats:
    """The numbers as they are now."""
    store, shared, wal = room.store, room.consumers.shared, 0
    for name in (STREAMS_FILE, CONSUMERS_FILE):
        with suppress(OSError):
            wal += 0 if store.path is None else (store.path / f"{name}-wal").stat().st_size
    syncs = store.syncs
    mean = syncs.total / syncs.count if syncs.count else 0.0
    return EngineStats(
        commits=0 if store.options.read_only else store.streams.commits,
        messages=room.publisher.messages,
        bytes=room.publisher.bytes,
        fsync_us=SyncTimes(mean=mean * 1e6, max=syncs.longest * 1e6),
        wal_bytes=wal,
        pending_bytes=room.publisher.pending_bytes,
        ack_buffer=room.consumers.unwritten(),
        wakeups=0 if shared.members is None else shared.members.wakeups,
        late_settles=shared.late_settles,
    )
