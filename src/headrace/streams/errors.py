"""The stream errors, one tree below core's. Both engines raise them; ``error_for`` turns an error reply into its class.

BrokerError
└ StreamError                                code, err_code, description: None where the fault is on our side
  ├ ApiError                                 any error reply; an unknown err_code raises exactly this
  │ ├ JetStreamNotEnabledError               no streams here
  │ ├ JetStreamNotEnabledForAccountError
  │ ├ BadRequestError
  │ ├ StreamNotFoundError
  │ ├ StreamNameInUseError
  │ ├ SubjectOverlapError
  │ ├ StreamConfigError
  │ ├ MessageDeleteError
  │ ├ PurgeError
  │ ├ MessageNotFoundError
  │ ├ ConsumerNotFoundError
  │ ├ ConsumerDoesNotExistError
  │ ├ ConsumerCreateError
  │ ├ ConsumerNameInUseError
  │ ├ ConsumerExistsError
  │ ├ ConsumerConfigError
  │ ├ ApiLevelError
  │ ├ ResourcesExceededError               also a PublishError (UNAVAILABLE)
  │ ├ TemporarilyUnavailableError          also a PublishError (UNAVAILABLE)
  │ └ PublishRefusedError                  also a PublishError
  │   ├ ExpectationFailedError
  │   │ ├ WrongStreamError
  │   │ ├ WrongLastMsgIdError
  │   │ └ WrongLastSequenceError
  │   ├ StreamFullError                    UNAVAILABLE: room may come
  │   ├ MessageTooLargeError
  │   ├ StreamSealedError
  │   ├ RollupError
  │   ├ MessageTtlError
  │   ├ TooManyRequestsError               UNAVAILABLE
  │   └ AtomicBatchError
  ├ NoStreamResponseError                  also a PublishError (UNAVAILABLE)
  ├ InvalidAckError                        also a PublishError (UNKNOWN)
  ├ TooManyPendingError                    also a PublishError (UNAVAILABLE)
  ├ NoMessagesError                        also a BrokerTimeoutError
  ├ MaxBytesExceededError
  ├ ConsumerDeletedError
  ├ LeadershipChangedError
  ├ ServerShutdownError
  ├ NoHeartbeatError
  ├ PullRejectedError
  ├ PinLostError
  ├ IteratorClosedError
  ├ OrderedConsumerBusyError
  ├ OrderedConsumerResetError
  ├ OrderedConsumerNotCreatedError
  └ NotStreamMessageError
ConfigError
├ InvalidStreamNameError
├ InvalidConsumerNameError
└ InvalidSubjectError
"""

from __future__ import annotations

from typing import Any

from headrace.core.errors import BrokerError, BrokerTimeoutError, ConfigError, Fault, PublishError


class StreamError(BrokerError):
    """A stream engine failed.

    ``code`` (HTTP-like), ``err_code`` and ``description`` are the engine's words, ``None`` where the fault is on our
    side. ``terminal``: a reader that meets it is over; else it goes on.
    """

    terminal: bool = False

    def __init__(
        self,
        reason: str = "",
        *,
        code: int | None = None,
        err_code: int | None = None,
        description: str | None = None,
        terminal: bool | None = None,
        **further: Any,
    ) -> None:
        super().__init__(*((reason,) if reason else ()), **further)
        self.code = code
        self.err_code = err_code
        self.description = description
        if terminal is not None:
            self.terminal = terminal


class ApiError(StreamError):
    """The engine answered with an error."""


class JetStreamNotEnabledError(ApiError):
    """There are no streams on this server."""

    terminal = True


class JetStreamNotEnabledForAccountError(ApiError):
    """There are no streams for this account."""

    terminal = True


class BadRequestError(ApiError):
    """The request was not understood."""


class StreamNotFoundError(ApiError):
    """There is no such stream."""

    terminal = True


class StreamNameInUseError(ApiError):
    """A stream of this name exists with another configuration."""


