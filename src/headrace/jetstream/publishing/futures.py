"""Pending: the coming answer to one publish. It resolves once, always.

Whatever waits for an answer is a `Flight`, and stands in the connection's table of replies under its tokens, in the
order of sending. So that table alone says what is outstanding: nothing else is kept, looked up or removed per message.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Generator
from typing import Any, Protocol

import msgspec

from headrace.core.errors import BrokerError, Fault, PublishError
from headrace.core.headers import NO_HEADERS, HeadersLike
from headrace.jetstream.publishing.answers import answer_of, interrupted, late, nobody, not_sent
from headrace.jetstream.publishing.window import Window
from headrace.nats.connection import Connection
from headrace.nats.errors import PermissionsError
from headrace.streams.config import StreamMessage, StreamPublishOptions
from headrace.streams.errors import NoStreamResponseError
from headrace.streams.info import PubAck
from headrace.streams.names import WireBlock

__all__ = ["AGAIN", "RESTING", "Desk", "Flight", "Pending"]

RESTING = 0
"""In place of a frame's number: no stream was there, it is tried again when due."""
AGAIN = -1
"""In place of a frame's number: the link was lost behind it, it is written again on the next one."""

_DEFAULT = StreamPublishOptions()


class Desk(Protocol):
    """What a flight asks of the publisher."""

    @property
    def connection(self) -> Connection:
        """What it publishes through."""
        ...

    @property
    def timeout(self) -> float:
        """Longest wait for an answer."""
        ...

    @property
    def most(self) -> int:
        """Most answers that may be outstanding."""
        ...

    def check_open(self) -> None:
        """``ClosedError`` once it is closed."""
        ...

    async def room(self, timeout: float) -> None:
        """Until the connection takes more. ``PublishTimeoutError``."""
        ...

    def now(self) -> float:
        """The loop's time."""
        ...

    def watch(self, due: float) -> None:
        """The shared timer looks at all flights then."""
        ...

    def failed(self, message: StreamMessage, error: PublishError) -> None:
        """An async publish failed: whoever has not asked yet is told."""
        ...


class Flight(msgspec.Struct, eq=False):
    """One or many publishes that were handed to the connection. Called with each answer."""

    desk: Desk
    due: float
    """When the timer has to look at it."""

    def __call__(self, token: int, header: bytes, data: bytes) -> None:
        """Take the answer to `token`."""
        raise NotImplementedError

    def overdue(self, token: int) -> None:
        """`due` is over."""
        raise NotImplementedError

    def lost(self, token: int, flushed: int, cause: BaseException) -> None:
        """The link is gone; frames up to `flushed` went over it, and their outcome is unknown."""
        raise NotImplementedError

    def restored(self, token: int) -> None:
        """There is a link again: write now what is to be written again."""
        raise NotImplementedError

    def interrupt(self, token: int, cause: BaseException | None) -> None:
        """There will be no answer."""
        raise NotImplementedError

    def forbidden(self, token: int, flushed: int, cause: PermissionsError) -> None:
        """The server did not take frames up to `flushed` on ``cause.subject``."""
        raise NotImplementedError


