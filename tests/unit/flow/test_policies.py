"""RetryPolicy and the judge: pure tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.errors import CodecError, ConfigError, RejectError, RetryLaterError
from headrace.flow.judge import BLOCK, DROP, STOP, Again, DeadLetter, End, judge
from headrace.flow.retry import RetryPolicy

EXACT = RetryPolicy(jitter=0)


def test_the_default_schedule():
    assert [EXACT.delay(attempt).total_seconds() for attempt in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert EXACT.delay(10**9).total_seconds() == 60


def test_the_end():
    policy = RetryPolicy(max_attempts=3, schedule=[5, 7.5], jitter=0)
    assert [policy.delay(n) and policy.delay(n).total_seconds() for n in (1, 2, 3)] == [5, 7.5, None]
    assert policy.wait(99).total_seconds() == 7.5
    assert RetryPolicy(max_attempts=1).delay(1) is None


@given(
    st.integers(1, 10**9),
    st.floats(0, 1, exclude_max=True),
    st.floats(0, 1),
    st.floats(0, 100),
    st.floats(0, 1e6),
    st.floats(1, 1e6),
)
def test_always_within_its_bounds(  # noqa: PLR0917
    attempt, u, jitter, initial, further, multiplier
):
    policy = RetryPolicy(initial=initial, maximum=initial + further, multiplier=multiplier, jitter=jitter)
    base = policy.delay(attempt).total_seconds()
    assert base <= initial + further + 1e-6
    assert base * (1 - jitter) - 1e-5 <= policy.delay(attempt, u).total_seconds() <= base + 1e-5


@pytest.mark.parametrize(
    "options",
    [
        {"max_attempts": 0},
        {"max_attempts": True},
        {"max_deliveries": 0},
        {"jitter": 1.1},
        {"jitter": float("nan")},
        {"multiplier": 0.5},
        {"multiplier": float("inf")},
        {"initial": 61},
        {"initial": -1},
        {"schedule": []},
        {"schedule": [-1]},
    ],
)
def test_senseless_policies_are_refused(options):
    with pytest.raises(ConfigError):
        RetryPolicy(**options)


THREE = RetryPolicy(max_attempts=3, jitter=0)
LETTER = DeadLetter()


@pytest.mark.parametrize("policy", [LETTER, DROP, STOP])
@pytest.mark.parametrize(
    ("error", "attempt", "ends"),
    [
        (ValueError(), 1, False),
        (ValueError(), 2, False),
        (ValueError(), 3, True),
        (ValueError(), 7, True),
        (RetryLaterError(5), 1, False),
        (RetryLaterError(5), 3, True),
        (RejectError(), 1, True),
        (CodecError(), 1, True),
        (KeyError(), 1, False),
    ],
)
def test_the_judge(policy, error, attempt, ends):
    verdict = judge(error, attempt, THREE, policy, 0.0)
    if ends:
        assert verdict == End(policy)
    else:
        assert verdict == Again(5.0 if isinstance(error, RetryLaterError) else float(2 ** (attempt - 1)))


def test_block_never_ends_and_nothing_asked_for_stops():
    assert judge(ValueError(), 3, THREE, BLOCK, 0.0) == Again(4.0, exhausted=True)
    assert judge(RejectError(), 1, THREE, BLOCK, 0.0) == Again(1.0, exhausted=True)
    assert judge(RejectError(), 1, EXACT, None, 0.0) == End(None)
    assert judge(ValueError(), 10**9, EXACT, None, 0.0) == Again(60.0)
