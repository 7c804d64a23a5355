"""What a session asks its server for, and what it makes of the answers: no I/O, time is given."""

import msgspec
import pytest

from headrace.jetstream.consumers.pull import PullState
from headrace.streams.consumer import session_options
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
from headrace.streams.options import PullOptions
from headrace.streams.session import SessionOptions

MAX_BYTES = "Message Size Exceeds MaxBytes"
BOTH = {"max_messages": 10, "threshold_messages": 5, "max_bytes": 1000, "threshold_bytes": 500}


def reader(**options):
    """The state of `messages` and `consume`, before their first pull."""
    state = PullState(session_options(PullOptions(**options)))
    state.aim(1)
    return state


def fetcher(batch=10, **options):
    state = PullState(SessionOptions(max_messages=batch, once=True, **options))
    state.aim(batch)
    return state


def asked(state, *, opened=0, opened_bytes=0, buffered=0, buffered_bytes=0, handed=0, now=0.0, wait=None):
    """What it asks for when so much is open, buffered and handed over."""
    state.open, state.open_bytes = opened, opened_bytes
    state._granted = opened + buffered + handed
    ask = state.refill(now, buffered, buffered_bytes, wait=wait)
    return None if ask is None else (ask.batch, ask.max_bytes)


def pending(messages, size=0):
    return {"Nats-Pending-Messages": [str(messages)], "Nats-Pending-Bytes": [str(size)]}


@pytest.mark.parametrize(
    ("options", "before", "wanted"),
    [
        ({"max_messages": 10, "threshold_messages": 5}, {"opened": 10}, None),
        ({"max_messages": 10, "threshold_messages": 5}, {"buffered": 10}, None),
        ({"max_messages": 10, "threshold_messages": 5}, {"opened": 2, "buffered": 3}, None),
        ({"max_messages": 10, "threshold_messages": 5}, {"opened": 1, "buffered": 3}, (6, None)),
        ({}, {"opened": 249}, (251, None)),
        ({}, {"opened": 250}, None),
        ({}, {}, (500, None)),
        ({"max_messages": 1}, {}, (1, None)),
        ({"max_messages": 1}, {"opened": 1}, None),
        ({"max_bytes": 1000, "threshold_bytes": 500}, {"opened": 7, "opened_bytes": 400}, (1_000_000, 600)),
        ({"max_bytes": 1000, "threshold_bytes": 500}, {"opened": 7, "opened_bytes": 500}, None),
        (BOTH, {"opened": 4, "opened_bytes": 700}, (6, 300)),
        (BOTH, {"opened": 1, "opened_bytes": 300, "buffered": 3, "buffered_bytes": 400}, (6, 300)),
        (BOTH, {"opened": 4, "opened_bytes": 1000}, None),
        ({"max_messages": 10, "threshold_messages": 5, "stop_after": 8}, {"opened": 4, "handed": 2}, (2, None)),
        ({"max_messages": 10, "threshold_messages": 5, "stop_after": 8}, {"opened": 4, "handed": 4}, None),
    ],
)
def test_refill_table(options, before, wanted):
    assert asked(reader(**options), **before) == wanted


def test_refill_after_an_expiry():
    state = reader(max_messages=10, threshold_messages=5)
    assert state.refill(0.0, 0).batch == 10
    for _ in range(4):
        state.came(0)
    state.open = 8
    assert state.status(1, 408, "Request Timeout", pending(6), now=1.0) is None
    assert state.open == 2
    assert state.refill(1.0, 0).batch == 8


def test_refill_after_a_change_of_leader():
    state = reader(max_messages=10, threshold_messages=5)
    state.refill(0.0, 0)
    state.open = 5
    assert isinstance(state.status(1, 409, "Leadership Change", pending(5), now=1.0), LeadershipChangedError)
    assert state.open == 0
    assert state.refill(1.0, 3).batch == 7
    # The second pull of the old leader reports too: it was written off, and the new one is not.
    assert state.status(1, 409, "Leadership Change", pending(5), now=1.0) is None
    assert state.open == 7


def test_what_bytes_full_pulls_leave_is_asked_for_again():
    state = reader(**BOTH)
    assert state.refill(0.0, 0).max_bytes == 1000
    for _ in range(10):
        state.came(10)
    assert (state.open, state.open_bytes) == (0, 0)


def test_a_message_larger_than_the_maximum_ends_it():
    state = reader(max_bytes=1000)
    state.refill(0.0, 0)
    error = state.status(1, 409, MAX_BYTES, pending(1_000_000, 1000), now=0.0)
    assert isinstance(error, MaxBytesExceededError)
    assert error.terminal
    assert "1000" in str(error)


def test_a_message_larger_than_the_rest_does_not():
    state = reader(max_bytes=1000)
    state.refill(0.0, 0)
    state.came(900)
    assert state.status(1, 409, MAX_BYTES, pending(999_999, 100), now=0.0) is None
    assert state.refill(0.0, 1, 900) is None
    assert state.refill(0.0, 1, 400).max_bytes == 600
    assert state.status(2, 409, MAX_BYTES, pending(1_000_000, 600), now=0.0) is None
    assert state.refill(0.0, 0).max_bytes == 1000


