"""The tree drawn at the top of nats/errors.py is the tree of its classes."""

import inspect
import re

import pytest

from headrace.core import errors as core
from headrace.core.errors import ClosedError, ConnectionLostError, Fault
from headrace.nats import errors
from headrace.nats.errors import (
    AuthenticationError,
    PayloadTooLargeError,
    PermissionsError,
    ServerError,
    error_for_waiter,
    server_error,
)

DRAWN = re.compile(r"^(?P<branch>[│├└─ ]*)(?P<name>[A-Z]\w*Error)\b")


def test_error_tree_is_the_drawing():
    drawn, path = {}, []
    for line in errors.__doc__.splitlines():
        if match := DRAWN.match(line):
            path[len(match["branch"]) // 2 :] = [match["name"]]
            drawn[match["name"]] = path[-2] if len(path) > 1 else None
    real = {
        name: error.__bases__[0].__name__
        for name, error in inspect.getmembers(errors, inspect.isclass)
        if error.__module__ == errors.__name__
    }
    assert {name: parent for name, parent in drawn.items() if not hasattr(core, name)} == real


def test_the_words_of_a_server_pick_the_class():
    assert type(server_error("Authorization Violation")) is AuthenticationError
    assert type(server_error("User Authentication Expired")) is AuthenticationError
    assert type(server_error('Permissions Violation for Publish to "authorization"')) is PermissionsError
    assert type(server_error("Unknown Protocol Operation")) is ServerError


def test_each_waiter_gets_an_error_of_its_own():
    cause = ServerError("gone")
    error = error_for_waiter(cause)
    assert type(error) is ConnectionLostError
    assert error.__cause__ is cause
    assert error_for_waiter(cause) is not error
    assert type(error_for_waiter(ClosedError())) is ClosedError
    assert type(error_for_waiter(PermissionsError("no"))) is PermissionsError


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ('Permissions Violation for Publish to "a.b"', b"a.b"),
        ('Permissions Violation for Publish to "ä"', "ä".encode()),
        (r'Permissions Violation for Publish to "a\"b\\c"', rb'a"b\c'),
        ('Permissions Violation for Publish with Reply of "a"', None),
        ('Permissions Violation for Subscription to "a"', None),
        ("Permissions Violation for Publish to a", None),
    ],
)
def test_a_refused_publish_names_its_subject(text, subject):
    assert PermissionsError(text).subject == subject


def test_a_payload_that_is_too_large_is_rejected_for_good():
    assert PayloadTooLargeError("x", limit=5).fault is Fault.REJECTED
