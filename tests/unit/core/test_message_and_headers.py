"""Message and Headers: ids, immutability, look-up, one form of a value, refusals."""

import os
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.errors import ConfigError, Fault, PublishError, UsageError
from headrace.core.headers import Headers
from headrace.core.message import Message, check_message, check_topic, new_id


def test_ids_rise_and_differ_over_a_fork():
    ids = [new_id() for _ in range(100_000)]
    assert ids == sorted(set(ids))
    assert all(len(one) == 32 and one == one.lower() for one in ids[:10])
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, new_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(read, 100).decode()
    os.close(read)
    os.close(write)
    assert theirs[16:] != new_id()[16:]


def test_a_message_is_a_value():
    message = Message(topic="t", body=b"", time_ns=946_684_800 * 10**9)
    assert message.time == datetime(2000, 1, 1, tzinfo=UTC)
    assert (message.replace(body=b"x").id, message.replace(body=b"x").time_ns) == (message.id, message.time_ns)
    with pytest.raises(AttributeError):
        message.body = b"x"
    check_message(message)
    assert Message(topic="t", body=b"12", key=b"3", headers=Headers({"A": "4"})).size == 5


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"body": "text"}, UsageError),
        ({"body": bytearray(b"x")}, UsageError),
        ({"key": "k"}, UsageError),
        ({"topic": ""}, UsageError),
        ({"topic": "a..b"}, ConfigError),
        ({"topic": "a.*"}, ConfigError),
        ({"id": ""}, ConfigError),
        ({"id": "a\nb"}, ConfigError),
        ({"id": "x" * 256}, ConfigError),
    ],
)
def test_what_user_code_hands_over_is_checked(fields, error):
    with pytest.raises(error):
        check_message(Message(**{"topic": "t", "body": b"", **fields}))


def test_too_many_headers_name_the_limit():
    for headers, limit in ((Headers([("A", "")] * 1_001), 1_000), (Headers({"A": "x" * 70_000}), 65_536)):
        with pytest.raises(PublishError) as caught:
            check_message(Message(topic="t", body=b"", headers=headers))
        assert (caught.value.fault, caught.value.limit) == (Fault.REJECTED, limit)


@pytest.mark.parametrize("topic", ["", ".", "a.", ".a", "a b", "a\tb", "a\x00", "é" * 128, "a*", "a.>.b", None])
def test_bad_topics(topic):
    with pytest.raises(ConfigError):
        check_topic(topic, wildcards=True)


def test_look_up_folds_ascii_only():
    headers = Headers([("K", "1"), ("a", "2"), ("k", "3")])
    assert (headers.get("k"), headers.get_all("K"), len(headers)) == ("1", ("1", "3"), 3)
    assert headers.get("\u212a") is None  # KELVIN SIGN
    assert headers == Headers([("k", "1"), ("A", "2"), ("K", "3")])
    assert hash(headers) == hash(Headers([("k", "1"), ("A", "2"), ("K", "3")]))
    assert headers.set("k", "9").items() == (("k", "9"), ("a", "2"))
    assert headers.remove("K").items() == (("a", "2"),)
    assert headers.items()[0] == ("K", "1")


def test_one_form_of_a_value():
    assert Headers([("A", b"text")]) == Headers([("A", "text")])
    binary = Headers([("A", b"\xff\x00")])
    assert binary.get_bytes("a") == b"\xff\x00"
    assert binary.get("a") == "\udcff\x00"


@pytest.mark.parametrize("name", ["", "a b", "a:b", "ä", "a\r\n", "x" * 257, 3])
def test_bad_names(name):
    with pytest.raises(ConfigError):
        Headers([(name, "x")])


@pytest.mark.parametrize("value", ["a\r\nb", " a", "a ", "\x00", "\ud800", 3, None])
def test_bad_values(value):
    with pytest.raises(ConfigError):
        Headers([("A", value)])


text = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=20).map(lambda value: value.strip(" \t"))


@given(st.lists(st.tuples(st.sampled_from(["A", "b", "C-d"]), text), max_size=8))
def test_a_block_comes_back(pairs):
    headers = Headers(pairs)
    assert Headers.from_block(headers.to_block()) == headers
