"""The Kafka errors, below core's. `error_for` turns a code of the driver or of a broker into its class.

BrokerError
└ KafkaError                    code, name, fatal, retriable
  ├ CommitError
  ├ OffsetOutOfRangeError
  ├ AuthenticationError
  ├ AuthorizationError
  ├ UnknownTopicError
  └ UnknownGroupError
PublishError
└ ProduceBatchError             index, results
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from headrace.core.broker import Receipt
from headrace.core.errors import BrokerError, Fault, PublishError
from headrace.kafka.codes import REJECTED, RETRIABLE, UNAVAILABLE, Code

__all__ = [
    "RETRIABLE",
    "AuthenticationError",
    "AuthorizationError",
    "Code",
    "CommitError",
    "KafkaError",
    "OffsetOutOfRangeError",
    "ProduceBatchError",
    "UnknownGroupError",
    "UnknownTopicError",
    "error_for",
    "fault_of",
]

R = TypeVar("R", bound=Receipt)


class KafkaError(BrokerError):
    """Kafka failed.

    ``code`` and ``name`` are the driver's (``name`` as in ``UNKNOWN_TOPIC_OR_PART``, its own begin with ``_``).
    ``fatal``: the client that said it is of no further use. ``retriable``: the same may work later.
    """

    code: int = Code.UNKNOWN
    name: str = "UNKNOWN"

    def __init__(
        self,
        reason: str = "",
        *,
        code: int | None = None,
        name: str | None = None,
        fatal: bool = False,
        retriable: bool | None = None,
        **further: Any,
    ) -> None:
        super().__init__(*((reason,) if reason else ()), **further)
        if code is not None:
            self.code = int(code)
        if name is not None:
            self.name = name
        self.fatal = fatal
        self.retriable = not fatal and (self.code in RETRIABLE if retriable is None else retriable)


class CommitError(KafkaError):
    """The offsets of finished work could not be committed."""


class OffsetOutOfRangeError(KafkaError):
    """The broker does not have the offset where reading should go on (any more)."""

    code = Code.OFFSET_OUT_OF_RANGE
    name = "OFFSET_OUT_OF_RANGE"


class AuthenticationError(KafkaError):
    """The broker does not know these credentials, or one side refuses the other's certificate."""

    code = Code.SASL_AUTHENTICATION_FAILED
    name = "SASL_AUTHENTICATION_FAILED"


class AuthorizationError(KafkaError):
    """The broker does not allow this to us."""

    code = Code.TOPIC_AUTHORIZATION_FAILED
    name = "TOPIC_AUTHORIZATION_FAILED"


class UnknownTopicError(KafkaError):
    """There is no such topic or partition."""

    code = Code.UNKNOWN_TOPIC_OR_PART
    name = "UNKNOWN_TOPIC_OR_PART"


class UnknownGroupError(KafkaError):
    """There is no such group."""

    code = Code.GROUP_ID_NOT_FOUND
    name = "GROUP_ID_NOT_FOUND"


class ProduceBatchError(PublishError, Generic[R]):
    """A batch stopped at its first failure. Nothing after ``index`` was handed over.

    ``results`` holds exactly the successes before it. Fault, message id and limit are those of the `failure`.
    """

    def __init__(self, index: int, results: Sequence[R], failure: PublishError) -> None:
        super().__init__(
            f"produce batch index {index}: {failure}",
            message_id=failure.message_id,
            limit=failure.limit,
            fault=failure.fault,
        )
        self.index = index
        self.results = list(results)


_CLASSES: dict[int, type[KafkaError]] = {
    Code.LOCAL_UNKNOWN_PARTITION: UnknownTopicError,
    Code.LOCAL_UNKNOWN_TOPIC: UnknownTopicError,
    Code.UNKNOWN_TOPIC_OR_PART: UnknownTopicError,
    Code.LOCAL_UNKNOWN_GROUP: UnknownGroupError,
    Code.GROUP_ID_NOT_FOUND: UnknownGroupError,
    Code.LOCAL_AUTO_OFFSET_RESET: OffsetOutOfRangeError,
    Code.LOCAL_LOG_TRUNCATION: OffsetOutOfRangeError,
    Code.OFFSET_OUT_OF_RANGE: OffsetOutOfRangeError,
    Code.LOCAL_SSL: AuthenticationError,
    Code.LOCAL_AUTHENTICATION: AuthenticationError,
    Code.UNSUPPORTED_SASL_MECHANISM: AuthenticationError,
    Code.ILLEGAL_SASL_STATE: AuthenticationError,
    Code.SASL_AUTHENTICATION_FAILED: AuthenticationError,
    Code.DELEGATION_TOKEN_EXPIRED: AuthenticationError,
    Code.TOPIC_AUTHORIZATION_FAILED: AuthorizationError,
    Code.GROUP_AUTHORIZATION_FAILED: AuthorizationError,
    Code.CLUSTER_AUTHORIZATION_FAILED: AuthorizationError,
    Code.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: AuthorizationError,
    Code.DELEGATION_TOKEN_AUTHORIZATION_FAILED: AuthorizationError,
    Code.OFFSET_METADATA_TOO_LARGE: CommitError,
    Code.INVALID_COMMIT_OFFSET_SIZE: CommitError,
}


def error_for(code: int, name: str, text: str, *, fatal: bool = False, retriable: bool = False) -> KafkaError:
    """The error of this code, of its own class where it has one; `retriable` adds to what the code itself says."""
    reason = f"{text} ({name})" if text else name
    return _CLASSES.get(code, KafkaError)(reason, code=code, name=name, fatal=fatal, retriable=retriable or None)


def fault_of(code: int) -> Fault:
    """What a failed delivery of this code means for the message. What is not certain, or not known here, is UNKNOWN."""
    if code in REJECTED:
        return Fault.REJECTED
    return Fault.UNAVAILABLE if code in UNAVAILABLE else Fault.UNKNOWN
