"""What a commit's text says of the work finished beyond it."""

from hypothesis import given
from hypothesis import strategies as st

from headrace.kafka.consuming.beyond import read, written
from headrace.kafka.consuming.partition import Partition

FAR = st.integers(1, 1 << 40)


@given(st.integers(0, 1 << 40), st.sets(st.integers(1, 10_000), max_size=300))
def test_round_trip(base, gaps):
    finished = sorted(base + gap for gap in gaps)
    assert read(base, written(base, finished, 7), 1_000) == (set(finished), 7 if finished else -1)


@given(st.integers(0, 1 << 60), st.sets(FAR, max_size=5_000))
def test_fits_and_never_says_more_than_is_so(base, gaps):
    finished = sorted(base + gap for gap in gaps)
    text = written(base, finished, -1)
    assert len(text) <= 4_000
    assert read(base, text, 100_000)[0] <= set(finished)


@given(st.integers(0, 1 << 40), st.text(max_size=60) | st.text("0123456789+/=", max_size=60).map("headrace/1 ".__add__))
def test_a_stranger_s_text_harms_nobody(base, text):
    assert len(read(base, text, 1_000)[0]) <= 1_000


def test_no_text_for_nothing():
    assert not written(5, [], 3)
    assert read(5, "", 10) == (set(), -1)
    assert read(5, None, 10) == (set(), -1)


def test_known_vector():
    assert written(10, [12, 13, 200], 4) == "headrace/1 BQICugEB"
    assert read(10, "headrace/1 BQICugEB", 10) == ({12, 13, 200}, 4)


def test_what_was_not_read_yet_is_handed_on():
    partition = Partition("t", 0, 10, ({12, 40, 41}, 3))
    partition.begin([10, 11, 13], 3, 0)
    partition.epoch.tracker.finish(10)
    partition.epoch.sum_up()
    base, text = partition.epoch.last
    assert base == 11
    assert read(base, text, 100) == ({40, 41}, 3)


def test_what_a_newer_leader_may_have_replaced_is_not_handed_on():
    partition = Partition("t", 0, 10, ({40, 41}, 3))
    partition.begin([10, 11], 4, 0)
    partition.epoch.tracker.finish(10)
    partition.epoch.sum_up()
    assert partition.epoch.last == (11, "")
