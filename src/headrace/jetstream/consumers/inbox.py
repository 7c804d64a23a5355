"""PullInbox: where the answers to a session's pulls arrive, the pulls that are sent, the watch over the heartbeat.

Pull n is answered on ``<inbox>.n``. A server drops parked pulls whose inbox nobody listens on, so an abandoned pull can
never eat messages; hence an inbox for each session, and a new one after every reconnect (jetstream.md 3.5.1).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from headrace.jetstream.consumers.pull import PullState
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
        self._former: Subscription | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._planned = 0.0

    def open(self) -> None:
        """Listen, on a subject that nobody had before. What was to wait for the old link may leave."""
        self._state.not_before = 0.0
        inbox = new_inbox(self._connection.options.inbox_prefix)
        self._replies = inbox.encode() + b".%d"
        self._subscription = self._connection.subscribe(f"{inbox}.*", self._receive)

    def turn(self) -> None:
        """Listen elsewhere: what the server has parked for the old subject it drops, what it has sent still comes."""
        self.quiet()
        if self._former is not None:
            self._former.unsubscribe()
        self._former = self._subscription
        self.open()

    def ask(self, buffered: int, size: int, wait: float | None) -> None:
        """Send the pull that is due now, if one is; see `PullState.refill`."""
        if self._subscription is None:
            return
        state = self._state
        ask = state.refill(self._now(), buffered, size, wait=wait)
        if ask is None:
            return
        self._connection.send(self._requests, self._replies % state.number, b"", _encode(ask))
        self._connection.write()  # now: the server looks for more while what is here is being handled
        self._arm()

    def quiet(self) -> None:
        """Tell the server that nothing more is wanted; what is on its way still comes."""
        if self._subscription is not None:
            self._subscription.quiet()

    def close(self) -> None:
        """Nothing comes any more, and nothing is watched."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        for each in (self._former, self._subscription):
            if each is not None:
                each.unsubscribe()
        self._former = self._subscription = None
        self._state.write_off()

    def _arm(self) -> None:
        """Watch, while something is open; sooner than was planned if the last pull is due sooner."""
        due = self._state.due()
        if due is None or (self._watch is not None and self._planned <= due):
            return
        if self._watch is not None:
            self._watch.cancel()
        self._planned = due
        self._watch = self._connection.loop.call_later(max(0.0, due - self._now()), self._look)

    def _look(self) -> None:
        self._watch = None
        if self._state.missing(self._now(), self._planned):
            self._missing()
        self._arm()
