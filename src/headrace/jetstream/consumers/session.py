"""ServerSession: one reader of one consumer of a server. It buffers what comes, hands it over, and ends in order.

What to ask for is said by `PullState`, asked through `PullInbox`; what becomes of a message is written by `Leases`.
`_receive` buffers messages right out of the parser.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from headrace.core.delivery import Outcome
from headrace.core.errors import ClosedError, ConnectionLostError, HeadraceError, UsageError
from headrace.jetstream.consumers.acks import facts_in
from headrace.jetstream.consumers.bell import Bell
from headrace.jetstream.consumers.buffer import Buffer
from headrace.jetstream.consumers.inbox import PullInbox
from headrace.jetstream.consumers.leases import Leases
from headrace.jetstream.consumers.order import Order
from headrace.jetstream.consumers.pull import PullState
from headrace.jetstream.protocol.api import Api
from headrace.nats.block import fields_of, lines_of, status_of
from headrace.nats.errors import PermissionsError
from headrace.streams.errors import (
    ConsumerDeletedError,
    ConsumerNotFoundError,
    NoHeartbeatError,
    StreamError,
    StreamNotFoundError,
)
from headrace.streams.info import ConsumerInfo
from headrace.streams.msg import Msg, MsgMetadata
from headrace.streams.reading import is_terminal
from headrace.streams.session import SessionOptions

__all__ = ["ServerSession"]

_log = logging.getLogger("headrace.jetstream")
_ACK = b"$JS.ACK."
_DOTS, _MORE_DOTS = 8, 10
_PIN = "Nats-Pin-Id"


class ServerSession:
    """See `headrace.streams.session.PullSession`."""

    def __init__(self, api: Api, info: ConsumerInfo, options: SessionOptions) -> None:
        self._api = api
        self._connection = api.connection
        self._now = api.connection.clock.monotonic
        self._label = f"{info.stream}.{info.name}"
        self._leases = Leases(api, info)
        self._state = PullState(options)
        requests = api.subject(f"CONSUMER.MSG.NEXT.{self._label}")
        self._inbox = PullInbox(api.connection, requests, self._state, self._receive, self._missing)
        self._buffer = Buffer(self._leases, self._state)
        self._messages, self._sizes = self._buffer.messages, self._buffer.sizes
        self._order = None if options.follows is None else Order(options.follows, self._label)
        self._special = self._order is not None or self._sizes is not None or options.group is not None
        self._held, self._tracked, self._wait = self._leases.held, self._leases.tracked, self._leases.wait
        self._bell = Bell()
        self._silent = asyncio.Event()
        """Stopped, and nothing is on its way any more."""
        self._error: Exception | None = None
        self._ended: Exception | None = None
        self._stamp = 0.0
        self._in_turn = self._begun = self._pulling = self._stopped = self._closed = False

    @property
    def late_settles(self) -> int:
        """See `PullSession.late_settles`."""
        return self._leases.late

    @property
    def expired_in_buffer(self) -> int:
        """See `PullSession.expired_in_buffer`."""
        return self._buffer.expired

    @property
    def held(self) -> int:
        """See `PullSession.held`."""
        return len(self._held)

    async def pull(self, limit: int, wait: float, *, max_bytes: int | None = None) -> list[Msg]:
        """See `PullSession.pull`."""
        if self._pulling:
            raise UsageError("one pull at a time")
        if self._closed:  # whoever pulls in a loop must hear of it
            raise ClosedError("the session was closed")
        self._pulling = True
        try:
            self._begin()
            return await self._next(limit, wait, max_bytes)
        finally:
            self._pulling = False

    def take(self) -> Msg | None:
        """See `PullSession.take`."""
        messages = self._messages
        if not messages:
            return None
        state = self._state
        if state.limit != 1:
            state.aim(1)
        if state.open + len(messages) < state.threshold or self._sizes is not None:
            self._refill(None)
        msg = messages.popleft()
        if self._sizes:
            self._sizes.popleft()
        began = self._held.get(msg)
        if began is None or self._now() - began < self._wait or self._leases.is_current(msg):
            return msg
        return self._buffer.take_instead(msg)

    def alive(self, msg: Msg) -> bool:
        """See `PullSession.alive`."""
        return self._leases.alive(msg)

    def facts_of(self, msg: Msg) -> tuple[int, int, int]:
        """See `PullSession.facts_of`."""
        return facts_in(msg.token)

    def metadata_of(self, msg: Msg) -> MsgMetadata:
        """See `MsgOwner.metadata_of`."""
        return self._leases.metadata_of(msg)

    def reply_of(self, msg: Msg) -> str:
        """See `MsgOwner.reply_of`."""
        return self._leases.reply_of(msg)

    def settle(self, msg: Msg, outcome: Outcome) -> None:
        """See `MsgOwner.settle`. ``NotStreamMessageError`` before a byte for what has no acknowledgement subject."""
        self._leases.settle(msg, outcome)

    def extend(self, msg: Msg) -> None:
        """See `MsgOwner.extend`."""
        self._leases.extend(msg)

    def keep(self) -> None:
        """See `PullSession.keep`."""
        self._leases.keep()

    async def confirm(self, msg: Msg) -> None:
        """See `MsgOwner.confirm`."""
        await self._leases.confirm(msg)

    async def flush(self) -> None:
        """See `PullSession.flush`."""
        await self._leases.flush()

    async def stop(self) -> None:
        """See `PullSession.stop`. Once the consumer has answered, no pull of ours can take what is handed back."""
        if self._stopped:
            await self._silent.wait()
            return
        self._stopped = True
        try:
            if self._state.open and self._ended is None and self._connection.connected:
                self._inbox.quiet()
                with suppress(HeadraceError):
                    await self._api.ask(f"CONSUMER.INFO.{self._label}")
        finally:
            self._inbox.close()
            self._silent.set()
            self._bell.ring()

    async def aclose(self) -> None:
        """See `PullSession.aclose`."""
        if self._closed:
            return
        self._closed = True
        try:
            await self.stop()
        finally:
            self._let_go()
        if self._ended is None:
            try:
                await self._leases.flush()
            except ConsumerDeletedError:
                return
            except ConnectionLostError as error:
                _log.warning("%s: %s", self._label, error)

    # --- what the connection tells

    def lost(self, error: BaseException) -> None:
        """The link is gone, and every pull with it."""
        self._inbox.close()
        self._leases.lost()
        self._bell.ring()

    def restored(self) -> None:
        """There is a link again: a new inbox, and who waits pulls again. An ordered reader may have missed some."""
        if self._stopped or self._ended is not None:
            return
        if self._order is not None:
            self._fail(ConsumerDeletedError("the connection was lost meanwhile"))
        else:
            self._inbox.open()
            self._bell.ring()

    def closed(self, error: BaseException | None) -> None:
        """The connection is closed for good."""
        failure = ClosedError("the connection was closed")
        failure.__cause__ = error
        self._leases.forget()
        self._fail(failure)

    def forbidden(self, error: PermissionsError) -> None:
        """Whoever asks hears of it from those who send."""

    # --- receiving

    def _receive(self, subject: bytes, reply: bytes, header: bytes, data: bytes) -> None:
        """One frame for the inbox. Quick, and never raises."""
        stamp = self._stamp if self._in_turn else self._begin_turn()
        dots = reply.count(b".")
        if (dots != _DOTS and dots < _MORE_DOTS) or not reply.startswith(_ACK):  # is_ack_subject, written out
            self._receive_other(subject, reply, header, data)
            return
        if self._special and not self._look_at(subject, reply, header, data):
            return
        try:
            text = subject.decode()
        except UnicodeDecodeError:
            text = subject.decode("utf-8", "surrogateescape")
        block = b"" if not header else header[10:-2] if header[8:10] == b"\r\n" else lines_of(header)
        msg = Msg(self._leases, text, data, block, reply)
        self._messages.append(msg)
        if self._tracked:
            self._held[msg] = stamp
        state = self._state
        if state.open and not self._special:
            state.open -= 1  # PullState.came, written out
        else:
            state.came(self._sizes[-1] if self._sizes else 0)

    def _look_at(self, subject: bytes, reply: bytes, header: bytes, data: bytes) -> bool:
        """What only some sessions ask: order, size, pin. False: the message is not taken."""
        gap = None if self._order is None else self._order.gap_before(reply)
        if gap is not None:
            self._fail(gap)
        if self._ended is not None:
            return False
        if self._sizes is not None:
            self._sizes.append(len(subject) + len(reply) + len(header) + len(data))
        if self._state.options.group is not None and header:
            self._state.pin = next(iter(fields_of(header).get(_PIN, ())), self._state.pin)
        return True

    def _receive_other(self, subject: bytes, reply: bytes, header: bytes, data: bytes) -> None:
        """A status; or what somebody else sent here: a message that cannot be settled."""
        status = None if reply or data else status_of(header)
        if status is None:
            text = subject.decode("utf-8", "surrogateescape")
            self._messages.append(Msg(self._leases, text, data, lines_of(header) if header else b"", reply))
            if self._sizes is not None:
                self._sizes.append(0)
            return
        code, text = status
        number = subject.rpartition(b".")[2]
        fields = fields_of(header)
        if code == 100 and self._order is not None and (gap := self._order.gap_at_end(fields)):
            self._fail(gap)
        error = self._state.status(int(number) if number.isdigit() else 0, code, text, fields, now=self._stamp)
        if error is not None:
            self._fail(error)

    def _begin_turn(self) -> float:
        """The first frame of a loop turn: one look at the clock, one wake-up for all of them."""
        self._in_turn = True
        self._stamp = self._now()
        self._state.heard(self._stamp)
        self._leases.sweep()
        self._connection.loop.call_soon(self._end_turn)
        self._bell.ring()
        return self._stamp

    def _end_turn(self) -> None:
        self._in_turn = False
        self._bell.ring()

    # --- asking

    def _begin(self) -> None:
        """At the first pull."""
        if self._begun or self._stopped:
            return
        self._begun = True
        if self._connection.closed:
            self._ended = ClosedError("the connection was closed")
            return
        self._connection.add_listener(self)
        if self._connection.connected:
            self._inbox.open()

    def _refill(self, wait: float | None) -> None:
        """Ask for more if it is time to."""
        if not self._stopped:
            self._inbox.ask(len(self._messages), self._buffer.size, wait)

    def _missing(self) -> None:
        """The server is silent. Without a promised heartbeat that is no error: who waits asks again.

        It may have parked a look for ever: one that nobody waits for any more must not take what comes later.
        """
        if self._state.promised:
            self._fail(NoHeartbeatError(f"nothing heard of {self._label}, not even a heartbeat"))
        elif not self._stopped:
            self._inbox.turn()
        self._bell.ring()

    async def _inquire(self) -> None:
        """Nobody answered a pull: is the consumer gone, or its server? Cancelled, it is asked again."""
        self._state.back_off(self._now())
        try:
            await self._api.ask(f"CONSUMER.INFO.{self._label}")
            failure = StreamError(f"nobody answered a pull on {self._label}, which is there", code=503)
        except (ConsumerNotFoundError, StreamNotFoundError) as error:
            failure = ConsumerDeletedError(f"{self._label}: {error}")
        except HeadraceError as error:
            failure = StreamError(f"nobody answers for {self._label}: {error}", code=503)
        self._state.doubtful = False
        self._fail(failure)

    async def _next(self, limit: int, wait: float, max_bytes: int | None) -> list[Msg]:
        """Ask, wait, take. Without messages it ends with the time, with the one pull of a fetch, or once stopped."""
        state = self._state
        deadline = self._now() + wait
        looked = False  # a pull of 0 s asks once what is there, unless it has just been asked
        while True:
            state.aim(limit)
            left = max(0.0, deadline - self._now())
            if not looked:
                self._refill(left if wait > 0 else 0.0)
            if self._messages:
                found = self._buffer.take(limit, max_bytes)
                if found:
                    return found
                continue  # all of it had run out: there is room for more
            if state.doubtful and not self._stopped:
                await self._inquire()
            self._raise_error()
            if wait <= 0 and state.looking and not looked:
                looked = True
            elif self._is_over(left, looked=looked):
                return []
            await self._sleep(None if looked or self._stopped or state.options.once else deadline - self._now())

    def _is_over(self, left: float, *, looked: bool) -> bool:
        """Whether nothing more comes for a pull. Stopping, what is on its way still does."""
        if self._stopped:
            return self._silent.is_set()
        state = self._state
        return state.over or not (state.looking if looked else left or state.options.once)

    def _raise_error(self) -> None:
        error, self._error = self._ended or self._error, None
        if error is not None:
            raise error

    async def _sleep(self, wait: float | None) -> None:
        """Until something comes, `wait` is over, or the next pull may leave."""
        held_back = self._state.not_before - self._now()
        if held_back > 0:
            wait = held_back if wait is None else min(wait, held_back)
        await self._bell.wait(wait)

    # --- ending

    def _fail(self, error: Exception) -> None:
        """To be raised once the buffer is empty. What is terminal ends the session."""
        if self._ended is not None:
            return
        if is_terminal(error):
            self._ended = error
            self._inbox.close()
        else:
            self._error = error
        self._bell.ring()

    def _let_go(self) -> None:
        """Hand back in order what nobody saw, and let go of everything."""
        if self._begun:
            self._connection.remove_listener(self)
        self._buffer.give_back()
        self._leases.forget()
        self._bell.ring()
