"""Replies: the one inbox of a connection. A reply's subject ends in a number, the number finds who waits for it."""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable

from headrace.nats.info import ConnectionStats
from headrace.nats.subscription import Subscriptions

__all__ = ["Replies", "ReplyCallback", "new_inbox"]

ReplyCallback = Callable[[int, bytes, bytes], None]
"""(token, header, data)."""

_LETTERS = string.digits + string.ascii_letters


def new_inbox(prefix: str) -> str:
    """A subject below `prefix` that nobody can guess: who guesses it can answer in the server's place."""
    return f"{prefix}.{''.join(secrets.choice(_LETTERS) for _ in range(22))}"


class Replies:
    """``prefix + b"%d" % token`` is where the answer for `token` goes. One SUB, made when first asked.

    ``waiting``: token -> callback, taken out before it is called. Who sends the request asks first, then sends.
    """

    def __init__(self, prefix: str, subscriptions: Subscriptions, stats: ConnectionStats) -> None:
        self.prefix = f"{new_inbox(prefix)}.".encode()
        self.waiting: dict[int, ReplyCallback] = {}
        self._cut = len(self.prefix)
        self._subscriptions = subscriptions
        self._stats = stats
        self._token = 0
        self._listening = False

    def ask(self, callback: ReplyCallback) -> int:
        """The next token; its reply calls `callback`."""
        if not self._listening:
            self._listen()
        token = self._token = self._token + 1
        self.waiting[token] = callback
        return token

    def ask_many(self, count: int, callback: ReplyCallback) -> int:
        """The first of `count` tokens in a row; each reply calls `callback`."""
        if not self._listening:
            self._listen()
        first = self._token + 1
        self._token += count
        self.waiting.update(dict.fromkeys(range(first, first + count), callback))
        return first

    def forget(self, token: int) -> None:
        """Nobody waits for this reply any more."""
        self.waiting.pop(token, None)

    def _listen(self) -> None:
        self._subscriptions.add(self.prefix + b"*", b"", self._take)
        self._listening = True

    def _take(self, subject: bytes, reply: bytes, header: bytes, data: bytes) -> None:
        try:
            token = int(subject[self._cut :])
            callback = self.waiting.pop(token)
        except (ValueError, KeyError):
            self._stats.unknown_replies += 1
            return
        callback(token, header, data)
