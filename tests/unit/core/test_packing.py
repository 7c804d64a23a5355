"""Headrace-Packed: whatever a wire can carry, packing and unpacking give back the very same pairs (3.2.5)."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.headers import Headers, text_of_value
from headrace.core.packing import PACKED, pack, unpack

names = st.sampled_from(["A", "a", "B-c", "X-Y", "Content-Type"]) | st.text("abC-", min_size=1, max_size=4)
texts = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=20).map(lambda value: value.strip(" \t"))
pair_lists = st.lists(st.tuples(names, texts | st.binary(max_size=20)), max_size=12)


def wire(kind):
    """What some wire carries: everything, nothing, text only, no empty value, each name once, three pairs."""
    seen = set()

    def fits(name, value):
        if name.lower() in seen and kind == "once":
            return False
        if kind == "three" and len(seen) >= 3:
            return False
        seen.add(name.lower() if kind == "once" else (name, len(seen)))
        return {"nothing": False, "text": isinstance(value, str), "filled": bool(value)}.get(kind, True)

    return fits


@given(pair_lists, st.sampled_from(["everything", "nothing", "text", "filled", "once", "three"]))
def test_pack_and_unpack_are_exact(pairs, kind):
    given_pairs = Headers(pairs).items()
    packed = pack(given_pairs, wire(kind))
    assert unpack(packed) == given_pairs
    assert [type(value) for _, value in unpack(packed)] == [type(value) for _, value in given_pairs]
    assert sum(name == PACKED for name, _ in packed) <= 1
    if kind == "text":
        assert all(isinstance(value, str) for _, value in packed)


@given(pair_lists, st.text('abc=-_ []"{},0123', max_size=40) | st.binary(max_size=40))
def test_a_packed_header_that_makes_no_sense_is_data(pairs, nonsense):
    odd = (*pairs, (PACKED, nonsense))
    back = unpack(odd)
    assert back == odd or (PACKED, nonsense) not in back


@pytest.mark.parametrize(
    "entries",
    [
        {},
        [],
        [1],
        [[0, "A"]],
        [[0, "A", "eA==", 1]],
        [["0", "A", "eA=="]],
        [[True, "A", "eA=="]],
        [[-1, "A", "eA=="]],
        [[9, "A", "eA=="]],
        [[1, "A", "eA=="], [1, "B", "eA=="]],
        [[0, 7, "eA=="]],
        [[0, "A", "e"]],
        [[0, "A", None]],
    ],
)
def test_wrong_entries_are_left_alone(entries):
    value = base64.urlsafe_b64encode(json.dumps(entries).encode()).decode().rstrip("=")
    pairs = (("K", "v"), (PACKED, value))
    assert unpack(pairs) == pairs


def test_two_packed_headers_are_data_and_deep_ones_do_no_harm():
    (good,) = pack([("A", b"\xff")], lambda *_: False)
    assert unpack([good]) == (("A", b"\xff"),)
    assert unpack([good, good]) == (good, good)
    deep = (PACKED, base64.urlsafe_b64encode(b"[" * 100_000).decode().rstrip("="))
    assert unpack([deep]) == (deep,)


@given(st.binary(max_size=30))
def test_binary_values_keep_their_bytes(raw):
    headers = Headers([("A", raw)])
    assert headers.get_bytes("A") == raw
    assert headers.get("A") == text_of_value(headers.items()[0][1])
