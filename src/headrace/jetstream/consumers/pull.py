"""PullState: what a session has asked its server for, and what it asks next. A machine without I/O; time is handed in.

`open` is what was asked for and has not come, the caller says what it has buffered; both together never exceed the
maximum (jetstream.md 3.6.4-3.6.6). Requests come out of `refill`, errors out of `status` (3.5.3) and `missing`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from headrace.streams.errors import (
    ApiLevelError,
    ConsumerDeletedError,
    LeadershipChangedError,
    MaxBytesExceededError,
    PinLostError,
    PullRejectedError,
    ServerShutdownError,
    StreamError,
)
from headrace.streams.session import SessionOptions

__all__ = ["Ask", "PullState"]

Fields = Mapping[str, Sequence[str]]

_HEARTBEAT = 5.0
_SHORTEST = 1.0
"""A pull that ends sooner has no heartbeat."""
_GRACE = 2.0
"""So long after its end a pull without heartbeat counts as lost."""
_RETRY = 1.0
_LONGEST_RETRY = 10.0
_PENDING_MESSAGES = "Nats-Pending-Messages"
_PENDING_BYTES = "Nats-Pending-Bytes"

_TOO_LARGE = "message size exceeds maxbytes"
_ENDS = ("batch completed", _TOO_LARGE)
_ERRORS: tuple[tuple[int, str, type[StreamError], bool], ...] = (
    (409, "consumer deleted", ConsumerDeletedError, True),
    (409, "consumer is push based", PullRejectedError, True),
    (409, "leadership change", LeadershipChangedError, False),
    (409, "server shutdown", ServerShutdownError, False),
    (409, "exceeded maxrequest", PullRejectedError, True),
    (409, "exceeded maxwaiting", PullRejectedError, False),
    (400, "", PullRejectedError, True),
    (412, "", ApiLevelError, True),
    (423, "", PinLostError, False),
    (503, "", ConsumerDeletedError, True),
)
"""Code, how the description begins (lower case), error, and whether it ends a reader (3.5.3)."""
_SOON = (LeadershipChangedError, ServerShutdownError, PinLostError)
"""After these the next pull may leave at once."""


class Ask(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One pull as a server reads it; durations in ns."""

    batch: int
    expires: int | None = None
    max_bytes: int | None = None
    no_wait: bool = False
    idle_heartbeat: int | None = None
    group: str | None = None
    min_pending: int | None = None
    min_ack_pending: int | None = None
    id: str | None = None
    priority: int | None = None


