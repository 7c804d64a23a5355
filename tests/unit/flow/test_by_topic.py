"""by_topic around handlers and sends: which chain a message takes, in which order, and how often one is composed."""

import asyncio

import pytest

from headrace.core.headers import Headers
from headrace.core.message import Message
from headrace.flow import RetryPolicy, Topic, Worker
from headrace.flow.middleware import Base64Decode, Base64Encode, Compress, Decompress, by_topic
from headrace.testing.idle import run_until_idle
from headrace.testing.recording import RecordingHandler
from headrace.testing.virtual import virtual_time
from tests.unit.flow.scripted import ScriptedBroker
from tests.unit.flow.tools import fill

TOPICS = ("orders", "parcels", "visits")


class Trail:
    """What was passed on the way to the handler and back, by topic, in order; `steps` holds what each was told to call.

    `named` makes a middleware of that name.
    """

    def __init__(self):
        self.passed = {topic: [] for topic in TOPICS}
        self.steps = {}

    def named(self, name):
        async def layer(item, call_next):
            topic = item.topic if isinstance(item, Message) else item.message.topic
            self.steps.setdefault(name, []).append(call_next)  # kept alive: identities of the dead are used again
            self.passed[topic].append(name)
            result = await call_next(item)
            self.passed[topic].append(f"/{name}")
            return result

        return layer

    async def handler(self, delivery):
        self.passed[delivery.message.topic].append("handler")


def wrapped(inside, *names):
    """The way through these and back."""
    return [*names, inside, *(f"/{name}" for name in reversed(names))]


async def receive(trail, *middleware, topics=TOPICS):
    broker = ScriptedBroker()
    for topic in topics:
        await fill(broker, b"1", topic=topic)
    await run_until_idle(Worker(broker, topics, trail.handler, group="g", middleware=middleware))


@virtual_time
async def test_append_runs_the_topics_chain_inside_what_all_have():
    trail = Trail()
    a, b, common = trail.named("a"), trail.named("b"), trail.named("common")
    await receive(trail, common, by_topic({"orders": [a, b], "parcels": []}))
    assert trail.passed == {
        "orders": wrapped("handler", "common", "a", "b"),
        "parcels": wrapped("handler", "common"),
        "visits": wrapped("handler", "common"),
    }


@virtual_time
async def test_replace_runs_the_topics_chain_in_place_of_the_default():
    trail = Trail()
    a, one, two = trail.named("a"), trail.named("one"), trail.named("two")
    await receive(trail, by_topic({"orders": [a], "parcels": []}, default=[one, two]))
    assert trail.passed == {
        "orders": wrapped("handler", "a"),
        "parcels": wrapped("handler"),  # an empty chain is a chain: the default does not fill it
        "visits": wrapped("handler", "one", "two"),
    }


@virtual_time
async def test_what_stands_behind_it_runs_for_every_topic():
    trail = Trail()
    a, default, inner = trail.named("a"), trail.named("default"), trail.named("inner")
    await receive(trail, by_topic({"orders": [a]}, default=[default]), inner)
    assert trail.passed == {
        "orders": wrapped("handler", "a", "inner"),
        "parcels": wrapped("handler", "default", "inner"),
        "visits": wrapped("handler", "default", "inner"),
    }


@virtual_time
async def test_one_inside_another():
    trail = Trail()
    a, b, deep = trail.named("a"), trail.named("b"), trail.named("deep")
    inner = by_topic({"orders": [deep]}, default=[b])
    await receive(trail, by_topic({"visits": [a]}, default=[inner]))
    assert trail.passed == {
        "orders": wrapped("handler", "deep"),
        "parcels": wrapped("handler", "b"),
        "visits": wrapped("handler", "a"),
    }


@pytest.mark.parametrize("plain_in", [(), ("orders", "parcels", "default"), ("orders",), ("default",)], ids=str)
@virtual_time
async def test_sends_take_the_same_ways(plain_in):
    """By `send` and by `send_many`, whichever of the chains do not take whole batches."""

    async def plain(message, call_next):
        return await call_next(message)

    def chain(name, *layers):
        return [*layers, plain] if name in plain_in else list(layers)

    layer = by_topic(
        {"orders": chain("orders", Base64Encode()), "parcels": chain("parcels")},
        default=chain("default", Compress(min_size=0)),
    )
    broker = ScriptedBroker()
    for name in TOPICS:
        topic = Topic(broker, name, middleware=[layer])
        await topic.send(b"x" * 50)
        await topic.send_many([b"x" * 50, b"x" * 50])
    said = {
        name: [(one.headers.get("Content-Transfer-Encoding"), one.headers.get("Content-Encoding")) for one in stored]
        for name, stored in broker.stored.items()
    }
    assert said == {"orders": [("base64", None)] * 3, "parcels": [(None, None)] * 3, "visits": [(None, "gzip")] * 3}


