"""The drawn tree is the real one; codes, classes and faults belong together."""

import inspect
import re

import pytest

from headrace.core.errors import ConfigError, Fault, PublishError
from headrace.streams import errors

DRAWN = re.compile(r"^(?P<branch>[│├└─ ]*)(?P<name>[A-Z]\w*Error)\b(?P<remark>.*)")


def test_the_drawn_tree_is_the_real_one():
    parents = {}
    path = []
    for line in errors.__doc__.splitlines():
        if match := DRAWN.match(line):
            depth = len(match["branch"]) // 2
            path[depth:] = [match["name"]]
            if depth:
                parents[match["name"]] = path[depth - 1]
    real = {
        name: kind.__bases__[0].__name__
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if kind.__module__ == errors.__name__
    }
    assert parents == real


@pytest.mark.parametrize(
    ("err_code", "kind"),
    [
        (10059, errors.StreamNotFoundError),
        (10058, errors.StreamNameInUseError),
        (10095, errors.ConsumerConfigError),
        (10101, errors.ConsumerConfigError),
        (10184, errors.ConsumerConfigError),
        (10185, errors.ApiLevelError),
        (10164, errors.WrongLastSequenceError),
        (10210, errors.AtomicBatchError),
        (10178, errors.ApiError),
        (99999, errors.ApiError),
        (None, errors.ApiError),
    ],
)
def test_a_code_has_its_class(err_code, kind):
    error = errors.error_for(400, err_code, "why")
    assert type(error) is kind
    assert (error.code, error.err_code, error.description) == (400, err_code, "why")
    assert "why" in str(error)


@pytest.mark.parametrize("err_code", sorted(errors.ERROR_CLASSES))
def test_every_code_of_the_table_makes_an_error(err_code):
    error = errors.error_for(400, err_code, "maximum messages exceeded", message_id="m")
    assert type(error) is errors.ERROR_CLASSES[err_code]
    if isinstance(error, PublishError):
        assert error.message_id == "m"


def test_store_failed_depends_on_its_words():
    full = errors.error_for(400, 10077, "maximum bytes exceeded")
    other = errors.error_for(503, 10077, "no space left")
    assert type(full) is errors.StreamFullError
    assert type(other) is errors.PublishRefusedError
    assert full.fault is other.fault is Fault.UNAVAILABLE


@pytest.mark.parametrize(
    ("err_code", "fault"),
    [
        (10071, Fault.REJECTED),
        (10054, Fault.REJECTED),
        (10109, Fault.REJECTED),
        (10167, Fault.UNAVAILABLE),
        (10023, Fault.UNAVAILABLE),
        (10008, Fault.UNAVAILABLE),
        (10003, Fault.REJECTED),
    ],
)
def test_a_publish_is_answered_with_a_publish_error(err_code, fault):
    error = errors.publish_error_for(400, err_code, "why", message_id="m")
    assert isinstance(error, PublishError)
    assert (error.fault, error.message_id, error.err_code) == (fault, "m", err_code)


def test_an_unknown_503_may_be_tried_again():
    assert errors.publish_error_for(503, None, "why").fault is Fault.UNAVAILABLE


def test_our_own_failures_have_their_faults():
    assert errors.NoStreamResponseError("x", message_id="m").fault is Fault.UNAVAILABLE
    assert errors.TooManyPendingError().fault is Fault.UNAVAILABLE
    assert errors.InvalidAckError().fault is Fault.UNKNOWN
    assert isinstance(errors.NoMessagesError(), TimeoutError)
    assert issubclass(errors.InvalidSubjectError, ConfigError)


def test_an_instance_may_differ_in_being_terminal():
    assert errors.PullRejectedError().terminal
    assert not errors.PullRejectedError("Exceeded MaxWaiting", terminal=False).terminal