class PullState:
    """The accounting of one session's pulls. ``options.once``: one pull in all, whose end is the end."""

    def __init__(self, options: SessionOptions) -> None:
        self.options = options
        self.open = 0
        """Messages asked for and not come."""
        self.open_bytes = 0
        self.threshold = 0
        """Below so many, open and buffered together, more is asked for."""
        self.number = 0
        """Of the last pull. Its answers bear it."""
        self.not_before = 0.0
        """When the next pull may leave."""
        self.last_beat = 0.0
        """When the server was last heard."""
        self.over = False
        """The one pull of a fetch has ended."""
        self.doubtful = False
        """Nobody answered a pull; whether the consumer is there must be asked."""
        self.pin: str | None = None
        self.limit = 0
        """What `aim` was told."""
        self._bound: int | None = None
        self._granted = 0
        self._gone = 0
        self._whole = 0
        self._asked = False
        self._looked = False
        self._beat: float | None = None
        self._silence: float | None = None
        self._failures = 0

    def aim(self, limit: int) -> None:
        """The caller wants `limit`: with what may be buffered beyond that, the most that is asked for."""
        options = self.options
        self.limit = limit
        self._bound = bound = limit + options.prefetch
        if options.max_messages is not None:
            self._bound = bound = min(bound, options.max_messages)
        elif options.max_bytes is not None and options.prefetch:
            self._bound = None  # only bytes count
            self.threshold = 0
            return
        wanted = options.threshold_messages
        self.threshold = (bound + 1) // 2 if wanted is None else min(wanted, bound)

    def refill(self, now: float, buffered: int, buffered_bytes: int = 0, *, wait: float | None = None) -> Ask | None:
        """The pull to send now, counted as open; ``None``: there is enough, or it may not leave yet.

        ``wait``: how long the caller waits (0 = a look at what is there), where it is known. What has no prefetch asks
        for what comes within that time and no longer.
        """
        options = self.options
        if self.over or now < self.not_before or (wait == 0 and self.open):
            return None
        if self._asked if options.once else not self._is_short(buffered, buffered_bytes):
            return None
        batch = self.limit + options.prefetch if self._bound is None else self._bound - self.open - buffered
        if options.stop_after is not None:
            batch = min(batch, options.stop_after - self._granted)
        room = None if options.max_bytes is None else options.max_bytes - self.open_bytes - buffered_bytes
        if batch <= 0 or (room is not None and room <= 0):
            return None
        return self._ask(now, batch, room, wait)

    def came(self, size: int) -> None:
        """A message has come; `size` counts only where bytes are bounded."""
        if self.open:
            self.open -= 1
            self.open_bytes = max(0, self.open_bytes - size) if self.open else 0
        else:
            self._granted += 1  # of a pull that was written off

    def heard(self, now: float) -> None:
        """Something came from the server: any frame is a beat."""
        self.last_beat = now
        self._failures = 0

    def dropped(self) -> None:
        """A buffered message was not handed over: ``stop_after`` does not count it."""
        self._granted -= 1

    def write_off(self) -> None:
        """Nothing more comes of the open pulls (reconnect, lost heartbeat, new leader)."""
        self._granted -= self.open
        self.open = self.open_bytes = 0
        self._gone = self.number
        self._asked = False

    def due(self) -> float | None:
        """When the server is missing, if it stays silent; ``None`` while there is nothing to watch."""
        if not self.open or self._silence is None:
            return None
        return self.last_beat + self._silence

    def missing(self, now: float, planned: float) -> bool:
        """Looked at, as was planned for a time: whether the server is missing. What was open is written off then.

        A loop that was blocked looks late, and may not have read what has come: one more heartbeat is granted.
        """
        due = self.due()
        if due is None or now < due:
            return False
        beat = self._beat or _HEARTBEAT
        if now - planned > beat / 2:
            self.last_beat += now - due + beat
            return False
        self.write_off()
        return True

    @property
    def looking(self) -> bool:
        """Whether the last pull was a look, and has not ended."""
        return self._looked and self.open > 0

    @property
    def promised(self) -> bool:
        """Whether the last pull has a heartbeat: without one a silent server is no error, only asked again."""
        return self._beat is not None

    def status(self, number: int, code: int, text: str, fields: Fields, *, now: float) -> StreamError | None:
        """A status for pull `number`. Its error, if it is one; with most a fetch is `over`.

        Nobody there (503): a fetch, and an ordered reader, have lost their consumer. Others are `doubtful`: it is for
        the session to ask what became of it.
        """
        if code == 100 or number <= self._gone:
            return None
        options = self.options
        lowered = text.lower()
        self.over = options.once
        if code in {404, 408} or (code == 409 and lowered.startswith(_ENDS)):
            return self._end(number, lowered, fields)
        self.write_off()
        if code == 423:
            self.pin = None
        if code == 503 and not options.once and options.follows is None:
            self.doubtful = True
            return None
        error = _error(code, text, lowered)
        if not isinstance(error, _SOON):
            self.not_before = now + _RETRY
        return error

    def back_off(self, now: float) -> None:
        """Nobody answers: 1, 2, 4 … 10 s until the next pull."""
        self.not_before = now + min(_RETRY * 2.0 ** min(self._failures, 10), _LONGEST_RETRY)
        self._failures += 1

    def _is_short(self, buffered: int, buffered_bytes: int) -> bool:
        if self.open + buffered < self.threshold:
            return True
        options = self.options
        if options.max_bytes is None:
            return False
        least = (options.max_bytes + 1) // 2 if options.threshold_bytes is None else options.threshold_bytes
        return self.open_bytes + buffered_bytes < least

    def _ask(self, now: float, batch: int, room: int | None, wait: float | None) -> Ask:
        options = self.options
        exact = not options.once and not options.prefetch
        expires = self._expires(wait, exact=exact)
        self.number += 1
        if not self.open:
            self.last_beat = now
        self.open += batch
        self.open_bytes += room or 0
        self._granted += batch
        self._asked = True
        self._looked = not expires
        self._watch(expires)
        if room is not None and room == options.max_bytes:
            self._whole = self.number
        return Ask(
            batch=batch,
            expires=round(expires * 1e9) or None,
            max_bytes=room,
            no_wait=options.no_wait or exact or not expires,
            idle_heartbeat=None if self._beat is None else int(self._beat * 1e9),  # rounded up it is too large
            group=options.group,
            min_pending=options.min_pending,
            min_ack_pending=options.min_ack_pending,
            id=self.pin,
            priority=options.priority,
        )

    def _expires(self, wait: float | None, *, exact: bool) -> float:
        """Length of the next pull; 0: only a look."""
        options = self.options
        if options.no_wait or wait == 0:
            return 0.0
        if exact or (options.once and self.number):  # a fetch asks again only after a reconnect: for the rest
            return options.expires if wait is None else min(wait, options.expires)
        return options.expires

    def _watch(self, expires: float) -> None:
        """The heartbeat of a pull (a server refuses more than half its length), and the silence that it cannot mean."""
        options = self.options
        if expires < _SHORTEST or (options.once and options.heartbeat is None):
            self._beat = None
            self._silence = None if options.once else expires + _GRACE
        else:
            self._beat = min(options.heartbeat or _HEARTBEAT, expires / 2)
            self._silence = 2 * self._beat

    def _end(self, number: int, lowered: str, fields: Fields) -> StreamError | None:
        """A pull has ended: what it had open is no longer open. Without (legible) numbers that is all."""
        messages, size = _number(fields, _PENDING_MESSAGES), _number(fields, _PENDING_BYTES)
        if messages is None or size is None:
            self.write_off()
        else:
            self._granted -= min(messages, self.open)
            self.open = max(0, self.open - messages)
            self.open_bytes = max(0, self.open_bytes - size) if self.open else 0
        most = self.options.max_bytes
        if lowered.startswith(_TOO_LARGE) and (self.over or (number == self._whole and size == most)):
            return MaxBytesExceededError(f"the next message is larger than max_bytes ({most})")
        return None


def _error(code: int, text: str, lowered: str) -> StreamError:
    reason = f"{text} ({code})" if text else f"status {code}"
    for its_code, start, kind, terminal in _ERRORS:
        if code == its_code and lowered.startswith(start):
            return kind(reason, code=code, description=text, terminal=terminal)
    return StreamError(reason, code=code, description=text)


def _number(fields: Fields, name: str) -> int | None:
    values = fields.get(name)
    return int(values[0]) if values and values[0].isascii() and values[0].isdigit() and len(values[0]) < 20 else None
