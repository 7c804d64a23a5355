"""Order: the count of an ordered reader. Consumer sequences rise by one; where one is missing, a message was lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headrace.jetstream.consumers.acks import order_in
from headrace.streams.errors import ConsumerDeletedError, NotStreamMessageError

__all__ = ["Order"]

_LAST_OF_CONSUMER = "Nats-Last-Consumer"


class Order:
    """`last`: consumer sequence of the last message; the next is one higher."""

    def __init__(self, last: int, label: str) -> None:
        self.last = last
        self._label = label

    def gap_before(self, reply: bytes) -> ConsumerDeletedError | None:
        """Counts a message. The error if it is not the next one."""
        try:
            came = order_in(reply)
        except NotStreamMessageError as error:
            return self._lost(str(error))
        if came != self.last + 1:
            return self._lost(f"{came} came")
        self.last = came
        return None

    def gap_at_end(self, fields: Mapping[str, Sequence[str]]) -> ConsumerDeletedError | None:
        """The error if a heartbeat says that more was sent than has come: a lost tail is seen too."""
        sent = next(iter(fields.get(_LAST_OF_CONSUMER, ())), "")
        if sent.isascii() and sent.isdigit() and int(sent[:20]) > self.last:
            return self._lost(f"{sent} were sent")
        return None

    def _lost(self, found: str) -> ConsumerDeletedError:
        return ConsumerDeletedError(f"message {self.last + 1} of {self._label} was lost on its way: {found}")