class SubjectOverlapError(ApiError):
    """The subjects overlap with those of another stream."""


class StreamConfigError(ApiError):
    """The stream configuration was refused."""


class MessageDeleteError(ApiError):
    """The message was not deleted."""


class PurgeError(ApiError):
    """The stream was not purged."""


class MessageNotFoundError(ApiError):
    """There is no such message."""


class ConsumerNotFoundError(ApiError):
    """There is no such consumer."""

    terminal = True


class ConsumerDoesNotExistError(ApiError):
    """The consumer to be updated does not exist."""


class ConsumerCreateError(ApiError):
    """The consumer was not created or changed."""


class ConsumerNameInUseError(ApiError):
    """The consumer name is in use."""


class ConsumerExistsError(ApiError):
    """The consumer exists with another configuration."""


class ConsumerConfigError(ApiError):
    """The consumer configuration was refused."""


class ApiLevelError(ApiError):
    """The server is too old for what was asked."""

    terminal = True


class ResourcesExceededError(ApiError, PublishError):
    """The limits of the account or the server are reached."""

    fault = Fault.UNAVAILABLE


class TemporarilyUnavailableError(ApiError, PublishError):
    """The engine cannot do this at the moment."""

    fault = Fault.UNAVAILABLE


class PublishRefusedError(ApiError, PublishError):
    """The stream refused the message."""

    fault = Fault.REJECTED


class ExpectationFailedError(PublishRefusedError):
    """What the publisher expected of the stream does not hold."""


class WrongStreamError(ExpectationFailedError):
    """The message would have gone to another stream."""


class WrongLastMsgIdError(ExpectationFailedError):
    """The newest message has another id."""


class WrongLastSequenceError(ExpectationFailedError):
    """The newest message has another sequence."""


class StreamFullError(PublishRefusedError):
    """The stream is full and refuses new messages."""

    fault = Fault.UNAVAILABLE


class MessageTooLargeError(PublishRefusedError):
    """The message is too large."""


class StreamSealedError(PublishRefusedError):
    """The stream is sealed."""


class RollupError(PublishRefusedError):
    """The stream does not allow this rollup."""


class MessageTtlError(PublishRefusedError):
    """The stream does not allow this time to live."""


class TooManyRequestsError(PublishRefusedError):
    """The engine has too many requests to answer."""

    fault = Fault.UNAVAILABLE


class AtomicBatchError(PublishRefusedError):
    """The batch was refused as a whole."""


class NoStreamResponseError(StreamError, PublishError):
    """No stream took the message."""

    fault = Fault.UNAVAILABLE


class InvalidAckError(StreamError, PublishError):
    """The acknowledgement makes no sense; the message may be stored."""

    fault = Fault.UNKNOWN


class TooManyPendingError(StreamError, PublishError):
    """Too many publishes are waiting for their answer; this one was not sent."""

    fault = Fault.UNAVAILABLE


class NoMessagesError(StreamError, BrokerTimeoutError):
    """No message came in time."""


class MaxBytesExceededError(StreamError):
    """The next message is larger than max_bytes."""

    terminal = True


class ConsumerDeletedError(StreamError):
    """The consumer was deleted."""

    terminal = True


class LeadershipChangedError(StreamError):
    """The consumer has got another leader."""


class ServerShutdownError(StreamError):
    """The server is shutting down."""


class NoHeartbeatError(StreamError):
    """The heartbeat of the server is missing."""


class PullRejectedError(StreamError):
    """The pull was rejected."""

    terminal = True


class PinLostError(StreamError):
    """Another client is pinned now."""


class IteratorClosedError(StreamError):
    """The messages were stopped."""

    terminal = True


class OrderedConsumerBusyError(StreamError):
    """The ordered consumer is being read already."""

    terminal = True


class OrderedConsumerResetError(StreamError):
    """The ordered consumer could not be made anew."""

    terminal = True


class OrderedConsumerNotCreatedError(StreamError):
    """The ordered consumer was not used yet."""