@pytest.mark.parametrize("fields", [{}, pending("x"), pending(-1), {"Nats-Pending-Messages": ["3"]}, pending(10**25)])
def test_illegible_numbers_count_as_all(fields):
    state = reader(max_messages=10)
    state.refill(0.0, 0)
    assert state.status(1, 408, "Request Timeout", fields, now=0.0) is None
    assert state.open == 0
    assert state.refill(0.0, 0).batch == 10


def test_numbers_too_large_take_no_more_than_there_is():
    state = reader(max_messages=10)
    state.refill(0.0, 0)
    state.status(1, 408, "Request Timeout", pending(10**9, 10**9), now=0.0)
    assert (state.open, state.open_bytes) == (0, 0)


@pytest.mark.parametrize(
    ("code", "text", "kind", "terminal", "wait"),
    [
        (409, "Consumer Deleted", ConsumerDeletedError, True, 1),
        (409, "consumer is push based", PullRejectedError, True, 1),
        (409, "LEADERSHIP CHANGE", LeadershipChangedError, False, 0),
        (409, "Server Shutdown", ServerShutdownError, False, 0),
        (409, "Exceeded MaxRequestBatch of 10", PullRejectedError, True, 1),
        (409, "Exceeded MaxRequestExpires of 1s", PullRejectedError, True, 1),
        (409, "Exceeded MaxRequestMaxBytes of 100", PullRejectedError, True, 1),
        (409, "Exceeded MaxWaiting", PullRejectedError, False, 1),
        (400, "Bad Request - heartbeat value too large", PullRejectedError, True, 1),
        (412, "Required Api Level", ApiLevelError, True, 1),
        (423, "Nats-Wrong-Pin-Id", PinLostError, False, 0),
        (409, "Something New", StreamError, False, 1),
        (499, "", StreamError, False, 1),
    ],
)
def test_statuses_that_are_errors(code, text, kind, terminal, wait):
    state = reader(max_messages=10)
    state.refill(0.0, 0)
    state.pin = "pin"
    error = state.status(1, code, text, {}, now=5.0)
    assert type(error) is kind
    assert error.terminal is terminal
    assert (error.code, error.description) == (code, text)
    assert state.open == 0
    assert state.pin == (None if code == 423 else "pin")
    at_once = state.refill(5.0, 0)
    assert (at_once is None) is bool(wait)
    assert (at_once or state.refill(5.0 + wait, 0)).batch == 10
    fetch = fetcher()
    fetch.refill(0.0, 0)
    assert type(fetch.status(1, code, text, {}, now=5.0)) is kind
    assert fetch.over


@pytest.mark.parametrize(
    ("code", "text"),
    [(404, "No Messages"), (408, "Request Timeout"), (408, "Interest Expired"), (409, "Batch Completed")],
)
def test_statuses_that_are_an_end(code, text):
    for state in (reader(max_messages=10), fetcher()):
        state.refill(0.0, 0)
        assert state.status(1, code, text, {}, now=0.0) is None
        assert state.open == 0
        assert state.over is state.options.once


def test_nobody_there_is_a_doubt_and_for_a_fetch_the_end():
    state = reader()
    waits = []
    for now in (0.0, 100.0, 200.0, 300.0, 400.0, 500.0):
        state.refill(now, 0)
        assert state.status(state.number, 503, "", {}, now=now) is None
        assert state.doubtful
        state.back_off(now)
        waits.append(state.not_before - now)
    assert waits == [1, 2, 4, 8, 10, 10]
    state.heard(600.0)
    state.back_off(600.0)
    assert state.not_before == 601
    for ended in (fetcher(), PullState(SessionOptions(max_messages=5, prefetch=4, follows=0))):
        ended.aim(1)
        ended.refill(0.0, 0)
        assert isinstance(ended.status(1, 503, "", {}, now=0.0), ConsumerDeletedError)


def test_one_pull_for_a_fetch():
    state = fetcher(expires=30.0, heartbeat=5.0)
    ask = state.refill(0.0, 0, wait=29.9)
    assert msgspec.to_builtins(ask) == {"batch": 10, "expires": 30 * 10**9, "idle_heartbeat": 5 * 10**9}
    assert state.refill(1.0, 3, wait=28.9) is None
    state.write_off()  # a reconnect: the rest, in what is left of its time
    state.aim(7)
    again = state.refill(25.0, 0, wait=5.0)
    assert (again.batch, again.expires, again.idle_heartbeat) == (7, 5 * 10**9, 2_500_000_000)


def test_a_fetch_that_does_not_wait():
    state = fetcher(no_wait=True)
    assert msgspec.to_builtins(state.refill(0.0, 0, wait=0.0)) == {"batch": 10, "no_wait": True}
    assert state.due() is None


