"""PartitionStats: what a subscription says of each of its partitions."""

from __future__ import annotations

import msgspec

from headrace.kafka.consuming.partition import Partition

__all__ = ["PartitionStats", "stats_of"]


class PartitionStats(msgspec.Struct, frozen=True, kw_only=True):
    """One partition of one open subscription, as it stands now.

    ``position``: the next record to hand out; ``committed``: the next one after a restart (partition mode: as saved);
    ``end``: behind the last record that was heard of; ``lag``: between the two; ``tracked``, ``tracked_bytes``: records
    begun and not committable, and the bytes of those that are unfinished; ``oldest_unfinished_age``: seconds since the
    oldest of them was read. ``None``: not known yet, or nothing there.
    """

    group: str | None
    topic: str
    partition: int
    epoch: int
    position: int | None
    committed: int | None
    end: int | None
    lag: int | None
    tracked: int
    tracked_bytes: int
    paused: bool
    oldest_unfinished_age: float | None


def stats_of(group: str | None, stay: Partition, now_ns: int) -> PartitionStats:
    """Plain numbers, no I/O."""
    position = stay.position if stay.position >= 0 else None
    since = stay.epoch.since_ns()
    return PartitionStats(
        group=group,
        topic=stay.topic,
        partition=stay.number,
        epoch=stay.epoch.number,
        position=position,
        committed=stay.epoch.committed,
        end=stay.end,
        lag=None if stay.end is None or position is None else max(0, stay.end - position),
        tracked=stay.epoch.tracker.tracked,
        tracked_bytes=stay.held_bytes,
        paused=stay.paused,
        oldest_unfinished_age=None if since is None else max(0, now_ns - since) / 1e9,
    )
