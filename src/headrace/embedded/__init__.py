"""The embedded engine: streams in a directory, no server."""

from headrace.embedded.advisories import (
    Advisory,
    ConsumerDeleted,
    CorruptionFound,
    DiskFull,
    DiskRecovered,
    MaxDeliveriesReached,
    MessageNaked,
    MessageTerminated,
    Problem,
    Reopened,
    SyncFailed,
)
from headrace.embedded.backup import BackupReport, restore
from headrace.embedded.engine import EmbeddedStreams, open, opened  # noqa: A004
from headrace.embedded.errors import (
    CorruptedError,
    DiskFullError,
    NotAStoreError,
    StoreLockedError,
    StoreNotFoundError,
    StoreVersionError,
    SyncFailedError,
)
from headrace.embedded.options import Durability, EmbeddedOptions
from headrace.embedded.stats import EngineStats, SyncTimes
from headrace.embedded.stream import EmbeddedStream
from headrace.embedded.verify import VerifyReport, verify

__all__ = [
    "Advisory",
    "BackupReport",
    "ConsumerDeleted",
    "CorruptedError",
    "CorruptionFound",
    "DiskFull",
    "DiskFullError",
    "DiskRecovered",
    "Durability",
    "EmbeddedOptions",
    "EmbeddedStream",
    "EmbeddedStreams",
    "EngineStats",
    "MaxDeliveriesReached",
    "MessageNaked",
    "MessageTerminated",
    "NotAStoreError",
    "Problem",
    "Reopened",
    "StoreLockedError",
    "StoreNotFoundError",
    "StoreVersionError",
    "SyncFailed",
    "SyncFailedError",
    "SyncTimes",
    "VerifyReport",
    "open",
    "opened",
    "restore",
    "verify",
]
