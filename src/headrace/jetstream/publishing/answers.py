"""What becomes of a publish: an acknowledgement, a refusal, nobody there; or no answer at all."""

from __future__ import annotations

import msgspec

from headrace.core.errors import Fault, PublishError, PublishInterruptedError, PublishTimeoutError
from headrace.nats.block import status_of
from headrace.streams.errors import InvalidAckError, NoStreamResponseError, publish_error_for
from headrace.streams.info import PubAck

__all__ = ["answer_of", "interrupted", "late", "nobody", "not_sent"]

_NO_RESPONDERS = 503


class _Refusal(msgspec.Struct, frozen=True):
    code: int | None = None
    err_code: int | None = None
    description: str | None = None


class _Answer(msgspec.Struct, frozen=True, gc=False):
    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    domain: str = ""
    batch: str = ""
    count: int = 0
    error: _Refusal | None = None


_decode = msgspec.json.Decoder(_Answer).decode


def answer_of(subject: str, msg_id: str | None, header: bytes, data: bytes) -> PubAck | PublishError:
    """The result of a publish to `subject`. ``NoStreamResponseError``: no stream covers it, or none is up."""
    if header and not data:
        status = status_of(header)
        if status is not None and status[0] == _NO_RESPONDERS:
            return nobody(subject, msg_id)
    try:
        answer = _decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        made = InvalidAckError(f"the answer to a publish to {subject!a} makes no sense: {error}", message_id=msg_id)
        made.__cause__ = error
        return made
    if answer.error is not None:
        refused = answer.error
        return _refusal(refused.code, refused.err_code, refused.description, msg_id)
    if not answer.stream or answer.seq <= 0:
        return InvalidAckError(f"the answer to a publish to {subject!a} names no stream or sequence", message_id=msg_id)
    return PubAck(answer.stream, answer.seq, answer.duplicate, answer.domain, answer.batch, answer.count)


def _refusal(code: int | None, err_code: int | None, description: str | None, msg_id: str | None) -> PublishError:
    error = publish_error_for(code, err_code, description, message_id=msg_id)
    assert isinstance(error, PublishError)  # noqa: S101  (publish_error_for gives nothing else)
    return error


def nobody(subject: str, msg_id: str | None, fault: Fault | None = None) -> NoStreamResponseError:
    """The error of a publish that no stream took."""
    return NoStreamResponseError(f"no stream answers on {subject!a}", message_id=msg_id, fault=fault)


def interrupted(msg_id: str | None, cause: BaseException | None) -> PublishInterruptedError:
    """The error of a publish whose answer cannot come any more."""
    why = "the connection was lost" if cause is not None else "the streams were closed"
    made = PublishInterruptedError(f"{why} before the acknowledgement; the message may be stored", message_id=msg_id)
    made.__cause__ = cause
    return made


def late(timeout: float, msg_id: str | None, *, sent: bool) -> PublishTimeoutError:
    """The error of a publish that got no answer in time."""
    if not sent:
        text = f"not sent within {timeout:g} s: there was no connection"
        return PublishTimeoutError(text, message_id=msg_id, fault=Fault.UNAVAILABLE)
    text = f"no acknowledgement within {timeout:g} s; the message may be stored (a stream with no_ack never answers)"
    return PublishTimeoutError(text, message_id=msg_id)


def not_sent(msg_id: str | None, cause: BaseException, fault: Fault = Fault.UNAVAILABLE) -> PublishError:
    """The error of a publish that the connection did not take."""
    made = PublishError(f"not published: {cause}", message_id=msg_id, fault=fault)
    made.__cause__ = cause.with_traceback(None)  # it holds the future that this becomes the result of
    return made
