"""The record of a dead letter and the way back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.delivery import Delivery, Position
from headrace.core.errors import UsageError
from headrace.core.headers import Headers
from headrace.core.message import Message
from headrace.flow.letter import (
    letter_id,
    letter_of,
    ns_of_rfc3339,
    one_line,
    position_of_text,
    restore,
    rfc3339_of_ns,
)


class Owner:
    group = "g"

    def position(self, delivery):
        return Position("s", 7)


def died(message, attempt=3, error=None, topic="dead.orders", now_ns=10**18):
    delivery = Delivery(message, attempt, message.key, Owner())
    return letter_of(delivery, error or ValueError("boom"), topic=topic, now_ns=now_ns)


def test_there_and_back():
    message = Message(topic="orders", body=b"\x00", key=b"k", headers=Headers([("A", "1"), ("a", b"\xff")]), id="one")
    letter = died(message)
    assert letter.id == "orders.one.g.dead"
    back = restore(letter)
    assert back.id == "one.r1"
    assert (back.topic, back.body, back.key, back.time_ns) == ("orders", b"\x00", b"k", message.time_ns)
    assert back.headers.items()[:2] == message.headers.items()
    again = died(back, now_ns=2 * 10**18)
    assert again.headers.get_all("Headrace-Dead-Pass") == ("2",)
    assert again.headers.get_all("Headrace-Dead-Id") == ("one",)
    assert again.headers.get("Headrace-Dead-First") == letter.headers.get("Headrace-Dead-First")
    assert restore(again).id == "one.r2"


def test_ids_stay_short_and_differ_by_topic():
    assert letter_id("a", "1", None) != letter_id("b", "1", None)
    assert len(letter_id("a", "x" * 250, "g")) == 64


def test_the_reason_is_one_safe_line():
    letter = died(Message(topic="t", body=b""), error=ValueError("a\r\nb\x1b[31m" + "x" * 5_000))
    reason = letter.headers.get("Headrace-Dead-Reason")
    assert reason.startswith("a\\r\\nb\\x1b[31mxxx")
    assert len(reason) <= 1_024
    assert one_line("\ud800") == "\\ud800"


def test_no_record_no_way_back():
    with pytest.raises(UsageError):
        restore(Message(topic="t", body=b""))


@given(st.integers(-(10**18), 10**19))
def test_times_survive(nanoseconds):
    assert ns_of_rfc3339(rfc3339_of_ns(nanoseconds)) == nanoseconds


def test_strangers_text_is_no_time_and_no_position():
    assert ns_of_rfc3339("2000-13-01T00:00:00Z") is None
    assert ns_of_rfc3339("x") is None
    assert position_of_text("a@b@3") == Position("a@b", 3)
    assert position_of_text("a@b") is None
