"""PullInbox: where the answers to a session's pulls arrive, the pulls that are sent, the watch over the heartbeat.

Pull n is answered on ``<inbox>.n``. A server drops parked pulls whose inbox nobody listens on, so an abandoned pull can
never eat messages; hence an inbox for each session, and a new one after every reconnect (jetstream.md 3.5.1).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from headrace.jetstream.pull import PullState
from headrace.nats.connection import Connection
from headrace.nats.inbox import new_inbox
from headrace.nats.parser import MessageCallback
from headrace.nats.subscription import Subscription

__all__ = ["PullInbox"]

_encode = msgspec.json.Encoder().encode


class PullInbox:
    """`requests`: where pulls are sent. `receive` gets every frame; `missing` is called when the server is silent."""

    def __init__(
        self,
        connection: Connection,
        requests: bytes,
        state: PullState,
        receive: MessageCallback,
        missing: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._requests = requests
        self._state = state
        self._receive = receive
        self._missing = missing
        self._now = connection.clock.monotonic
        self._replies = b""
        self._subscription: Subscription | None = None
        self._watch: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Listen, on a subject that nobody had before. What was to wait for the old link may leave."""
        self._state.not_before = 0.0
        inbox = new_inbox(self._connection.options.inbox_prefix)
        self._replies = inbox.encode() + b".%d"
        self._subscription = self._connection.subscribe(f"{inbox}.*", self._receive)

    def ask(self, buffered: int, size: int, wait: float | None) -> bool:
        """Send the pull that is due now, if one is; see `PullState.refill`."""
        if self._subscription is None:
            return False
        state = self._state
        ask = state.refill(self._now(), buffered, size, wait=wait)
        if ask is None:
            return False
        self._connection.send(self._requests, self._replies % state.number, b"", _encode(ask))
        self._arm()
        return True

    def quiet(self) -> None:
        """Tell the server that nothing more is wanted; what is on its way still comes."""
        if self._subscription is not None:
            self._subscription.quiet()

    def close(self) -> None:
        """Nothing comes any more, and nothing is watched."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._subscription is not None:
            self._subscription.unsubscribe()
            self._subscription = None
        self._state.write_off()

    def _arm(self) -> None:
        """Watch, while something is open."""
        due = self._state.due()
        if self._watch is None and due is not None:
            wait = max(0.0, due - self._now())
            self._watch = self._connection.loop.call_later(wait, self._look, due)

    def _look(self, planned: float) -> None:
        self._watch = None
        if self._state.missing(self._now(), planned):
            self._missing()
        self._arm()
