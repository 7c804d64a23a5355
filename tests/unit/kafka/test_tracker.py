"""OffsetTracker: the vectors of the specification (rule 4), and every step against a naive set."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.errors import UsageError
from headrace.kafka.tracker import OffsetTracker


def begun(*offsets):
    tracker = OffsetTracker()
    for offset in offsets:
        tracker.begin(offset)
    return tracker


def test_nothing_is_committable_before_the_first_is_finished():
    tracker = begun(10, 11, 12)
    assert tracker.committable is None
    tracker.finish(11)
    assert tracker.committable is None
    tracker.finish(10)
    assert tracker.committable == 12
    tracker.finish(12)
    assert tracker.committable == 13


@pytest.mark.parametrize("order", [(10, 12), (12, 10)])
def test_a_gap_holds_nothing_back(order):
    tracker = begun(10, 12)
    for offset in order:
        tracker.finish(offset)
    assert tracker.committable == 13


def test_offset_zero_counts():
    tracker = begun(0)
    tracker.finish(0)
    assert tracker.committable == 1


@pytest.mark.parametrize("offset", [9, 10])
def test_an_offset_not_above_the_last_one_is_refused(offset):
    tracker = begun(8, 10)
    tracker.finish(10)
    with pytest.raises(UsageError, match=f"{offset}.*10"):
        tracker.begin(offset)
    with pytest.raises(UsageError):
        tracker.begin_many([offset, 20])
    assert (tracker.begun, tracker.unfinished) == (10, 1)


@pytest.mark.parametrize("offsets", [[11, 11], [12, 11], [11, 13, 12]])
def test_many_that_do_not_ascend_are_refused_whole(offsets):
    tracker = begun(10)
    with pytest.raises(UsageError):
        tracker.begin_many(offsets)
    assert (tracker.begun, tracker.unfinished) == (10, 1)


def test_finishing_twice_or_what_was_not_begun_is_refused():
    tracker = begun(10, 11, 12)
    tracker.finish(11)
    for offset in (11, 9, 13):
        with pytest.raises(UsageError, match=str(offset)):
            tracker.finish(offset)
    tracker.finish(10)
    with pytest.raises(UsageError):
        tracker.finish(10)
    with pytest.raises(UsageError):
        OffsetTracker().finish(0)
    assert tracker.committable == 12


def test_what_it_holds():
    tracker = OffsetTracker()
    assert (tracker.begun, tracker.oldest, tracker.tracked, tracker.unfinished) == (None, None, 0, 0)
    tracker.begin_many([])
    tracker.begin_many([5, 7, 9])
    tracker.finish(7)
    assert (tracker.begun, tracker.oldest, tracker.tracked, tracker.unfinished) == (9, 5, 3, 2)
    tracker.finish(5)
    assert (tracker.oldest, tracker.tracked, tracker.unfinished) == (9, 1, 1)


class Naive:
    """The same thing as a list and a set."""

    def __init__(self):
        self.order, self.done = [], set()

    def committable(self):
        last = None
        for offset in self.order:
            if offset not in self.done:
                break
            last = offset
        return None if last is None else last + 1

    def open(self):
        return [offset for offset in self.order if offset not in self.done]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_offset_tracker(data):
    """Any order of completion, gaps, batches, wrong calls: the same as the naive set at every step."""
    tracker, naive = OffsetTracker(), Naive()
    highest = None
    for _ in range(data.draw(st.integers(0, 40))):
        match data.draw(st.sampled_from(["begin", "many", "finish", "finish", "finish many", "rewind", "again"])):
            case "begin":
                offset = (naive.order[-1] if naive.order else -1) + data.draw(st.integers(1, 5))
                tracker.begin(offset)
                naive.order.append(offset)
            case "many":
                last, offsets = naive.order[-1] if naive.order else -1, []
                for gap in data.draw(st.lists(st.integers(1, 4), max_size=6)):
                    last += gap
                    offsets.append(last)
                tracker.begin_many(offsets)
                naive.order += offsets
            case "finish" if naive.open():
                offset = data.draw(st.sampled_from(naive.open()))
                tracker.finish(offset)
                naive.done.add(offset)
            case "finish many":
                offsets = data.draw(st.lists(st.sampled_from(naive.open()), unique=True)) if naive.open() else []
                tracker.finish_many(offsets)
                naive.done.update(offsets)
            case "rewind" if naive.order:
                with pytest.raises(UsageError):
                    tracker.begin(data.draw(st.integers(0, naive.order[-1])))
            case "again" if naive.done:
                finished = data.draw(st.sampled_from(sorted(naive.done)))
                with pytest.raises(UsageError):
                    tracker.finish(finished)
                with pytest.raises(UsageError):
                    tracker.finish_many([*naive.open(), finished])
        found = tracker.committable
        assert found == naive.committable()
        assert found is None or not any(offset < found for offset in naive.open())
        assert highest is None or found >= highest
        assert tracker.unfinished == len(naive.open())
        assert tracker.oldest == (naive.open() or [None])[0]
        highest = found
