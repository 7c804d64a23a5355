"""Spans around sends and runs, and what of them travels in headers. The SDK and its exporter are the real ones."""

import asyncio
import subprocess
import sys
from contextlib import contextmanager

import pytest
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NoOpTracerProvider, SpanKind, StatusCode, TraceFlags

from headrace.core.broker import Receipt
from headrace.core.delivery import ACK, Delivery
from headrace.core.errors import ConfigError, Fault, PublishError, RejectError
from headrace.core.headers import NO_HEADERS, Headers
from headrace.core.message import Message
from headrace.flow import DROP, DeadLetter, RetryPolicy, Topic, Worker, compose
from headrace.flow.middleware import Base64Encode, by_topic, tracing
from headrace.testing.idle import run_until_idle
from headrace.testing.recording import RecordingHandler
from headrace.testing.virtual import virtual_time
from tests.unit.flow.scripted import ScriptedBroker
from tests.unit.flow.tools import nothing

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"


class Traces:
    """A provider that keeps its spans, and middleware of it."""

    def __init__(self, **options):
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False, **options)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("test")

    def send(self, **options):
        return tracing.send(tracer_provider=self.provider, **options)

    def receive(self, *relation, **options):
        return tracing.receive(*relation, tracer_provider=self.provider, **options)

    def named(self, name):
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def one(self, name):
        (span,) = self.named(name)
        return span


@pytest.fixture
def traces():
    return Traces()


@contextmanager
def attached(inside):
    token = context.attach(inside)
    try:
        yield
    finally:
        context.detach(token)


async def process(broker, handler, layer, **options):
    worker = Worker(broker, "orders", handler, group="g", middleware=[layer], **options)
    await run_until_idle(worker)
    return worker


def ids(span):
    return span.context.trace_id, span.context.span_id


def origin_of(headers):
    _, trace_id, span_id, _ = headers.get("traceparent").split("-")
    return int(trace_id, 16), int(span_id, 16)


