"""Acknowledgement subjects and bodies: the reply of a delivered message, and what is published to it.

Nine tokens ``$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<ns>.<pending>``, or eleven and more
with ``<domain>.<account hash>`` before the stream and anything behind the end (ADR-15). Ten are neither.
"""

from __future__ import annotations

import re

from headrace.core.delivery import Ack, Nak, Outcome, Reject
from headrace.streams.errors import NotStreamMessageError
from headrace.streams.msg import MsgMetadata, SequencePair, time_of_ns

__all__ = [
    "ACK_BODY",
    "NAK_BODY",
    "PROGRESS_BODY",
    "body_of",
    "facts_in",
    "is_ack_subject",
    "metadata_in",
    "order_in",
    "probe_of",
]

ACK_BODY = b"+ACK"
NAK_BODY = b"-NAK"
PROGRESS_BODY = b"+WPI"

_PREFIX = b"$JS.ACK."
_SHORT = 9
_LONG = 11
_NO_DOMAIN = "_"
_NUMBERS = re.compile(rb"(?:[0-9]{1,20}\.){4}[0-9]{1,20}\Z")
_CONTROL = re.compile("[\x00-\x1f\x7f\u2028\u2029]+")
_LONGEST_NUMBER = 20
_LONGEST_REASON = 4096
_LONGEST_DELAY = (1 << 63) - 1
_NOBODY = b"%d" % 10**18
"""A stream sequence that no message has: a server still answers for it (not for 0), and touches nothing."""


def is_ack_subject(reply: bytes) -> bool:
    """Whether it may be published to as an acknowledgement; its numbers are looked at when they are asked for."""
    return reply.startswith(_PREFIX) and ((dots := reply.count(b".")) == _SHORT - 1 or dots >= _LONG - 1)


def facts_in(reply: bytes) -> tuple[int, int, int]:
    """Stream sequence, delivery count, stored time in ns. ``NotStreamMessageError``."""
    tokens = reply.split(b".", _SHORT)
    if len(tokens) == _SHORT and b"".join(tokens[4:]).isdigit() and reply.startswith(_PREFIX):
        try:
            return int(tokens[5]), int(tokens[4]), int(tokens[7])
        except ValueError:
            raise _refused(reply) from None
    delivered, sequence, _, stamp, _ = _numbers(reply)
    return int(sequence), int(delivered), int(stamp)


def order_in(reply: bytes) -> int:
    """The consumer sequence: one higher for every delivery. ``NotStreamMessageError``."""
    if reply.count(b".") == _SHORT - 1 and reply.startswith(_PREFIX):
        order = reply.rsplit(b".", 3)[1]
        if order.isdigit() and len(order) <= _LONGEST_NUMBER:
            return int(order)
    return int(_numbers(reply)[2])


def metadata_in(reply: bytes) -> MsgMetadata:
    """Everything an acknowledgement subject says. ``NotStreamMessageError``."""
    delivered, sequence, order, stamp, pending = map(int, _numbers(reply))
    names = reply.decode("utf-8", "surrogateescape").split(".")[2 : _start(reply)]
    domain = names[0] if len(names) == 4 else ""
    return MsgMetadata(
        sequence=SequencePair(sequence, order),
        num_delivered=delivered,
        num_pending=pending,
        timestamp=time_of_ns(stamp),
        stream=names[-2],
        consumer=names[-1],
        domain="" if domain == _NO_DOMAIN else domain,
    )


def probe_of(reply: bytes) -> bytes:
    """A subject of the same consumer that stands for no message: what is answered there is behind all acks so far."""
    tokens = reply.split(b".")
    tokens[_start(reply) + 1] = _NOBODY
    return b".".join(tokens)


def body_of(outcome: Outcome) -> bytes:
    """What settles a message so. A release is a nak at once."""
    match outcome:
        case Ack():
            return ACK_BODY
        case Nak(delay) if delay > 0:
            return b'-NAK {"delay": %d}' % min(round(delay * 1e9), _LONGEST_DELAY)
        case Reject(reason) if reason:
            # An exception's text may have many lines, and be long; an advisory has one.
            line = _CONTROL.sub(" ", reason).encode("utf-8", "replace")[:_LONGEST_REASON]
            return b"+TERM " + line
        case Reject():
            return b"+TERM"
        case _:
            return NAK_BODY


def _start(reply: bytes) -> int:
    """At which token the five numbers begin."""
    return 4 if reply.count(b".") == _SHORT - 1 else 6


def _numbers(reply: bytes) -> list[bytes]:
    """Delivery count, stream sequence, consumer sequence, time, pending."""
    if is_ack_subject(reply):
        start = _start(reply)
        found = reply.split(b".", start + 5)[start : start + 5]
        if _NUMBERS.match(b".".join(found)):
            return found
    raise _refused(reply)


def _refused(reply: bytes) -> NotStreamMessageError:
    return NotStreamMessageError(f"not an acknowledgement subject: {reply.decode('utf-8', 'replace')!r}")
