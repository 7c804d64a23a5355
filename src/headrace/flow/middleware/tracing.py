"""Tracing with OpenTelemetry: one span per send and per run of the handler, joined through headers.

``send()`` puts the current span and baggage into the headers, ``receive()`` takes them out again, both through the
global propagator. A trace never decides about a message: what cannot be read is ignored. Never body or header values.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType, TracebackType
from typing import Literal, Self

from headrace.core.broker import Receipt
from headrace.core.delivery import Delivery, Nak, Reject
from headrace.core.errors import ConfigError, PublishError, RejectError, RetryLaterError
from headrace.core.headers import NO_HEADERS, Headers
from headrace.core.message import Message
from headrace.flow.compose import SendMany, check_count
from headrace.flow.letter import error_name, one_line

try:
    from opentelemetry import baggage, propagate, trace
    from opentelemetry.context import Context, attach, detach, get_current
    from opentelemetry.propagators.textmap import Getter, Setter, TextMapPropagator
    from opentelemetry.trace import INVALID_SPAN, Link, Span, SpanContext, SpanKind, StatusCode, TracerProvider
except ImportError as error:
    raise ImportError("tracing needs opentelemetry-api: pip install 'headrace[otel]'") from error

__all__ = ["ReceiveTracing", "Relation", "SendTracing", "receive", "send"]

Relation = Literal["parent", "link"]
"""What the span that sent a message is to the one that processes it."""

_log = logging.getLogger(__name__)

# Every name of ours, by the semantic conventions for messaging; 1.45 renames some. Engines name their own facts.
_SCHEMA = "https://opentelemetry.io/schemas/1.44.0"
_OPERATION = "messaging.operation.name"
_OPERATION_TYPE = "messaging.operation.type"
_DESTINATION = "messaging.destination.name"
_GROUP = "messaging.consumer.group.name"
_MESSAGE_ID = "messaging.message.id"
_BODY_SIZE = "messaging.message.body.size"
_BATCH_COUNT = "messaging.batch.message_count"
_ATTEMPT = "headrace.attempt"
_ERROR_TYPE = "error.type"


def send(*, tracer_provider: TracerProvider | None = None, record_exceptions: bool = False) -> SendTracing:
    """Middleware for sending: a span ``send {topic}`` (PRODUCER) per message, or one for a whole batch.

    The message's own trace headers are replaced by that span's; the span links to what they said. Of a failure the span
    has status and ``error.type``; with `record_exceptions` also text and stack, which may quote the body.
    ``tracer_provider``: default the global one.
    """
    return SendTracing(tracer_provider, record_exceptions)


def receive(
    relation: Relation = "parent", *, tracer_provider: TracerProvider | None = None, record_exceptions: bool = False
) -> ReceiveTracing:
    """Middleware for receiving: a span ``process {topic}`` (CONSUMER) per attempt, current while the handler runs.

    The span of the sender is its ``parent``, or it begins a trace of its own with a ``link`` to it. Other options as
    in `send`. ``ConfigError`` for any other relation.
    """
    return ReceiveTracing(relation, tracer_provider, record_exceptions)


class SendTracing:
    """See `send`."""

    def __init__(self, tracer_provider: TracerProvider | None, record_exceptions: bool) -> None:  # noqa: FBT001
        self._tracer = trace.get_tracer("headrace", tracer_provider=tracer_provider, schema_url=_SCHEMA)
        self._exceptions = record_exceptions

    async def __call__(self, message: Message, call_next: Callable[[Message], Awaitable[Receipt]]) -> Receipt:
        """Send one."""
        outside = get_current()
        span, inside = self._start(message.topic, outside)
        if inside is outside:  # nobody records, and there is no new span to pass on
            return await call_next(_Stamp(inside).on(message))
        recording = span.is_recording()
        if recording:
            span.set_attributes({_MESSAGE_ID: one_line(message.id), _BODY_SIZE: len(message.body)})
            _link_origins(span, (message,))
        with _Entered(span, inside, self._exceptions):
            receipt = await call_next(_Stamp(inside).on(message))
            if recording:
                span.set_attributes(receipt.attributes())
        return receipt

    async def many(self, messages: Sequence[Message], call_next: SendMany) -> list[Receipt | PublishError]:
        """Send a batch under one span; it has failed if one of its messages has."""
        outside = get_current()
        topics = {message.topic for message in messages}
        span, inside = self._start(topics.pop() if len(topics) == 1 else None, outside)
        stamp = _Stamp(inside)
        stamped = [stamp.on(message) for message in messages]
        if inside is outside:
            return await call_next(stamped)
        recording = span.is_recording()
        if recording:
            span.set_attribute(_BATCH_COUNT, len(messages))
            _link_origins(span, messages)
        with _Entered(span, inside, self._exceptions) as entered:
            results = check_count(await call_next(stamped), len(messages))
            if recording:
                span.set_attributes(_common_facts(results))
                failed = [result for result in results if isinstance(result, PublishError)]
                if failed:
                    entered.fail(failed[0], f"{len(failed)} of {len(results)} messages")
        return results

    def _start(self, topic: str | None, outside: Context) -> tuple[Span, Context]:
        name, facts = _named("send", topic, None)
        span = self._tracer.start_span(name, outside, SpanKind.PRODUCER, facts)
        if _does_nothing(span, trace.get_current_span(outside)):
            return span, outside
        return span, trace.set_span_in_context(span, outside)


class ReceiveTracing:
    """See `receive`."""

    def __init__(
        self,
        relation: Relation,
        tracer_provider: TracerProvider | None,
        record_exceptions: bool,  # noqa: FBT001
    ) -> None:
        if relation not in ("parent", "link"):
            raise ConfigError(f"relation must be 'parent' or 'link', got {relation!r}")
        self._link = relation == "link"
        self._tracer = trace.get_tracer("headrace", tracer_provider=tracer_provider, schema_url=_SCHEMA)
        self._exceptions = record_exceptions

    async def __call__(self, delivery: Delivery, call_next: Callable[[Delivery], Awaitable[None]]) -> None:
        """Run the handler inside a span."""
        outside = get_current()
        carried = _extracted(delivery.message.headers, _without_trace(outside))
        span, inside = self._start(delivery, carried)
        if inside is outside:
            return await call_next(delivery)
        recording = span.is_recording()
        if recording:
            message = delivery.message
            span.set_attributes(
                {
                    _MESSAGE_ID: one_line(message.id),
                    _BODY_SIZE: len(message.body),
                    _ATTEMPT: delivery.attempt,
                    **delivery.attributes(),
                }
            )
        with _Entered(span, inside, self._exceptions) as entered:
            await call_next(delivery)
            if recording and (error := _failure_of(delivery)) is not None:
                entered.fail(error)
        return None

    def _start(self, delivery: Delivery, carried: Context) -> tuple[Span, Context]:
        sender = trace.get_current_span(carried)
        parent, links = carried, None
        if self._link and (origin := sender.get_span_context()).is_valid:
            parent, links = trace.set_span_in_context(INVALID_SPAN, carried), (Link(origin),)
        name, facts = _named("process", delivery.message.topic, delivery.group)
        span = self._tracer.start_span(name, parent, SpanKind.CONSUMER, facts, links)
        if _does_nothing(span, sender):
            return span, carried
        return span, trace.set_span_in_context(span, carried)


class _Entered:
    """The block in which a span is the current one; it ends the span, and says if it failed."""

    __slots__ = ("_context", "_exceptions", "_span", "_token")

    def __init__(self, span: Span, context: Context, exceptions: bool) -> None:  # noqa: FBT001
        self._span = span
        self._context = context
        self._exceptions = exceptions

    def fail(self, error: BaseException, description: str | None = None) -> None:
        """It failed. Texts are left out unless they were asked for: they may quote the body."""
        self._span.set_attribute(_ERROR_TYPE, error_name(error))
        self._span.set_status(StatusCode.ERROR, description)
        if self._exceptions:
            self._span.record_exception(error)

    def __enter__(self) -> Self:
        self._token = attach(self._context)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not isinstance(error, GeneratorExit):  # closed by somebody else: this is not the context it ran in
            detach(self._token)
        if error is not None:
            self.fail(error)
        self._span.end()


class _Stamp:
    """The headers that a context gives to each message sent from it."""

    __slots__ = ("_headers", "_replaced")

    def __init__(self, context: Context) -> None:
        self._headers = NO_HEADERS
        self._replaced: Collection[str] = ()
        if not context:
            return
        propagator, found = propagate.get_global_textmap(), dict[str, str]()
        try:
            propagator.inject(found, context, _SETTER)
            self._headers = Headers(found)
        except Exception as error:  # noqa: BLE001  (somebody's propagator; the message goes without a trace)
            _log.debug("no trace headers: %s", error_name(error))
            return
        # Without a span the trace that a message may carry already stays in one piece.
        traced = trace.get_current_span(context).get_span_context().is_valid
        self._replaced = _fields_of(propagator) if traced else {name.lower() for name in found}

    def on(self, message: Message) -> Message:
        """The message with these headers in place of its old ones, whatever their case."""
        if not self._headers:
            return message
        headers = message.headers
        if not headers:
            return message.replace(headers=self._headers)
        kept = [pair for pair in headers.items() if pair[0].lower() not in self._replaced]
        return message.replace(headers=Headers.trusted((*kept, *self._headers.items())))


class _HeadersGetter(Getter[Headers]):
    """Reads headers for a propagator. One that repeats is one list (RFC 9110, 5.3), so two ``traceparent`` are none."""

    def get(self, carrier: Headers, key: str) -> list[str] | None:
        """Its values; what cannot belong to a trace (not printable ASCII) is not there."""
        values = [value.replace("\t", " ") for value in carrier.get_all(key)]
        good = [value for value in values if value.isascii() and value.isprintable()]
        return [",".join(good)] if good else None

    def keys(self, carrier: Headers) -> list[str]:
        """Their names."""
        return [name for name, _ in carrier.items()]


class _PairsSetter(Setter[dict[str, str]]):
    """Takes down what a propagator writes."""

    def set(self, carrier: dict[str, str], key: str, value: str) -> None:
        """One pair."""
        carrier[key] = value


_GETTER = _HeadersGetter()
_SETTER = _PairsSetter()


def _does_nothing(span: Span, parent: Span) -> bool:
    """A tracer without an SDK gives back the parent, or a span that is none: the parent is passed on as it is."""
    return span is parent or not span.get_span_context().is_valid


def _extracted(headers: Headers, context: Context) -> Context:
    """`context` with the trace and baggage of these headers, as far as they make sense."""
    if not headers:
        return context
    try:
        return propagate.extract(headers, context, _GETTER)
    except Exception as error:  # noqa: BLE001  (somebody's propagator, a stranger's headers)
        _log.debug("trace headers not read: %s", error_name(error))
        return context


def _without_trace(context: Context) -> Context:
    """Whatever runs the worker is no part of a message's trace."""
    return trace.set_span_in_context(INVALID_SPAN, baggage.clear(context)) if context else context