@virtual_time
async def test_a_send_and_its_run_are_one_trace(traces):
    broker, handler = ScriptedBroker(), RecordingHandler()
    await Topic(broker, "orders", middleware=[traces.send()]).send(b"secret", id="1", headers={"Mine": "secret"})
    await process(broker, handler, traces.receive())
    sent, run = traces.one("send orders"), traces.one("process orders")
    assert (sent.kind, run.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert sent.parent is None
    assert (run.parent.trace_id, run.parent.span_id) == ids(sent) == origin_of(handler.messages[0].headers)
    assert run.parent.is_remote
    assert dict(sent.attributes) == {
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "orders",
        "messaging.message.id": "1",
        "messaging.message.body.size": 6,
        "headrace.position": "orders@1",
    }
    assert dict(run.attributes) == {
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "orders",
        "messaging.consumer.group.name": "g",
        "messaging.message.id": "1",
        "messaging.message.body.size": 6,
        "headrace.attempt": 1,
        "scripted.token": 1,
    }
    assert {span.status.status_code for span in (sent, run)} == {StatusCode.UNSET}
    assert "secret" not in sent.to_json() + run.to_json()
    assert sent.instrumentation_scope.schema_url == "https://opentelemetry.io/schemas/1.44.0"


@virtual_time
async def test_a_run_may_begin_a_trace_of_its_own_with_a_link(traces):
    broker, handler = ScriptedBroker(), RecordingHandler()
    with attached(baggage.set_baggage("shop", "7")):
        await Topic(broker, "orders", middleware=[traces.send()]).send(b"x")
    seen = []

    async def handle(delivery: Delivery) -> None:
        seen.append(baggage.get_baggage("shop"))

    await process(broker, handle, traces.receive("link"))
    sent, run = traces.one("send orders"), traces.one("process orders")
    assert run.parent is None
    assert run.context.trace_id != sent.context.trace_id
    assert [(link.context.trace_id, link.context.span_id) for link in run.links] == [ids(sent)]
    assert seen == ["7"]
    assert handler.messages == []
    with pytest.raises(ConfigError, match="'child'"):
        tracing.receive("child")


@virtual_time
async def test_a_batch_is_one_span_in_which_each_message_was_sent(traces):
    broker = ScriptedBroker()
    topic = Topic(broker, "orders", middleware=[traces.send(), Base64Encode()])
    assert topic.capabilities.batch_key_order
    results = await topic.send_many([b"1", b"2", b"3"])
    sent = traces.one("send orders")
    assert [type(result) for result in results] == [Receipt] * 3
    assert [origin_of(message.headers) for message in broker.stored["orders"]] == [ids(sent)] * 3
    assert sent.attributes["messaging.batch.message_count"] == 3
    assert "messaging.message.id" not in sent.attributes
    assert "headrace.position" not in sent.attributes, "it is of one message, not of the batch"
    handler = RecordingHandler()
    await process(broker, handler, traces.receive())
    assert {span.parent.span_id for span in traces.named("process orders")} == {sent.context.span_id}


@virtual_time
async def test_a_batch_has_failed_if_one_of_it_has(traces):
    broker = ScriptedBroker()
    topic = Topic(broker, "orders", middleware=[traces.send()])
    broker.refuse.append(PublishError("no secret", fault=Fault.UNAVAILABLE))
    results = await topic.send_many([b"1", b"2"])
    assert [type(result) for result in results] == [PublishError, Receipt]
    sent = traces.one("send orders")
    assert (sent.status.status_code, sent.status.description) == (StatusCode.ERROR, "1 of 2 messages")
    assert sent.attributes["error.type"] == "headrace.core.errors.PublishError"
    assert sent.attributes["headrace.position"] == "orders@1"


@virtual_time
async def test_a_batch_beside_middleware_without_many_and_by_topic(traces):
    async def plain(message, call_next):
        return await call_next(message)

    broker = ScriptedBroker()
    await Topic(broker, "orders", middleware=[traces.send(), plain]).send_many([b"1", b"2"])
    assert len(traces.named("send orders")) == 2
    await Topic(broker, "orders", middleware=[by_topic({"orders": [traces.send()]})]).send_many([b"1", b"2"])
    assert len(traces.named("send orders")) == 3

    async def many(messages):
        return [Receipt() for _ in messages]

    assert await traces.send().many([Message(topic=name, body=b"") for name in "ab"], many) == [Receipt(), Receipt()]
    assert "messaging.destination.name" not in traces.one("send").attributes


@virtual_time
async def test_a_send_that_fails(traces):
    broker = ScriptedBroker()
    broker.refuse += [PublishError("secret", fault=Fault.REJECTED)] * 2
    for options in ({}, {"record_exceptions": True}):
        with pytest.raises(PublishError):
            await Topic(broker, "orders", middleware=[traces.send(**options)]).send(b"x")
    quiet, telling = traces.named("send orders")
    assert {span.status.status_code for span in (quiet, telling)} == {StatusCode.ERROR}
    assert quiet.attributes["error.type"] == "headrace.core.errors.PublishError"
    assert (quiet.status.description, quiet.events) == (None, ())
    assert "secret" not in quiet.to_json()
    assert telling.events[0].attributes["exception.message"] == "secret"
    assert trace.get_current_span() is trace.INVALID_SPAN


@virtual_time
async def test_each_attempt_is_a_span(traces):
    broker = ScriptedBroker()
    await Topic(broker, "orders", middleware=[traces.send()]).send(b"secret")
    handler = RecordingHandler(fail=lambda delivery, run: KeyError(delivery.message.body) if run < 3 else None)
    await process(broker, handler, traces.receive())
    runs = traces.named("process orders")
    assert [span.attributes["headrace.attempt"] for span in runs] == [1, 2, 3]
    assert [span.attributes.get("error.type") for span in runs] == ["KeyError", "KeyError", None]
    assert [span.status.status_code for span in runs] == [StatusCode.ERROR, StatusCode.ERROR, StatusCode.UNSET]
    assert {span.parent.span_id for span in runs} == {traces.one("send orders").context.span_id}
    assert not any("secret" in span.to_json() for span in runs)


@pytest.mark.parametrize(
    ("say", "kind"),
    [
        (lambda delivery: delivery.nak(1), "headrace.core.errors.RetryLaterError"),
        (lambda delivery: delivery.reject("secret"), "headrace.core.errors.RejectError"),
        (Delivery.ack, None),
    ],
)
@virtual_time
async def test_a_handler_may_say_no_without_raising(traces, say, kind):
    broker = ScriptedBroker()
    await Topic(broker, "orders").send(b"x")

    async def handle(delivery: Delivery) -> None:
        if delivery.attempt == 1:
            say(delivery)

    await process(broker, handle, traces.receive())
    assert traces.named("process orders")[0].attributes.get("error.type") == kind


@virtual_time
async def test_a_dead_letter_stays_in_the_trace(traces):
    broker = ScriptedBroker()
    await Topic(broker, "orders", middleware=[traces.send()]).send(b"x")
    handler = RecordingHandler(fail=lambda _, run: RejectError("never"))
    options = {"on_exhausted": DeadLetter(), "retry": RetryPolicy(max_attempts=1)}
    await process(broker, handler, traces.receive(), **options)
    layer = traces.receive()
    await run_until_idle(Worker(broker, "dead.orders", nothing, group="g", middleware=[layer]))
    sent, buried = traces.one("send orders"), traces.one("process dead.orders")
    assert (buried.parent.trace_id, buried.parent.span_id) == ids(sent)
    assert traces.one("process orders").attributes["error.type"] == "headrace.core.errors.RejectError"


@virtual_time
async def test_a_run_that_is_too_slow_has_failed(traces):
    broker = ScriptedBroker()
    await Topic(broker, "orders").send(b"x")
    handler = RecordingHandler(then=lambda _: asyncio.sleep(100))
    options = {"handler_timeout": 1, "retry": RetryPolicy(max_attempts=1), "on_exhausted": DROP}
    await process(broker, handler, traces.receive(), **options)
    assert traces.one("process orders").attributes["error.type"] == "asyncio.exceptions.CancelledError"


@virtual_time
async def test_old_trace_headers_are_replaced_in_any_case(traces):
    broker = ScriptedBroker()
    old = [("TraceParent", PARENT), ("A", "1"), ("TRACESTATE", "a=1"), ("Baggage", "old=1"), ("a", "2")]
    with traces.tracer.start_as_current_span("request") as request:
        await Topic(broker, "orders", middleware=[traces.send()]).send(b"x", headers=old)
    (message,) = broker.stored["orders"]
    sent = traces.one("send orders")
    assert [name for name, _ in message.headers.items()] == ["A", "a", "traceparent"]
    assert origin_of(message.headers) == ids(sent)
    assert sent.parent.span_id == request.get_span_context().span_id
    assert [f"{link.context.span_id:x}" for link in sent.links] == [SPAN], "where the message came from"


@virtual_time
async def test_headers_are_found_in_any_case_and_what_a_message_sets_ends_with_it(traces):
    broker, seen = ScriptedBroker(), []
    theirs = {"TRACEPARENT": PARENT, "TraceState": "vendor=1", "BAGGAGE": "shop=7,user=%C3%A9"}
    await Topic(broker, "orders").send(b"1", headers=theirs)
    await Topic(broker, "orders").send(b"2")

    async def handle(delivery: Delivery) -> None:
        await asyncio.sleep(1)
        span = trace.get_current_span().get_span_context()
        seen.append((f"{span.trace_id:032x}", span.trace_state.to_header(), dict(baggage.get_all())))
        context.attach(baggage.set_baggage("left", "behind"))

    await process(broker, handle, traces.receive(), concurrency=1)
    assert seen[0] == (TRACE, "vendor=1", {"shop": "7", "user": "é"})
    assert seen[1][1:] == ("", {})
    assert seen[1][0] != TRACE


HOSTILE = [
    "", "x", PARENT[:-1], PARENT + "-more", PARENT.upper(), "ff" + PARENT[2:], f"00-{'0' * 32}-{SPAN}-01",
    f"00-{TRACE}-{'0' * 16}-01", "0" * 60_000, f"{PARENT}\x00", f"{PARENT}\u202e", b"\xff\xfe",
]  # fmt: skip


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
@virtual_time
async def test_a_hostile_trace_parent_is_ignored(traces, value):
    await check_ignored(traces, [("traceparent", value), ("tracestate", "a=1")])


@pytest.mark.parametrize(
    "pairs",
    [
        [("traceparent", PARENT), ("Traceparent", PARENT.replace("b7", "b8"))],
        [("baggage", b"a=\xff")],
        [("baggage", "=,;,=;" * 1_000)],
        [("baggage", "a=b\x1b[31m")],
        [("tracestate", "a=1")],
    ],
)
@virtual_time
async def test_other_hostile_headers_are_ignored(traces, pairs):
    await check_ignored(traces, pairs)


async def check_ignored(traces, pairs):
    """The run has a trace of its own, and what it sends goes out."""
    broker = ScriptedBroker()
    topic, onward = Topic(broker, "orders"), Topic(broker, "onward", middleware=[traces.send()])
    message = topic.message(b"x").replace(headers=Headers.trusted(pairs))
    seen = []

    async def handle(delivery: Delivery) -> None:
        seen.append(dict(baggage.get_all()))
        await onward.send(b"y")

    async def step(delivery):
        await handle(delivery)

    await compose(step, traces.receive())(Delivery(message, 1, None, broker_owner()))
    run = traces.one("process orders")
    assert run.parent is None
    assert run.links == ()
    assert seen == [{}]
    assert broker.stored["onward"][0].headers.get("baggage") is None
    assert traces.one("send onward").parent.span_id == run.context.span_id


def broker_owner():
    class Owner:
        group = None

        def attributes(self, delivery):
            return {}

    return Owner()


def test_a_broken_propagator_stops_no_message(traces):
    class Broken(TextMapPropagator):
        fields = frozenset({"traceparent"})

        def extract(self, carrier, context=None, getter=None):
            raise ValueError("broken")

        def inject(self, carrier, context=None, setter=None):
            setter.set(carrier, "bad name", "x\r\ny")

    async def main():
        broker = ScriptedBroker()
        await Topic(broker, "orders", middleware=[traces.send()]).send(b"x", headers={"A": "1"})
        handler = RecordingHandler()
        await process(broker, handler, traces.receive())
        assert handler.messages[0].headers == Headers({"A": "1"})

    before = propagate.get_global_textmap()
    propagate.set_global_textmap(Broken())
    try:
        asyncio.run(main())
    finally:
        propagate.set_global_textmap(before)
    assert traces.one("process orders").parent is None


def test_without_propagators_nothing_is_written_and_nothing_removed(traces):
    async def main():
        broker = ScriptedBroker()
        await Topic(broker, "orders", middleware=[traces.send()]).send(b"x", headers={"traceparent": PARENT})
        assert broker.stored["orders"][0].headers.get("traceparent") == PARENT

    before = propagate.get_global_textmap()
    propagate.set_global_textmap(CompositePropagator([]))
    try:
        asyncio.run(main())
    finally:
        propagate.set_global_textmap(before)


@virtual_time
async def test_whoever_runs_the_worker_is_no_part_of_a_trace(traces):
    broker, seen = ScriptedBroker(), []
    await Topic(broker, "orders").send(b"x")

    async def handle(delivery: Delivery) -> None:
        seen.append(dict(baggage.get_all()))

    with traces.tracer.start_as_current_span("main"), attached(baggage.set_baggage("of", "main")):
        await process(broker, handle, traces.receive())
    assert traces.one("process orders").parent is None
    assert seen == [{}]


@virtual_time
async def test_the_span_is_current_in_plain_functions_too(traces):
    broker, seen = ScriptedBroker(), []
    await Topic(broker, "orders").send(b"x")

    def handle(delivery: Delivery) -> None:
        seen.append(trace.get_current_span().get_span_context().span_id)

    await process(broker, handle, traces.receive())
    assert seen == [traces.one("process orders").context.span_id]


@virtual_time
async def test_runs_side_by_side_keep_their_spans(traces):
    broker, onward = ScriptedBroker(), ScriptedBroker()
    passed_on = Topic(onward, "onward", middleware=[traces.send()])
    await Topic(broker, "orders", middleware=[traces.send()]).send_many([b"%d" % number for number in range(20)])

    async def handle(delivery: Delivery) -> None:
        mine = trace.get_current_span()
        await asyncio.sleep(1 / (1 + int(delivery.message.body)))
        assert trace.get_current_span() is mine
        await passed_on.send(delivery.message.replace(topic=""))

    await process(broker, handle, traces.receive())
    parents = {span.parent.span_id for span in traces.named("send onward")}
    assert parents == {span.context.span_id for span in traces.named("process orders")}
    assert len(parents) == 20
    assert all(len(message.headers.get_all("traceparent")) == 1 for message in onward.stored["onward"])


@virtual_time
async def test_a_tracer_that_does_nothing_leaves_headers_alone():
    broker = ScriptedBroker()
    layer = tracing.send(tracer_provider=NoOpTracerProvider())
    topic = Topic(broker, "orders", middleware=[layer])
    kept = topic.message(b"x", headers={"Traceparent": PARENT, "Tracestate": "a=1"})
    await topic.send(kept)
    await topic.send(b"x", id="plain")
    await topic.send_many([kept])
    assert broker.stored["orders"][0] is kept
    assert broker.stored["orders"][1].headers is NO_HEADERS
    assert broker.stored["orders"][2] is kept
    with attached(baggage.set_baggage("shop", "7", context.Context())):
        await topic.send(kept)
    assert dict(broker.stored["orders"][3].headers.items()) == {**dict(kept.headers.items()), "baggage": "shop=7"}


@pytest.mark.parametrize("relation", ["parent", "link"])
@virtual_time
async def test_a_tracer_that_does_nothing_passes_a_trace_on(relation):
    broker, onward = ScriptedBroker(), ScriptedBroker()
    nobody = NoOpTracerProvider()
    passed_on = Topic(onward, "onward", middleware=[tracing.send(tracer_provider=nobody)])
    await Topic(broker, "orders").send(b"x", headers={"TRACEPARENT": PARENT, "baggage": "shop=7"})

    async def handle(delivery: Delivery) -> None:
        await passed_on.send(b"y")
        await passed_on.send_many([b"z"])

    await process(broker, handle, tracing.receive(relation, tracer_provider=nobody))
    expected = {"traceparent": PARENT, "baggage": "shop=7"}
    assert [dict(message.headers.items()) for message in onward.stored["onward"]] == [expected, expected]


@virtual_time
async def test_what_is_not_sampled_is_passed_on_as_such():
    traces, broker = Traces(sampler=ALWAYS_OFF), ScriptedBroker()
    await Topic(broker, "orders", middleware=[traces.send()]).send(b"x")
    await Topic(broker, "orders", middleware=[traces.send()]).send_many([b"x"])
    handler = RecordingHandler()
    await process(broker, handler, traces.receive())
    flags = [int(message.headers.get("traceparent")[-2:], 16) for message in handler.messages]
    assert [flag & TraceFlags.SAMPLED for flag in flags] == [0, 0]
    assert traces.exporter.get_finished_spans() == ()


@virtual_time
async def test_a_run_closed_from_outside_ends_its_span_quietly(traces, caplog):
    async def step(delivery):
        await asyncio.sleep(100)

    delivery = Delivery(Message(topic="orders", body=b""), 1, None, broker_owner())
    coroutine = compose(step, traces.receive())(delivery)
    coroutine.send(None)
    await asyncio.to_thread(coroutine.close)
    context.attach(context.Context())
    assert traces.one("process orders").status.status_code is StatusCode.ERROR
    assert caplog.records == []


@virtual_time
async def test_foreign_names_are_made_plain(traces):
    message = Message(topic="a\udcff", body=b"", id="x\r\n\udcff")
    delivery = Delivery(message, 1, None, broker_owner())

    async def step(delivery):
        delivery.settlement.outcome = ACK

    await compose(step, traces.receive())(delivery)
    (run,) = traces.exporter.get_finished_spans()
    assert (run.name, run.attributes["messaging.message.id"]) == ("process a\\udcff", "x\\r\\n\\udcff")


def run_alone(script):
    return subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=False)


def test_the_room_of_middleware_does_not_load_opentelemetry():
    done = run_alone("import sys, headrace.flow.middleware; print('opentelemetry' in sys.modules)")
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_without_the_package_it_says_what_to_install():
    done = run_alone("import sys; sys.modules['opentelemetry'] = None; import headrace.flow.middleware.tracing")
    assert done.stderr.splitlines()[-1] == "ImportError: tracing needs opentelemetry-api: pip install 'headrace[otel]'"
