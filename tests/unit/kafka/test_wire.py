"""Messages to records and back: nothing is lost, nothing kills a pull, dead letters carry their origin."""

import logging
import pickle

import pytest
from confluent_kafka import Message as DriverRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.delivery import Delivery, Position
from headrace.core.errors import UsageError
from headrace.core.headers import NO_HEADERS, Headers, value_of_bytes
from headrace.core.message import Message
from headrace.flow import letter
from headrace.kafka import wire
from headrace.kafka.wire import Tombstone, decode, encode

ID = "Headrace-Id"
MS = 1_000_000


def record_of(topic="orders", value=b"body", key=None, headers=None, *, time=(1, 5), partition=3, offset=7):
    return DriverRecord(
        topic=topic, partition=partition, offset=offset, key=key, value=value, headers=headers, timestamp=time
    )


def read(record, id_header=ID):
    return decode(record, record.topic(), f"{record.topic()}/{record.partition()}", record.offset(), id_header)[0]


def sent(message, id_header=ID, partition=0, offset=0):
    """The record that the driver hands out for what `encode` gave it."""
    topic, value, key, headers, milliseconds = encode(message, id_header)
    assert all(type(raw) is bytes for _, raw in headers)
    return record_of(topic, value, key, headers, time=(1, milliseconds), partition=partition, offset=offset)


names = st.from_regex(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,20}", fullmatch=True).filter(
    lambda name: name.lower() != ID.lower() and not name.lower().startswith("headrace-dead-")
)
texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=30).map(
    lambda text: text.strip()
)
values = st.one_of(texts, st.binary(max_size=30))
messages = st.builds(
    Message,
    topic=st.from_regex(r"[A-Za-z0-9_\-]{1,20}(\.[A-Za-z0-9_\-]{1,9}){0,3}", fullmatch=True),
    body=st.binary(max_size=100),
    key=st.none() | st.binary(max_size=20),
    headers=st.lists(st.tuples(names, values), max_size=6).map(Headers),
    id=st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=50),
    time_ns=st.integers(MS, 253_402_300_799_999 * MS),
)


