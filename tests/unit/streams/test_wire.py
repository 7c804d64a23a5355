"""Messages come back from a stream exactly as they went in; foreign ones come as they are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.errors import ConfigError
from headrace.core.headers import NO_HEADERS, Headers
from headrace.core.message import Message
from headrace.core.packing import PACKED, pack, unpack
from headrace.streams.wire import decode, encode

NAME = st.from_regex(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]{1,12}", fullmatch=True).filter(
    lambda name: not name.lower().startswith(("nats-", "headrace-"))
)
TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12).filter(
    lambda text: text.strip(" \t") == text
)
VALUE = TEXT | st.binary(max_size=12)
PAIRS = st.lists(st.tuples(NAME, VALUE), max_size=6)
ID = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)


def read(item):
    return decode(item.subject, item.data, item.headers, stream="S", sequence=7, stored_ns=5)


@given(st.binary(max_size=20), st.none() | st.binary(max_size=20), PAIRS, ID, st.integers(-(2**62), 2**62))
def test_round_trip_is_exact(body, key, pairs, message_id, time_ns):
    sent = Message(topic="a.b", body=body, key=key, headers=Headers(pairs), id=message_id, time_ns=time_ns)
    got = read(encode(sent))
    assert list(got.headers.items()) == list(sent.headers.items())
    assert got == sent


@given(PAIRS, st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=5)), max_size=3))
def test_foreign_names_and_values_survive(pairs, foreign):
    given_pairs = [*pairs, *foreign]
    headers = Headers.trusted(Headers.trusted(given_pairs).items())
    if any(name.lower().startswith(("nats-", "headrace-")) for name, _ in foreign):
        return
    got = read(encode(Message(topic="t", body=b"", headers=headers, id="1", time_ns=1)))
    assert [_raw(pair) for pair in got.headers.items()] == [_raw(pair) for pair in headers.items()]


def _raw(pair):
    name, value = pair
    return name, value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value


def test_the_wire_is_as_documented():
    sent = Message(
        topic="a.b", body=b"x", key=b"k %\n", headers=Headers([("A", "1"), ("B", b" y")]), id="i", time_ns=12
    )
    item = encode(sent)
    assert (item.subject, item.msg_id, item.order_key) == ("a.b", "i@a.b", b"k %\n")
    lines = item.headers.split(b"\r\n")
    assert lines[:4] == [b"Nats-Msg-Id: i@a.b", b"Headrace-Key: k%20%25%0A", b"Headrace-Time: 12", b"A: 1"]
    assert lines[4].startswith(b"Headrace-Packed: ")


def test_a_plain_message_has_no_headers_at_all():
    assert read(encode(Message(topic="t", body=b"x"))).headers is NO_HEADERS


@pytest.mark.parametrize(
    "name",
    ["Nats-X", "nats-msg-id", "Headrace-Key", "headrace-time", "Headrace-Packed", "Headrace-Id", "Headrace-Body"],
)
def test_names_of_the_wire_are_refused(name):
    with pytest.raises(ConfigError, match=name):
        encode(Message(topic="t", body=b"", headers=Headers({name: "x"})))


def test_dead_letter_headers_travel():
    sent = Message(topic="t", body=b"", headers=Headers({"Headrace-Dead-Id": "x", "B": "2"}))
    assert read(encode(sent)) == sent


def test_a_foreign_message_gets_what_it_lacks():
    got = decode("t", b"x", b"", stream="S", sequence=7, stored_ns=5)
    assert (got.id, got.key, got.time_ns, got.headers) == ("S:7", None, 5, NO_HEADERS)


def test_a_foreign_order_is_read_too():
    block = b"A:1\r\nheadrace-time: 9\r\nNats-Expected-Stream: S\r\nHEADRACE-KEY: a%20b\r\nNats-Msg-Id: mine\r\n"
    got = decode("t", b"x", block, stream="S", sequence=7, stored_ns=5)
    assert (got.id, got.key, got.time_ns) == ("mine", b"a b", 9)
    assert got.headers == Headers({"A": "1"})


@pytest.mark.parametrize("time", [b"", b"x", b"-", b"1.5", b"9" * 30])
def test_a_senseless_time_is_the_streams(time):
    block = b"Nats-Msg-Id: i@t\r\nHeadrace-Time: %b\r\n" % time
    got = decode("t", b"", block, stream="S", sequence=7, stored_ns=5)
    assert (got.id, got.time_ns) == ("i", 5)


@given(st.binary(max_size=120))
def test_any_block_is_read(block):
    decode("t", b"", block, stream="S", sequence=7, stored_ns=5)


@given(st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=5) | TEXT), max_size=8), st.sets(st.integers(0, 7)))
def test_packing_round_trip(pairs, misfits):
    if any(name.lower() == PACKED.lower() for name, _ in pairs):
        return
    headers = Headers.trusted(pairs)
    places = iter(range(len(pairs)))
    packed = pack(headers.items(), lambda _name, _value: next(places) not in misfits)
    assert [_raw(pair) for pair in unpack(packed)] == [_raw(pair) for pair in pairs]


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x",
        "!!!!",
        "W10",
        "e30",
        "W1swLCJhIl1d",
        "W1s5LCJhIiwiIl1d",
        b"\xff",
        "WzFd",
        "W1stMSwiYSIsIiJdXQ",
        "W" * 10_001,
    ],
)
def test_a_bad_packed_header_is_data(value):
    pairs = (("A", "1"), (PACKED, value))
    assert unpack(pairs) == pairs
