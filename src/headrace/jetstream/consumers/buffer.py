"""Buffer: what has come and was not handed over, in order. What ran out in it is dropped: it is being redelivered."""

from __future__ import annotations

from collections import deque

from headrace.core.delivery import RELEASE
from headrace.jetstream.consumers.leases import Leases
from headrace.jetstream.consumers.pull import PullState
from headrace.streams.errors import MaxBytesExceededError
from headrace.streams.fetch import wire_size
from headrace.streams.msg import Msg

__all__ = ["Buffer"]


class Buffer:
    """`messages`, and their sizes in bytes where these are bounded. `expired`: how many were dropped."""

    def __init__(self, leases: Leases, state: PullState) -> None:
        self.messages: deque[Msg] = deque()
        self.sizes: deque[int] | None = None if state.options.max_bytes is None else deque()
        self.expired = 0
        self._leases = leases
        self._state = state

    @property
    def size(self) -> int:
        """Bytes in it, where they are bounded."""
        return sum(self.sizes) if self.sizes else 0

    def take(self, limit: int, max_bytes: int | None = None) -> list[Msg]:
        """The next ones, up to the one that would go over `max_bytes`: an error where that is the first."""
        found: list[Msg] = []
        messages, sizes, is_current = self.messages, self.sizes, self._leases.is_current
        while messages and len(found) < limit:
            if max_bytes is not None:
                max_bytes -= wire_size(messages[0])
                if max_bytes < 0:
                    if not found:
                        raise MaxBytesExceededError
                    break
            msg = messages.popleft()
            if sizes is not None:
                sizes.popleft()
            if is_current(msg):
                found.append(msg)
            else:
                self._drop(msg)
        return found

    def take_instead(self, msg: Msg) -> Msg | None:
        """`msg` was taken out and had run out: the next one that did not."""
        self._drop(msg)
        return next(iter(self.take(1)), None)

    def give_back(self) -> None:
        """All of it, in order."""
        for msg in self.messages:
            if self._leases.release(msg):
                msg.outcome = RELEASE
        self.messages.clear()
        if self.sizes is not None:
            self.sizes.clear()

    def _drop(self, msg: Msg) -> None:
        """Whoever gets it next handles it."""
        self._leases.held.pop(msg, None)
        self._state.dropped()
        self.expired += 1