def _link_origins(span: Span, messages: Sequence[Message]) -> None:
    """Link to the spans that these messages name: an outbox' row, a message that is passed on."""
    origins: dict[tuple[int, int], SpanContext] = {}
    fields = _fields_of(propagate.get_global_textmap())
    for message in messages:
        if any(name.lower() in fields for name, _ in message.headers.items()):
            origin = trace.get_current_span(_extracted(message.headers, Context())).get_span_context()
            if origin.is_valid:
                origins[origin.trace_id, origin.span_id] = origin
    for origin in origins.values():
        span.add_link(origin)


def _common_facts(results: Sequence[Receipt | PublishError]) -> Mapping[str, str | int]:
    """What the engine says alike of every message of a batch."""
    facts = [result.attributes() for result in results if isinstance(result, Receipt)]
    first: Mapping[str, str | int] = facts[0] if facts else {}
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in facts)}


def _failure_of(delivery: Delivery) -> BaseException | None:
    """A handler may say no without raising; the judge takes it like this too."""
    match delivery.outcome:
        case Nak(delay):
            return RetryLaterError(delay)
        case Reject():
            return RejectError()
        case _:
            return None


@lru_cache(1_024)
def _named(operation: str, topic: str | None, group: str | None) -> tuple[str, Mapping[str, str]]:
    """The span's name, and what is the same for every message of a topic (a sampler sees only this)."""
    facts = {_OPERATION: operation, _OPERATION_TYPE: operation}
    if topic is not None:
        facts[_DESTINATION] = one_line(topic)
    if group is not None:
        facts[_GROUP] = group
    return f"{operation} {one_line(topic)}" if topic is not None else operation, MappingProxyType(facts)


@lru_cache(8)
def _fields_of(propagator: TextMapPropagator) -> frozenset[str]:
    return frozenset(name.lower() for name in propagator.fields)
