"""Errors of the store, and the one place where an exception of the database becomes one of them."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import apsw

from headrace.core.errors import BrokerTimeoutError, Fault, HeadraceError, PublishError, StoreError

__all__ = [
    "CorruptedError",
    "DiskFullError",
    "NotAStoreError",
    "StoreLockedError",
    "StoreNotFoundError",
    "StoreVersionError",
    "SyncFailedError",
    "publish_error",
    "raise_translated",
    "translated",
]


class StoreNotFoundError(StoreError):
    """There is no store, and none was to be made."""


class NotAStoreError(StoreError):
    """The file or directory is no store of headrace; it was not touched."""


class StoreVersionError(StoreError):
    """The store is of another format than this version knows."""

    def __init__(self, found: int, supported: int, where: str = "") -> None:
        super().__init__(f"{where}: format {found}, this version reads {supported}; nothing was touched")
        self.found = found
        self.supported = supported


class CorruptedError(StoreError):
    """The store is damaged."""

    def __init__(self, reason: str, *, file: str = "", stream: str | None = None, sequence: int | None = None) -> None:
        place = (f" stream {stream}" if stream else "") + (f" sequence {sequence}" if sequence is not None else "")
        super().__init__(f"{file or 'streams.db'}{place}: {reason}")
        self.file = file
        self.stream = stream
        self.sequence = sequence


class DiskFullError(StoreError):
    """The disk is full; reading, purging and retention go on."""

    retryable = True


class SyncFailedError(StoreError):
    """A sync or write failed. ``unknown``: what was in it may or may not be stored; else it certainly is not."""

    retryable = True

    def __init__(self, reason: str = "", *, unknown: bool = True) -> None:
        super().__init__(*((reason,) if reason else ()))
        self.unknown = unknown


class StoreLockedError(StoreError, BrokerTimeoutError):
    """Another process holds the store too long; also a ``BrokerTimeoutError``."""

    retryable = True


def translated(error: BaseException, file: str | Path = "") -> BaseException:
    """What the user sees of `error`: an exception of the database becomes a ``StoreError``, others stay as they are."""
    if isinstance(error, HeadraceError) or not isinstance(error, apsw.Error | OSError):
        return error
    made: StoreError
    text = f"{file}: {error}" if file else str(error)
    if isinstance(error, apsw.FullError) or (isinstance(error, OSError) and error.errno == 28):
        made = DiskFullError(text)
    elif isinstance(error, apsw.NotADBError):
        made = NotAStoreError(text)
    elif isinstance(error, apsw.CorruptError):
        made = CorruptedError(str(error), file=str(file))
    elif isinstance(error, apsw.BusyError | apsw.LockedError | apsw.ProtocolError):
        made = StoreLockedError(text)
    elif isinstance(error, apsw.IOError):
        made = SyncFailedError(text)
    else:
        made = StoreError(text)
    made.__cause__ = error
    return made


def raise_translated(error: BaseException, file: str | Path = "") -> NoReturn:
    """Raise what the user sees of `error`, with it as the cause."""
    seen = translated(error, file)
    if seen is error:
        raise error
    raise seen from error


def publish_error(error: BaseException, message_id: str | None = None) -> BaseException:
    """The ``PublishError`` of a publish whose transaction failed. Its fault says whether the message may be stored."""
    cause = translated(error)
    if isinstance(cause, PublishError) or not isinstance(cause, HeadraceError):
        return cause
    fault = Fault.UNKNOWN if isinstance(cause, SyncFailedError) and cause.unknown else Fault.UNAVAILABLE
    made = PublishError(f"not published: {cause}", message_id=message_id, fault=fault)
    made.__cause__ = cause
    return made