def test_without_prefetch_it_asks_for_what_is_there_while_its_caller_waits():
    state = PullState(SessionOptions())
    state.aim(4)
    ask = state.refill(0.0, 0, wait=2.0)
    wanted = {"batch": 4, "no_wait": True, "expires": 2 * 10**9, "idle_heartbeat": 10**9}
    assert msgspec.to_builtins(ask) == wanted
    state.status(1, 408, "Request Timeout", pending(4), now=2.0)
    assert msgspec.to_builtins(state.refill(2.0, 0, wait=0.0)) == {"batch": 4, "no_wait": True}
    assert state.refill(2.0, 0, wait=0.0) is None


def test_a_look_is_one_until_it_has_ended():
    state = PullState(SessionOptions())
    state.aim(2)
    state.refill(0.0, 0, wait=2.0)
    assert not state.looking, "it waits"
    state.status(1, 408, "Request Timeout", pending(2), now=2.0)
    state.refill(2.0, 0, wait=0.0)
    state.came(0)
    assert state.looking
    state.status(2, 408, "Request Completed", pending(1), now=2.0)
    assert not state.looking
    state.refill(2.0, 0, wait=0.0)
    assert state.missing(10.0, 10.0)
    assert not state.promised
    assert not state.looking


def test_priorities_are_sent_along():
    options = SessionOptions(max_messages=5, prefetch=4, group="g", min_pending=1, min_ack_pending=2, priority=0)
    state = PullState(options)
    state.aim(1)
    state.pin = "p"
    ask = msgspec.to_builtins(state.refill(0.0, 0))
    assert {name: ask[name] for name in ("group", "min_pending", "min_ack_pending", "priority", "id")} == {
        "group": "g",
        "min_pending": 1,
        "min_ack_pending": 2,
        "priority": 0,
        "id": "p",
    }


def test_a_message_dropped_unseen_counts_for_no_end():
    state = reader(max_messages=10, stop_after=3)
    assert state.refill(0.0, 0).batch == 3
    for _ in range(3):
        state.came(0)
    state.dropped()
    assert state.refill(0.0, 0).batch == 1
    state.write_off()
    assert state.refill(0.0, 0).batch == 1


@pytest.mark.parametrize(
    ("options", "heartbeat"),
    [
        (session_options(PullOptions()), 5.0),
        (session_options(PullOptions(expires=4.0)), 2.0),
        (session_options(PullOptions(heartbeat=0.5)), 0.5),
        (SessionOptions(max_messages=9, prefetch=4), 5.0),
        (SessionOptions(max_messages=9, once=True, expires=9.0), None),
        (SessionOptions(max_messages=9, once=True, expires=10.0, heartbeat=5.0), 5.0),
    ],
)
def test_heartbeat_rules(options, heartbeat):
    state = PullState(options)
    state.aim(1)
    ask = state.refill(100.0, 0)
    assert ask.idle_heartbeat == (None if heartbeat is None else heartbeat * 10**9)
    assert state.promised is (heartbeat is not None)
    if heartbeat is None:
        assert state.due() is None
        return
    assert state.due() == 100 + 2 * heartbeat
    state.heard(103.0)
    assert state.due() == 103 + 2 * heartbeat
    assert not state.missing(103 + 1.9 * heartbeat, 103 + 1.9 * heartbeat)
    assert state.missing(103 + 2 * heartbeat, 103 + 2 * heartbeat)
    assert (state.open, state.due()) == (0, None)
    assert not state.missing(999.0, 999.0)
    assert state.refill(200.0, 0).batch == ask.batch


def test_a_blocked_loop_is_granted_one_more_heartbeat():
    state = reader(heartbeat=2.0)
    state.refill(0.0, 0)
    assert not state.missing(10.0, 4.0)
    assert state.due() == 12
    assert not state.missing(11.0, 11.0)
    assert state.missing(12.0, 12.0)


def test_nothing_is_watched_while_nothing_is_open():
    state = reader(max_messages=2)
    assert state.due() is None
    state.refill(0.0, 0)
    state.came(0)
    assert state.due() == 10
    state.came(0)
    assert state.due() is None
    assert state.refill(500.0, 0).batch == 2
    assert state.due() == 510


def test_a_late_answer_of_what_was_written_off_takes_nothing():
    state = reader(max_messages=10)
    state.refill(0.0, 0)
    state.write_off()
    state.refill(0.0, 0)
    assert state.status(1, 408, "Request Timeout", pending(10), now=0.0) is None
    assert state.open == 10
    state.open = 0
    state.came(0)  # nobody asked for it, and here it is
    assert state.refill(0.0, 1).batch == 9


@pytest.mark.parametrize("wait", [1.399999999, 1.3999999995, 1.234567891, 2.000000001])
def test_a_heartbeat_is_never_more_than_half_of_the_pull(wait):
    """Rounded up by one nanosecond it is refused: "heartbeat value too large"."""
    state = PullState(SessionOptions())
    state.aim(1)
    ask = state.refill(0.0, 0, wait=wait)
    assert 2 * ask.idle_heartbeat <= ask.expires
