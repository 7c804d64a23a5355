"""Subjects: what is legal, what matches, and the token that any text becomes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.errors import ConfigError
from headrace.core.headers import Headers
from headrace.streams.errors import InvalidConsumerNameError, InvalidStreamNameError, InvalidSubjectError
from headrace.streams.names import check_user_headers, user_headers
from headrace.streams.subjects import (
    escape_token,
    matches,
    overlaps,
    unescape_token,
    validate_consumer_name,
    validate_filter,
    validate_name,
    validate_subject,
)

TOKEN = st.sampled_from(["a", "b", "*", ">"])
WORD = st.sampled_from(["a", "b", "c"])
SUBJECT = st.lists(WORD, min_size=1, max_size=4).map(".".join)


def _filter(tokens):
    return ".".join([token for token in tokens[:-1] if token != ">"] + [tokens[-1]])


FILTER = st.lists(TOKEN, min_size=1, max_size=4).map(_filter)


@pytest.mark.parametrize(
    "subject",
    ["", ".", "a.", ".a", "a..b", "a b", "a\tb", "a\nb", "a\0", "a.*", ">", "$JS.API", "_INBOX.x", "\ud800", 5],
)
def test_subjects_refused(subject):
    with pytest.raises(InvalidSubjectError):
        validate_subject(subject)


@pytest.mark.parametrize("subject", ["a", "a.b", "größe.ü", "a*b", "a>", "_INBOX"])
def test_subjects_taken(subject):
    assert validate_subject(subject) == subject


@pytest.mark.parametrize("subject", ["", "a.>.b", "a*.b", "a.b>", ">.a", "**", "a..>"])
def test_filters_refused(subject):
    with pytest.raises(InvalidSubjectError):
        validate_filter(subject)


@pytest.mark.parametrize("name", ["", "a.b", "a*", "a>", "a/b", "a\\b", "a b", "a\r", "a\x7f", "x" * 256, "é" * 128])
def test_names_refused(name):
    with pytest.raises(InvalidStreamNameError):
        validate_name(name)
    with pytest.raises(InvalidConsumerNameError):
        validate_consumer_name(name)


@pytest.mark.parametrize(
    ("pattern", "subject", "expected"),
    [
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("a.*", "a", False),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        (">", "a.b", True),
        ("*.b.*", "a.b.c", True),
        ("a", "a", True),
        ("a", "A", False),
        ("*.>", "a", False),
        ("*.>", "a.b", True),
    ],
)
def test_matching(pattern, subject, expected):
    assert matches(pattern, subject) is expected


@given(FILTER, FILTER)
def test_overlap_is_symmetric_and_means_a_common_subject(one, other):
    assert overlaps(one, other) is overlaps(other, one)
    words = ["a", "b", "z"]
    subjects = [".".join(parts) for length in range(1, 6) for parts in _product(words, length)]
    assert overlaps(one, other) is any(matches(one, each) and matches(other, each) for each in subjects)


def _product(words, length):
    if not length:
        return [()]
    return [(word, *rest) for word in words for rest in _product(words, length - 1)]


@given(FILTER, SUBJECT)
def test_matching_is_overlapping_with_a_plain_subject(pattern, subject):
    assert matches(pattern, subject) is overlaps(pattern, subject)


@given(st.text(max_size=20))
def test_any_text_becomes_one_legal_token_and_comes_back(text):
    token = escape_token(text)
    assert unescape_token(token) == text
    assert validate_subject(token) == validate_name(token) == token


@given(st.text(max_size=8), st.text(max_size=8))
def test_escaping_is_injective(one, other):
    assert (escape_token(one) == escape_token(other)) is (one == other)


@pytest.mark.parametrize("token", ["", "a.b", "=4", "=zz", "=41", "=ff", "=C3=B", "=2e"])
def test_what_is_no_escaped_text_is_refused(token):
    with pytest.raises(ConfigError):
        unescape_token(token)


@pytest.mark.parametrize(
    "headers",
    [
        {"Nats-X": "1"},
        {"nats-x": "1"},
        Headers.trusted([("a b", "1")]),
        Headers.trusted([("a", "b\r\nc: d")]),
        {"a": b" x"},
    ],
)
def test_headers_refused(headers):
    with pytest.raises(ConfigError):
        check_user_headers(headers)


def test_headers_taken_as_they_are():
    headers = Headers([("A", "1"), ("a", "ü"), ("B", b"\xff")])
    assert check_user_headers(headers) is headers
    assert check_user_headers(None) == Headers()


def test_user_headers_leaves_the_engines_out():
    assert user_headers(Headers.trusted([("NATS-Seq", "1"), ("A", "2")])) == Headers([("A", "2")])
