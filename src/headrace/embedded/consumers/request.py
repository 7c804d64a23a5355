"""Request: one parked pull, the reader that gets what a claim brings it, and what its consumer allows it to ask."""

from __future__ import annotations

import asyncio
from typing import Protocol

from headrace.embedded.consumers.rows import RequestLimits
from headrace.streams.errors import PullRejectedError
from headrace.streams.msg import Msg, MsgOwner

__all__ = ["Receiver", "Request", "refusal"]


class Receiver(MsgOwner, Protocol):
    """Who owns the messages of a claim."""

    def receive(self, messages: list[Msg]) -> None:
        """What a claim brought (on the loop, within the claim's answer)."""
        ...


class Request:
    """One pull on its way: how much it wants, how long it may take, and what it got."""

    __slots__ = ("checked", "error", "expires", "found", "future", "limit", "max_bytes", "once", "session")

    def __init__(
        self,
        session: Receiver,
        limit: int,
        max_bytes: int | None,
        future: asyncio.Future[None],
        *,
        expires: float,
        once: bool,
    ) -> None:
        self.session = session
        self.limit = limit
        self.max_bytes = max_bytes
        self.future = future
        self.expires = expires
        """Seconds that a server would have been asked to keep it."""
        self.once = once
        """Look once: an empty answer is an answer."""
        self.checked = False
        """Whether its consumer has been asked: limits lowered later do not end what is parked."""
        self.found: list[Msg] = []
        self.error: BaseException | None = None


def refusal(limits: RequestLimits, request: Request) -> PullRejectedError | None:
    """Why the consumer does not take this pull, in the order of a server's checks."""
    if limits.batch is not None and request.limit > limits.batch:
        return _rejected(f"Exceeded MaxRequestBatch of {limits.batch}")
    if limits.expires is not None and not request.once and request.expires > limits.expires:
        return _rejected(f"Exceeded MaxRequestExpires of {limits.expires:g}s")
    if limits.max_bytes is not None and (request.max_bytes or 0) > limits.max_bytes:
        return _rejected(f"Exceeded MaxRequestMaxBytes of {limits.max_bytes}")
    return None


def _rejected(description: str) -> PullRejectedError:
    return PullRejectedError(description, code=409, description=description)