class Pending(Flight, eq=False, gc=False):
    """The coming answer to one publish: what `publish_async` gives.

    The garbage collector does not look at it (a fifth of a publish, where many are kept), so no cycle may go through
    one: who waits is let go with the answer, and what is raised is a copy, since a traceback holds those who await.
    """

    subject: str
    data: bytes
    headers: HeadersLike | WireBlock | None
    msg_id: str | None
    options: StreamPublishOptions | None
    wire: bytes
    """The subject, as it is sent."""
    block: bytes
    window: Window | None
    """Where it holds a slot, if it does."""
    limit: float = 0.0
    """When its time is over; 0 = when `due`."""
    frame: int = 0
    attempts: int = 0
    repeated: bool = False
    """Whether a link was lost behind it: it may be stored, whatever is answered now."""
    result: PubAck | PublishError | None = None
    followers: list[asyncio.Future[None] | Callable[[Any], None]] | None = None

    @property
    def message(self) -> StreamMessage:
        """What was published."""
        given = NO_HEADERS if self.headers is None else self.headers
        return StreamMessage(self.subject, self.data, given, self.msg_id)

    def done(self) -> bool:
        """Whether the answer is there."""
        return self.result is not None

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call it with this future once the answer is there."""
        if self.result is not None:
            self.desk.connection.loop.call_soon(callback, self)
        else:
            self._follow(callback)

    def __await__(self) -> Generator[Any, None, PubAck]:
        if self.result is None:
            waiter: asyncio.Future[None] = self.desk.connection.loop.create_future()
            self._follow(waiter)
            yield from waiter
        result = self.result
        if isinstance(result, PubAck):
            return result
        assert result is not None  # noqa: S101  (woken by its result alone)
        raise _copy(result)

    def __repr__(self) -> str:
        return f"<Pending {self.subject!a}: {'waiting' if self.result is None else self.result!r}>"

    def __call__(self, token: int, header: bytes, data: bytes) -> None:
        """Take the answer; where no stream is there, try again later."""
        result = answer_of(self.subject, self.msg_id, header, data)
        if isinstance(result, PublishError):
            self._failed(result)
            return
        self.result = result  # `_finish`, written out
        if self.followers is not None:
            self._tell()
        if self.window is not None:
            self.window.free()

    def launch(self, token: int) -> None:
        """Hand it to the connection. ``ConnectionLostError``, ``ClosedError``: it was not taken."""
        connection = self.desk.connection
        reply = b"%b%d" % (connection.replies.prefix, token)
        self.frame = connection.send(self.wire, reply, self.block, self.data)

    def overdue(self, token: int) -> None:
        """Try again what rested; the time of all others is over."""
        if self.frame == RESTING:
            self.due, self.limit = self.limit, 0.0
            self._relaunch(token)
            return
        connection = self.desk.connection
        connection.replies.forget(token)
        unsent = self.frame > connection.flushed and connection.withdraw(self.frame)
        given: Any = None if self.options is None else self.options.timeout
        timeout = self.desk.timeout if given is None else given.total_seconds()
        self._finish(late(timeout, self.msg_id, sent=self.repeated or not unsent))

    def lost(self, token: int, flushed: int, cause: BaseException) -> None:
        """Keep what has not left, and what the stream's memory of ids makes safe to write again."""
        if self.frame == RESTING or self.frame > flushed:
            return
        if self.msg_id is None or _has_sequence(self.options):
            self.interrupt(token, cause)
        else:
            self.frame = AGAIN
            self.repeated = True

    def restored(self, token: int) -> None:
        """Write it again if it is to be."""
        if self.frame == AGAIN:
            self._relaunch(token)

    def interrupt(self, token: int, cause: BaseException | None) -> None:
        """Fail."""
        self.desk.connection.replies.forget(token)
        self._finish(interrupted(self.msg_id, cause))

    def forbidden(self, token: int, flushed: int, cause: PermissionsError) -> None:
        """Fail, if it was sent there."""
        if self.wire == cause.subject and RESTING < self.frame <= flushed:
            self.desk.connection.replies.forget(token)
            self._finish(not_sent(self.msg_id, cause, Fault.UNKNOWN if self.repeated else Fault.REJECTED))

    def _relaunch(self, token: int) -> None:
        try:
            self.launch(token)
        except BrokerError as error:
            self.desk.connection.replies.forget(token)
            self._finish(not_sent(self.msg_id, error, Fault.UNKNOWN if self.repeated else Fault.UNAVAILABLE))

    def _failed(self, error: PublishError) -> None:
        if type(error) is NoStreamResponseError:
            if self._rest():
                return
            if self.repeated:
                error = nobody(self.subject, self.msg_id, Fault.UNKNOWN)
        self._finish(error)

    def _rest(self) -> bool:
        """Whether it is tried again, after a while and before its time is over."""
        options = self.options or _DEFAULT
        wait: Any = options.retry_wait  # a timedelta: its __post_init__ made one of seconds, too
        due = self.desk.now() + wait.total_seconds()
        if self.attempts >= options.retry_attempts or due >= self.due:
            return False
        self.attempts += 1
        self.frame = RESTING
        self.due, self.limit = due, self.due
        self.desk.connection.replies.ask(self)
        self.desk.watch(due)
        return True

    def _finish(self, error: PublishError) -> None:
        """It failed for good."""
        self.result = error
        if self.followers is not None:
            self._tell()
        if self.window is not None:
            self.window.free()
            self.desk.failed(self.message, _copy(error))

    def _follow(self, follower: asyncio.Future[None] | Callable[[Any], None]) -> None:
        if self.followers is None:
            self.followers = [follower]
        else:
            self.followers.append(follower)

    def _tell(self) -> None:
        followers, self.followers = self.followers or (), None
        for follower in followers:
            if not isinstance(follower, asyncio.Future):
                self.desk.connection.loop.call_soon(follower, self)
            elif not follower.done():
                follower.set_result(None)


def _has_sequence(options: StreamPublishOptions | None) -> bool:
    """Whether it expects a sequence: its own first copy would make the second one fail."""
    expect = None if options is None else options.expect
    return expect is not None and (expect.last is not None or expect.last_for_topic is not None)


def _copy(error: PublishError) -> PublishError:
    """The same error without a traceback."""
    made = copy.copy(error)
    made.__cause__ = error.__cause__
    return made