@settings(max_examples=300, deadline=None)
@given(messages, st.booleans(), st.sampled_from([ID, "x-id"]))
def test_wire_round_trip(message, null, id_header):
    if null:
        message = Tombstone(
            topic=message.topic, key=message.key, headers=message.headers, id=message.id, time_ns=message.time_ns
        )
    message = message.replace(headers=message.headers.remove(id_header))
    found = read(sent(message, id_header), id_header)
    assert found == message.replace(time_ns=message.time_ns // MS * MS)
    assert type(found) is type(message)
    assert [name for name, _ in found.headers.items()] == [name for name, _ in message.headers.items()]


def test_a_record_of_a_stranger():
    message = read(record_of(key=b"", headers=None, time=(2, 12)))
    assert message == Message(topic="orders", body=b"body", key=b"", id="orders/3/7", time_ns=12 * MS)
    assert message.headers is NO_HEADERS
    assert decode(record_of(time=(2, 12)), "orders", "orders/3", 7, ID)[1] == 2


@pytest.mark.parametrize("raw", [None, b"", b"\xff", b"a\nb", b"x" * 256, "\x80".encode()])
def test_without_a_legal_id_it_is_the_place(raw):
    assert read(record_of(headers=[(ID, raw)])).id == "orders/3/7"
    message = read(record_of(headers=[("a", b"1"), (ID, raw)]))
    assert (message.id, message.headers) == ("orders/3/7", Headers([("a", "1")]))


@pytest.mark.parametrize("raw", [b"x", b"x" * 255, "ä€".encode(), b"a b/c"])
def test_a_legal_id_is_lifted_out(raw):
    assert read(record_of(headers=[(ID, raw)])).id == raw.decode()
    for name in (ID, "headrace-ID"):
        message = read(record_of(headers=[("a", b"1"), (name, raw), (name, b"second"), ("a", b"2")]))
        assert (message.id, message.headers) == (raw.decode(), Headers([("a", "1"), ("a", "2")]))
    assert read(record_of(headers=[("headrace-ID", b"other"), (ID, raw)])).id == raw.decode()


def test_header_values_keep_their_bytes_and_null_is_empty():
    given = [("a", b"\xff\x00"), ("a", None), ("B", b""), ("c", b" blank "), ("d", "ü".encode())]
    headers = read(record_of(headers=given)).headers
    assert headers.items() == (("a", b"\xff\x00"), ("a", ""), ("B", ""), ("c", b" blank "), ("d", "ü"))
    assert headers == Headers(headers.items())


@given(
    st.lists(
        st.tuples(st.text(st.characters(codec="utf-8"), max_size=5), st.none() | st.binary(max_size=5)), min_size=1
    )
)
def test_headers_that_nobody_has_looked_at_are_like_all_others(given_pairs):
    lazy, plain = wire.RecordHeaders(given_pairs), read(record_of(headers=given_pairs), "no such header").headers
    eager = Headers.trusted([(name, value_of_bytes(raw or b"")) for name, raw in given_pairs])
    assert (lazy.size, bool(lazy), len(lazy)) == (eager.size, True, len(eager))
    assert lazy.items() == plain.items() == eager.items()
    assert (lazy, hash(lazy), lazy.to_block()) == (eager, hash(eager), eager.to_block())
    assert wire.RecordHeaders(given_pairs) == eager
    assert lazy.add("a", "1") == eager.add("a", "1")
    assert pickle.loads(pickle.dumps(wire.RecordHeaders(given_pairs))) == eager
    assert repr(lazy) == repr(eager)


def test_the_id_header_is_replaced_when_sent():
    message = Message(topic="t", body=b"", id="new", headers=Headers([("HEADRACE-id", "old"), ("a", "1")]))
    assert encode(message, ID)[3] == [(ID, b"new"), ("a", b"1")]


def test_a_null_value_is_a_tombstone_and_stays_one():
    message = read(record_of(value=None, key=b"k", headers=[(ID, b"m")]))
    assert isinstance(message, Tombstone)
    assert (message.body, message.key, message.id) == (b"", b"k", "m")
    assert encode(message, ID)[1] is None
    assert encode(message.replace(topic="other"), ID)[1] is None
    assert encode(Message(topic="t", body=b""), ID)[1] == b""


@pytest.mark.parametrize("time_ns", [-1, -(10**18), 253_402_300_800_000 * MS])
def test_a_time_that_kafka_does_not_hold_is_refused(time_ns):
    with pytest.raises(UsageError, match=str(time_ns)):
        encode(Message(topic="t", body=b"", time_ns=time_ns), ID)


@pytest.mark.parametrize("time_ns", [0, 1, MS - 1])
def test_the_first_millisecond_of_1970_is_not_now(time_ns):
    assert encode(Message(topic="t", body=b"", time_ns=time_ns), ID)[4] == 1


@pytest.mark.parametrize(("milliseconds", "year"), [(-1, 1970), (-(2**62), 1970), (2**62, 9999)])
def test_a_time_that_is_none_does_no_harm(milliseconds, year):
    message = read(record_of(time=(0, milliseconds)))
    assert message.time.year == year
    assert letter.rfc3339_of_ns(message.time_ns).startswith(str(year))


class Unreadable:
    """What the driver does with a header name that is no UTF-8."""

    def __init__(self):
        self.asked = 0

    def headers(self):
        self.asked += 1
        raise SystemError("<method 'headers' of 'cimpl.Message' objects> returned a result with an exception set")

    def key(self):
        return b"k"

    def value(self):
        return b"v"

    def timestamp(self):
        return 1, 5


def test_headers_that_the_driver_cannot_read(caplog):
    record = Unreadable()
    with caplog.at_level(logging.WARNING, "headrace.kafka"):
        message, _ = decode(record, "orders", "orders/3", 7, ID)
    assert (message.key, message.body, message.id) == (b"k", b"v", "orders/3/7")
    assert message.headers.items() == ((wire.UNREADABLE, "orders/3@7"),)
    assert wire.UNREADABLE == "Headrace-Kafka-Unreadable"
    assert [(found.levelname, "orders/3@7" in found.getMessage()) for found in caplog.records] == [("WARNING", True)]
    assert record.asked == 1


def test_a_foreign_header_name_reaches_the_driver_whole():
    headers = Headers.trusted([("a\0b", "1"), ("caf\udce9", "2"), ("ü", "3")])
    pairs = encode(Message(topic="t", body=b"", headers=headers, id="m"), ID)[3]
    assert pairs == [(ID, b"m"), ("a\\x00b", b"1"), ("caf\\udce9", b"2"), ("ü", b"3")]


# --- dead letters (rule 21) ------------------------------------------------------------------------


class Owner:
    group = "billing"

    def __init__(self, position):
        self._position = position

    def position(self, delivery):
        return self._position


def letter_for(message, position, *, attempt=3, order_key=None, error=None, now_ns=1_700_000_001_000_000_000):
    key = message.key if order_key is None else order_key
    delivery = Delivery(message, attempt, key, Owner(position))
    return letter.letter_of(delivery, error or ValueError("boom\nbang"), topic="orders.dead", now_ns=now_ns)


def origin(message):
    return {name: raw for name, raw in encode(message, ID)[3] if name.startswith("x-")}


ORIGINAL = Message(topic="orders", body=b"1", key=b"o-1", id="m-1", time_ns=1_700_000_000_000_000_000)


def test_x_headers():
    assert origin(letter_for(ORIGINAL, Position("orders/3", 7))) == {
        "x-source-topic": b"orders",
        "x-source-partition": b"3",
        "x-source-offset": b"7",
        "x-source-timestamp": b"2023-11-14T22:13:20.000000000Z",
        "x-logical-key": b"o-1",
        "x-attempt": b"3",
        "x-error": b"ValueError: boom\\nbang",
        "x-failed-at": b"2023-11-14T22:13:21.000000000Z",
    }
    assert set(letter.KAFKA) == origin(letter_for(ORIGINAL, Position("orders/3", 7))).keys()
    assert origin(ORIGINAL) == {}


def test_x_headers_second_pass_replaces():
    first = read(sent(letter_for(ORIGINAL, Position("orders/3", 7))))
    assert "x-attempt" in first.headers
    second = letter_for(first, Position("orders.dead/0", 1), attempt=9, error=KeyError("again"))
    pairs = encode(second.replace(headers=second.headers.add("X-Attempt", "of a stranger")), ID)[3]
    names = [name.lower() for name, _ in pairs]
    assert sorted(set(names)) == sorted(names)
    assert origin(second) == {
        "x-source-topic": b"orders.dead",
        "x-source-partition": b"0",
        "x-source-offset": b"1",
        "x-source-timestamp": b"2023-11-14T22:13:21.000000000Z",
        "x-logical-key": b"o-1",
        "x-attempt": b"9",
        "x-error": b"KeyError: 'again'",
        "x-failed-at": b"2023-11-14T22:13:21.000000000Z",
    }


def test_x_headers_of_a_null_body():
    dead = letter_for(Tombstone(topic="orders", key=b"k", id="m"), Position("orders/0", 0))
    topic, value, key, _, _ = encode(dead, ID)
    assert (topic, value, key) == ("orders.dead", None, b"k")
    assert origin(dead)["x-source-offset"] == b"0"


@pytest.mark.parametrize(
    ("key", "order_key", "expected"),
    [
        (b"\xff\xfe", None, b"\\xff\\xfe"),
        ("ü".encode(), None, "ü".encode()),
        (b"", None, b""),
        (None, None, None),
        (b"k", "orders/3", b"orders/3"),
        (None, b"tenant", b"tenant"),
    ],
)
def test_x_headers_key_bytes(key, order_key, expected):
    dead = letter_for(ORIGINAL.replace(key=key), Position("orders/3", 7), order_key=order_key)
    assert origin(dead).get("x-logical-key") == expected


@pytest.mark.parametrize("position", [None, Position("ORDERS", 7), Position("other/3", 7), Position("orders/x", 7)])
def test_x_headers_other_engines_position(position):
    found = origin(letter_for(ORIGINAL, position))
    assert "x-source-partition" not in found
    assert "x-source-offset" not in found
    assert found["x-source-topic"] == b"orders"


def test_a_redriven_message_has_no_origin():
    dead = read(sent(letter_for(ORIGINAL, Position("orders/3", 7))))
    again = letter.restore(dead)
    assert origin(again) == {}
    assert (again.topic, again.body, again.key, again.time_ns) == ("orders", b"1", b"o-1", ORIGINAL.time_ns)
