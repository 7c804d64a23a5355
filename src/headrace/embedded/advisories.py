"""Advisories: what the engine tells without being asked, handed to `on_advisory` on the loop that opened it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Literal

import msgspec

__all__ = [
    "Advisory",
    "ConsumerDeleted",
    "CorruptionFound",
    "DiskFull",
    "DiskRecovered",
    "MaxDeliveriesReached",
    "MessageNaked",
    "MessageTerminated",
    "Problem",
    "Reopened",
    "SyncFailed",
    "guarded",
]

logger = logging.getLogger(__name__)


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing found wrong in a store."""

    stream: str | None = None
    sequence: int | None = None
    file: str = ""
    what: str = ""


class Advisory(msgspec.Struct, frozen=True, kw_only=True):
    """What all advisories say."""

    stream: str | None = None
    consumer: str | None = None
    time: datetime


class MaxDeliveriesReached(Advisory, frozen=True, kw_only=True):
    """A message was delivered as often as its consumer allows, and not settled."""

    stream_sequence: int
    deliveries: int


class MessageTerminated(Advisory, frozen=True, kw_only=True):
    """A message was settled with `term`."""

    stream_sequence: int
    consumer_sequence: int
    deliveries: int
    reason: str


class MessageNaked(Advisory, frozen=True, kw_only=True):
    """A message was settled with `nak`."""

    stream_sequence: int
    consumer_sequence: int
    deliveries: int


class ConsumerDeleted(Advisory, frozen=True, kw_only=True):
    """A consumer is gone."""

    cause: Literal["inactive", "request"]


class DiskFull(Advisory, frozen=True, kw_only=True):
    """The disk is full: publishes are refused."""

    bytes_free: int


class DiskRecovered(Advisory, frozen=True, kw_only=True):
    """There is space again."""


class SyncFailed(Advisory, frozen=True, kw_only=True):
    """A sync failed: publishes are refused until the files were reopened and rewritten."""

    error: str


class Reopened(Advisory, frozen=True, kw_only=True):
    """The files were opened again after a failure, or after the death of a process: how many messages they hold."""

    messages: int
    took: timedelta


class CorruptionFound(Advisory, frozen=True, kw_only=True):
    """A record is damaged; what reads it stops, nothing is deleted."""

    problem: Problem


def guarded(callback: Callable[[Advisory], None] | None) -> Callable[[Advisory], None]:
    """`callback` whose exceptions are logged, never fatal."""

    def advise(advisory: Advisory) -> None:
        if callback is None:
            return
        try:
            callback(advisory)
        except Exception:
            logger.exception("on_advisory failed for %s", type(advisory).__name__)

    return advise
