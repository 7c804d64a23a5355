"""Request: one parked pull, and the reader that gets what a claim brings it."""

from __future__ import annotations

import asyncio
from typing import Protocol

from headrace.streams.msg import Msg, MsgOwner

__all__ = ["Receiver", "Request"]


class Receiver(MsgOwner, Protocol):
    """Who owns the messages of a claim."""

    def receive(self, messages: list[Msg]) -> None:
        """What a claim brought (on the loop, within the claim's answer)."""
        ...


class Request:
    """One pull on its way: how much it wants, and what it got."""

    __slots__ = ("error", "found", "future", "limit", "max_bytes", "once", "session")

    def __init__(
        self, session: Receiver, limit: int, max_bytes: int | None, future: asyncio.Future[None], *, once: bool
    ) -> None:
        self.session = session
        self.limit = limit
        self.max_bytes = max_bytes
        self.future = future
        self.once = once
        """Look once: an empty answer is an answer."""
        self.found: list[Msg] = []
        self.error: BaseException | None = None
