"""Exit codes, and which error ends with which."""

from __future__ import annotations

import asyncio
import sys
from enum import IntEnum

from headrace.core.errors import (
    BrokerTimeoutError,
    ConfigError,
    ConnectionLostError,
    HeadraceError,
    UnsupportedError,
    UsageError,
)

__all__ = ["ExitCode", "NotFoundError", "StoppedError", "exit_code_of", "message_of_error"]


class ExitCode(IntEnum):
    """How a command ended."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    UNREACHABLE = 4
    INTERRUPTED = 130


class NotFoundError(HeadraceError):
    """What the command was asked for is not there."""


class StoppedError(HeadraceError):
    """Somebody pressed Ctrl-C; click would make of a KeyboardInterrupt what each version likes."""


def exit_code_of(error: BaseException) -> ExitCode:
    """The exit code of a command that ended with this error."""
    if isinstance(error, StoppedError | KeyboardInterrupt | asyncio.CancelledError):
        return ExitCode.INTERRUPTED
    if isinstance(error, _missing()):
        return ExitCode.NOT_FOUND
    if isinstance(error, ConfigError | UsageError | UnsupportedError):
        return ExitCode.USAGE
    if isinstance(error, ConnectionLostError | BrokerTimeoutError | ConnectionError) or _is_far(error):
        return ExitCode.UNREACHABLE
    return ExitCode.FAILED


def message_of_error(error: BaseException) -> str:
    """One line that says what went wrong; an error nobody planned for is named as such."""
    if exit_code_of(error) is ExitCode.INTERRUPTED:
        return "interrupted"
    notes: list[str] = getattr(error, "__notes__", [])
    text = " ".join("; ".join((str(error), *notes)).split())
    if isinstance(error, HeadraceError):
        return text
    if isinstance(error, OSError):
        said = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else error.strerror
        return said or text or type(error).__name__
    return f"{type(error).__name__}: {text} (a fault of headrace; HEADRACE_DEBUG=1 shows where)"


def _missing() -> tuple[type[BaseException], ...]:
    """Every error that says "not there". An engine that nobody imported cannot have raised one."""
    from headrace.streams.errors import (
        ConsumerDoesNotExistError,
        ConsumerNotFoundError,
        MessageNotFoundError,
        StreamNotFoundError,
    )

    found: list[type[BaseException]] = [
        NotFoundError,
        ConsumerDoesNotExistError,
        ConsumerNotFoundError,
        MessageNotFoundError,
        StreamNotFoundError,
    ]
    if "headrace.embedded.errors" in sys.modules:
        from headrace.embedded.errors import StoreNotFoundError

        found.append(StoreNotFoundError)
    if "headrace.kafka.errors" in sys.modules:
        from headrace.kafka.errors import UnknownGroupError, UnknownTopicError

        found += [UnknownGroupError, UnknownTopicError]
    return tuple(found)


def _is_far(error: BaseException) -> bool:
    """Whether no broker of Kafka could be reached, answered, or let us in."""
    if "headrace.kafka.errors" not in sys.modules:
        return False
    from headrace.kafka.errors import AuthenticationError, Code, KafkaError

    far = (Code.LOCAL_ALL_BROKERS_DOWN, Code.LOCAL_RESOLVE, Code.LOCAL_TIMED_OUT, Code.LOCAL_TRANSPORT)
    return isinstance(error, AuthenticationError) or (isinstance(error, KafkaError) and error.code in far)
