"""Which error ends a command with which code, and what is said of it."""

import asyncio

import pytest

from headrace.cli.exits import ExitCode, NotFoundError, StoppedError, exit_code_of, message_of_error
from headrace.core.errors import (
    BrokerError,
    BrokerTimeoutError,
    ConfigError,
    ConnectionLostError,
    PublishError,
    StoreError,
    UnsupportedError,
    UsageError,
)
from headrace.embedded.errors import NotAStoreError, StoreNotFoundError
from headrace.streams.errors import (
    ConsumerDoesNotExistError,
    ConsumerNotFoundError,
    InvalidSubjectError,
    MessageNotFoundError,
    StreamNotFoundError,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (InvalidSubjectError("x"), 2),
        (UsageError("x"), 2),
        (UnsupportedError("x"), 2),
        (NotFoundError("x"), 3),
        (StreamNotFoundError("x"), 3),
        (ConsumerNotFoundError("x"), 3),
        (ConsumerDoesNotExistError("x"), 3),
        (MessageNotFoundError("x"), 3),
        (StoreNotFoundError("x"), 3),
        (ConnectionLostError("x"), 4),
        (BrokerTimeoutError("x"), 4),
        (ConnectionRefusedError("x"), 4),
        (PublishError("x"), 1),
        (BrokerError("x"), 1),
        (StoreError("x"), 1),
        (NotAStoreError("x"), 1),
        (OSError("x"), 1),
        (ValueError("x"), 1),
        (StoppedError(), 130),
        (KeyboardInterrupt(), 130),
        (asyncio.CancelledError(), 130),
    ],
)
def test_every_error_has_its_code(error, code):
    assert exit_code_of(error) == code


def test_the_codes_are_the_documented_ones():
    assert [code.value for code in ExitCode] == [0, 1, 2, 3, 4, 130]


def test_a_message_is_one_line():
    assert message_of_error(ConfigError("first\nsecond\r\n third")) == "first second third"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError(2, "No such file or directory", "missing"), "missing: No such file or directory"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("strange"), "strange"),
        (OSError(), "OSError"),
    ],
)
def test_an_error_of_the_system_names_its_file(error, said):
    assert message_of_error(error) == said


def test_an_error_nobody_planned_for_is_named():
    assert message_of_error(KeyError("x")).startswith("KeyError: 'x' (a fault of headrace")