class NotStreamMessageError(StreamError):
    """The message does not come from a stream."""


class InvalidStreamNameError(ConfigError):
    """The stream name is not allowed."""


class InvalidConsumerNameError(ConfigError):
    """The consumer name is not allowed."""


class InvalidSubjectError(ConfigError):
    """The subject is not allowed."""


_CODES: tuple[tuple[type[ApiError], tuple[int, ...]], ...] = (
    (JetStreamNotEnabledError, (10076,)),
    (JetStreamNotEnabledForAccountError, (10039,)),
    (BadRequestError, (10003, 10025)),
    (StreamNotFoundError, (10059,)),
    (StreamNameInUseError, (10058,)),
    (SubjectOverlapError, (10065,)),
    (StreamConfigError, (10052, 10074)),
    (MessageDeleteError, (10043, 10057)),
    (PurgeError, (10110,)),
    (MessageNotFoundError, (10037,)),
    (ConsumerNotFoundError, (10014,)),
    (ConsumerDoesNotExistError, (10149,)),
    (ConsumerCreateError, (10012,)),
    (ConsumerNameInUseError, (10013,)),
    (ConsumerExistsError, (10105, 10148)),
    (ConsumerConfigError, (10017, 10026, 10084, 10086, *range(10093, 10096), *range(10098, 10102), 10116, 10132)),
    (ConsumerConfigError, (10136, 10138, 10139, *range(10159, 10163), *range(10181, 10185))),
    (ResourcesExceededError, (10002, 10023, 10028, 10047)),
    (TemporarilyUnavailableError, (10008, 10009, 10118, 10119)),
    (ApiLevelError, (10185,)),
    (WrongStreamError, (10060,)),
    (WrongLastMsgIdError, (10070,)),
    (WrongLastSequenceError, (10071, 10164)),
    (StreamFullError, (10077,)),
    (MessageTooLargeError, (10054, 10097)),
    (StreamSealedError, (10109,)),
    (RollupError, (10111,)),
    (MessageTtlError, (10165, 10166)),
    (TooManyRequestsError, (10167,)),
    (AtomicBatchError, (*range(10174, 10178), 10179, *range(10199, 10202), 10210)),
)
ERROR_CLASSES: dict[int, type[ApiError]] = {number: kind for kind, numbers in _CODES for number in numbers}
"""``err_code`` (nats-server's errors.json) -> class. 10077 is `StreamFullError` only where it says "maximum …"."""
_STORE_FAILED = 10077
_SERVICE_UNAVAILABLE = 503


def error_for(code: int | None, err_code: int | None, description: str | None, **further: Any) -> ApiError:
    """The error of a reply; exactly `ApiError` for an unknown `err_code`. ``further`` is for a ``PublishError``."""
    text = description or ""
    kind = ERROR_CLASSES.get(err_code or 0, ApiError)
    if err_code == _STORE_FAILED and not text.lower().startswith("maximum"):
        # "message … failed to store": no limit of the stream, hence the parent; the next try may succeed.
        kind = PublishRefusedError
        further.setdefault("fault", Fault.UNAVAILABLE)
    if not issubclass(kind, PublishError):
        further = {}
    reason = f"{text or kind.__name__} ({err_code})" if err_code else text
    return kind(reason, code=code, err_code=err_code, description=description, **further)


def publish_error_for(
    code: int | None, err_code: int | None, description: str | None, **further: Any
) -> ApiError | PublishRefusedError:
    """Like `error_for`, for the answer to a publish: always a ``PublishError`` too.

    What is no class of its own for publishing is a `PublishRefusedError`: ``UNAVAILABLE`` for a 503, else ``REJECTED``.
    """
    error = error_for(code, err_code, description, **further)
    if isinstance(error, PublishError):
        return error
    if code == _SERVICE_UNAVAILABLE:
        further.setdefault("fault", Fault.UNAVAILABLE)
    return PublishRefusedError(str(error), code=code, err_code=err_code, description=description, **further)
