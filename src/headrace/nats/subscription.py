"""Subscriptions: what this connection listens on, kept so that every new link can be told."""

from __future__ import annotations

from headrace.core.errors import ClosedError, ConfigError
from headrace.nats.outgoing import Outgoing
from headrace.nats.parser import MessageCallback

__all__ = ["Subscription", "Subscriptions"]


class Subscription:
    """One SUB. ``subject``, ``sid``, ``closed``; made by `Connection.subscribe`."""

    def __init__(self, owner: Subscriptions, sid: int, subject: bytes, queue: bytes, callback: MessageCallback) -> None:
        self.subject = subject.decode()
        self.sid = sid
        self.closed = False
        self.key = b"%d" % sid
        self._owner = owner
        self._line = b"SUB %b %b %d\r\n" % (subject, queue, sid) if queue else b"SUB %b %d\r\n" % (subject, sid)
        self._callback = callback
        self._left = 0  # messages until it ends by itself; 0: it does not
        self.frame = 0
        """Number of the SUB; until that is written, no message can have come."""

    def unsubscribe(self, max: int | None = None) -> None:
        """End it now, or after `max` more messages, counted from this call; what comes later is dropped."""
        if max is not None and (isinstance(max, bool) or not isinstance(max, int) or max < 1):
            raise ConfigError(f"max must be an integer >= 1, got {max!r}")
        if self.closed:
            return
        if max is None:
            self._owner.remove(self)
            return
        self._left = max
        self._owner.handlers[self.key] = self._count
        self._owner.limit(self)

    def quiet(self) -> None:
        """Tell the server that nothing more is wanted. What is on its way is still handed out, until `unsubscribe`."""
        if not self.closed:
            self._owner.quiet(self)

    def frames(self) -> bytes:
        """SUB, and UNSUB with what is left of its limit."""
        return self._line + self.limit_frame()

    def limit_frame(self) -> bytes:
        """UNSUB with what is left of its limit, b"" without one."""
        return b"UNSUB %d %d\r\n" % (self.sid, self._left) if self._left else b""

    def _count(self, subject: bytes, reply: bytes, header: bytes, data: bytes) -> None:
        self._left -= 1
        if not self._left:
            self._owner.remove(self)
        self._callback(subject, reply, header, data)


class Subscriptions:
    """All of a connection. `handlers`: sid -> callable, which the parser reads."""

    def __init__(self, outgoing: Outgoing) -> None:
        self.handlers: dict[bytes, MessageCallback] = {}
        self._outgoing = outgoing
        self._all: dict[int, Subscription] = {}
        self._sid = 0
        self._stopped = False
        self._ended = False

    def add(self, subject: bytes, queue: bytes, callback: MessageCallback) -> Subscription:
        """A new one; SUB leaves with the next write, or with the next link."""
        if self._ended:
            raise ClosedError("the connection was closed before")
        self._sid += 1
        subscription = Subscription(self, self._sid, subject, queue, callback)
        if self._outgoing.attached:
            subscription.frame = self._outgoing.control(subscription.frames())
        self._all[self._sid] = subscription
        self.handlers[subscription.key] = callback
        return subscription

    def remove(self, subscription: Subscription) -> None:
        """End it, and tell the server."""
        self.quiet(subscription)
        self.forget(subscription)

    def quiet(self, subscription: Subscription) -> None:
        """Tell the server, once, that nothing more is wanted."""
        known = self._all.pop(subscription.sid, None) is not None
        if known and self._outgoing.attached and not self._outgoing.withdraw(subscription.frame):
            self._outgoing.control(b"UNSUB %d\r\n" % subscription.sid)

    def limit(self, subscription: Subscription) -> None:
        """Tell the server of the limit if it counts as we do, that is, if it cannot have sent a message yet."""
        if self._outgoing.attached and subscription.frame > self._outgoing.flushed:
            self._outgoing.control(subscription.limit_frame())

    def forget(self, subscription: Subscription) -> None:
        """End it without a word to the server."""
        subscription.closed = True
        self._all.pop(subscription.sid, None)
        self.handlers.pop(subscription.key, None)

    def frames(self) -> bytes:
        """What a new link is told; nothing while the connection drains."""
        if self._stopped:
            return b""
        for subscription in self._all.values():
            subscription.frame = 0
        return b"".join(subscription.frames() for subscription in self._all.values())

    def stop(self) -> None:
        """Tell the server that nothing more is wanted; what is on its way is still handed out."""
        self._stopped = True
        if self._outgoing.attached:
            for subscription in self._all.values():
                self._outgoing.control(b"UNSUB %d\r\n" % subscription.sid)

    def end(self) -> None:
        """The connection is closed."""
        self._ended = True
        for subscription in list(self._all.values()):
            self.forget(subscription)