@virtual_time
async def test_what_one_side_makes_the_other_undoes():
    broker, handler = ScriptedBroker(), RecordingHandler()
    sending = by_topic({"orders": [Base64Encode()]}, default=[Compress(min_size=0)])
    receiving = by_topic({"orders": [Base64Decode()]}, default=[Decompress()])
    for name in TOPICS:
        await Topic(broker, name, middleware=[sending]).send(name.encode() * 9)
    await run_until_idle(Worker(broker, TOPICS, handler, group="g", middleware=[receiving]))
    assert {message.topic: message.body.decode() for message in handler.messages} == {name: name * 9 for name in TOPICS}
    assert all(message.headers == Headers() for message in handler.messages)


@virtual_time
async def test_every_run_of_a_retry_goes_through_the_chain_of_its_topic():
    broker, trail = ScriptedBroker(), Trail()
    await fill(broker, b"1", topic="orders")
    await fill(broker, b"1", topic="visits")
    failing = RecordingHandler(fail=lambda delivery, run: KeyError("no") if delivery.attempt < 3 else None)
    layer = by_topic({"orders": [trail.named("a")]}, default=[trail.named("default")])
    worker = Worker(
        broker, ("orders", "visits"), failing, group="g", middleware=[layer], retry=RetryPolicy(initial=1, jitter=0)
    )
    await run_until_idle(worker)
    assert trail.passed["orders"] == ["a", "a", "a", "/a"]
    assert trail.passed["visits"] == ["default", "default", "default", "/default"]
    assert worker.stats.acked == 2


@virtual_time
async def test_each_chain_is_composed_once():
    """Whoever composes anew gives the outer ones of a chain another `call_next` every time."""
    broker, trail = ScriptedBroker(), Trail()
    layer = by_topic(
        {"orders": [trail.named("a"), trail.named("b")], "parcels": [trail.named("c"), trail.named("d")]},
        default=[trail.named("e"), trail.named("f")],
    )
    for body in b"123":
        for topic in TOPICS:
            await fill(broker, b"%d" % body, topic=topic)
    await run_until_idle(Worker(broker, TOPICS, trail.handler, group="g", middleware=[layer]))
    for name in "abcdef":
        steps = trail.steps[name]
        assert len(steps) == 3
        assert all(step is steps[0] for step in steps), name
    assert len({id(trail.steps[name][0]) for name in "ace"}) == 3, "chains of different topics are mixed up"
    sending = Topic(broker, "orders", middleware=[layer])
    for _ in range(3):
        await sending.send(b"x")
    sent = trail.steps["a"][3:]
    assert len(sent) == 3
    assert all(step is sent[0] for step in sent)


@virtual_time
async def test_workers_that_run_at_once_may_share_one():
    """Whoever keeps what was composed for the one leads the other's messages to the one's handler."""
    broker, trail = ScriptedBroker(), Trail()
    layer = by_topic({"orders": [trail.named("a"), trail.named("b")]}, default=[trail.named("c")])
    bodies, topics = (b"1", b"2", b"3"), ("orders", "visits")
    handlers = {group: RecordingHandler(then=lambda _: asyncio.sleep(1)) for group in ("g", "h")}
    for topic in topics:
        await fill(broker, *bodies, topic=topic)
    async with asyncio.TaskGroup() as tasks:
        for group, handler in handlers.items():
            worker = Worker(broker, topics, handler, group=group, concurrency=1, middleware=[layer])
            tasks.create_task(run_until_idle(worker))
    for handler in handlers.values():
        found = sorted((message.topic, message.body) for message in handler.messages)
        assert found == [(topic, body) for topic in topics for body in bodies]
    assert trail.passed["orders"].count("b") == trail.passed["visits"].count("c") == 6


@virtual_time
async def test_it_keeps_what_it_was_given():
    """What is done afterwards to the mapping and the lists changes nothing."""
    trail = Trail()
    chains, default = {"orders": [trail.named("a")]}, [trail.named("default")]
    layer = by_topic(chains, default)
    chains["orders"].clear()
    chains["visits"] = []
    default.clear()
    await receive(trail, layer, topics=("orders", "visits"))
    assert trail.passed["orders"] == wrapped("handler", "a")
    assert trail.passed["visits"] == wrapped("handler", "default")
