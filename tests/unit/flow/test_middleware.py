"""Each pair of middleware: receive(send(m)) == m, and what hostile bodies do."""

import asyncio
import gzip
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.broker import Receipt
from headrace.core.delivery import RELEASE, Delivery
from headrace.core.errors import CodecError, ConfigError, PublishError
from headrace.core.headers import Headers
from headrace.core.message import Message
from headrace.flow import Topic, Worker, compose
from headrace.flow.middleware import Base64Decode, Base64Encode, Compress, Decompress, Deduplicate, by_topic
from headrace.flow.middleware import logging as carried
from headrace.testing.idle import run_until_idle
from headrace.testing.recording import RecordingHandler
from headrace.testing.virtual import virtual_time
from tests.unit.flow.scripted import ScriptedBroker

CODINGS = ["gzip"]
for name, module in (("lz4", "lz4.frame"), ("zstd", "zstandard")):
    try:
        __import__(module)
    except ImportError:
        pass
    else:
        CODINGS.append(name)

messages = st.builds(
    lambda body, repeat, headers: Message(topic="t", body=body * repeat, headers=Headers(headers)),
    st.binary(max_size=200),
    st.integers(1, 30),
    st.lists(st.tuples(st.sampled_from(["A", "B", "a"]), st.text("xyz 1", max_size=5).map(str.strip)), max_size=3),
)


@settings(max_examples=60, deadline=None)
@given(messages, st.sampled_from(CODINGS), st.sampled_from([0, 256]))
def test_pair_law(message, coding, min_size):
    sent = Base64Encode().change(Compress(coding, min_size=min_size).change(message))
    back = Decompress(max_ratio=10_000).change(Base64Decode().change(sent))
    assert back == message
    assert sent == Base64Encode().change(Compress(coding, min_size=min_size).change(message))


@pytest.mark.parametrize("body", [b"!", b"YQ", b"YR==", b"YQ==\n", b"YQ==YQ=="])
def test_base64_is_strict(body):
    message = Message(topic="t", body=body, headers=Headers({"content-transfer-encoding": "BASE64"}))
    with pytest.raises(CodecError):
        Base64Decode().change(message)


def test_base64_leaves_others_alone():
    message = Message(topic="t", body=b"!", headers=Headers({"Content-Transfer-Encoding": "8bit"}))
    assert Base64Decode().change(message) is message


def encoded(body, codings):
    return Message(topic="t", body=body, headers=Headers({"Content-Encoding": codings}))


def test_decompress_undoes_from_the_right_what_it_knows():
    inner = gzip.compress(gzip.compress(b"x" * 1_000))
    back = Decompress().change(encoded(inner, "br, GZIP, identity, gzip"))
    assert back.body == b"x" * 1_000
    assert back.headers.get("Content-Encoding") == "br"
    unknown = encoded(b"x", "gzip, br")
    assert Decompress().change(unknown) is unknown


@pytest.mark.parametrize("coding", CODINGS)
def test_bombs_and_broken_bodies(coding):
    bomb = Compress(coding).change(Message(topic="t", body=bytes(32 * 1024 * 1024)))
    with pytest.raises(CodecError, match="over"):
        Decompress().change(bomb)
    good = Compress(coding).change(Message(topic="t", body=b"0123456789" * 100))
    for body in (good.body[:-1], good.body + b"junk", b"", b"nonsense"):
        with pytest.raises(CodecError):
            Decompress().change(good.replace(body=body))
    assert Decompress().change(good.replace(body=good.body * 2)).body == b"0123456789" * 200


def test_nested_too_deep_and_wrong_options():
    body = b"x"
    for _ in range(5):
        body = gzip.compress(body)
    with pytest.raises(CodecError, match="more than 4"):
        Decompress().change(encoded(body, ", ".join(["gzip"] * 5)))
    for options in ({"coding": "br"}, {"level": 10}, {"min_size": -1}):
        with pytest.raises(ConfigError):
            Compress(**options)


@virtual_time
async def test_batches_fail_per_item():
    broker = ScriptedBroker()
    topic = Topic(broker, "orders", middleware=[carried.send(), Compress(), Base64Encode()])
    refused = Message(topic="", body=b"x", headers=Headers({"Content-Transfer-Encoding": "8bit"}))
    results = await topic.publish_batch([Message(topic="", body=b"a" * 500), refused, Message(topic="", body=b"c")])
    assert [type(result) for result in results] == [Receipt, PublishError, Receipt]
    assert topic.capabilities.batch_key_order


@virtual_time
async def test_dedup_records_only_success():
    broker = ScriptedBroker()
    handler = RecordingHandler(fail=lambda _, run: ValueError("no") if run == 1 else None)
    for _ in range(3):
        await Topic(broker, "orders").send(b"x", id="same")
    worker = Worker(broker, "orders", handler, group="g", middleware=[Deduplicate(window=100)])
    await run_until_idle(worker)
    assert len(handler.deliveries) == 2
    assert worker.stats.acked == 3


@pytest.mark.parametrize("hand_back", [Delivery.nak, lambda delivery: delivery.settle(RELEASE)])
@virtual_time
async def test_dedup_does_not_take_a_hand_back_for_success(hand_back):
    broker, runs = ScriptedBroker(), []
    await Topic(broker, "orders").send(b"x")

    async def handler(delivery: Delivery) -> None:
        runs.append(delivery.attempt)
        if len(runs) == 1:
            hand_back(delivery)

    await run_until_idle(Worker(broker, "orders", handler, group="g", middleware=[Deduplicate()]))
    assert runs == [1, 2], "handed back, and yet never run again"


@virtual_time
async def test_dedup_waits_for_the_one_that_runs_and_forgets():
    seen, dedup = [], Deduplicate(window=100, max_ids=2)

    async def step(delivery):
        await asyncio.sleep(1)
        seen.append(delivery.message.id)

    call = compose(step, dedup)
    deliveries = {name: Delivery(Message(topic="t", body=b"", id=name), 1, None, None) for name in "abc"}
    await asyncio.gather(call(deliveries["a"]), call(deliveries["a"]))
    assert seen == ["a"]
    await asyncio.sleep(101)
    await call(deliveries["a"])
    await call(deliveries["b"])
    await call(deliveries["c"])
    await call(deliveries["a"])  # pushed out by the other two
    assert seen == ["a", "a", "b", "c", "a"]


@virtual_time
async def test_logging_carries_level_and_trace():
    broker, seen = ScriptedBroker(), []
    logger = logging.getLogger("test.carried")
    records = []

    class Keep(logging.Handler):
        def emit(self, record):
            records.append(record.getMessage())

    keep = Keep()
    keep.addFilter(carried.CarriedLevelFilter())
    logger.addHandler(keep)
    logger.setLevel(logging.DEBUG)

    async def handler(delivery: Delivery) -> None:
        seen.append((carried.carried_level.get(), carried.trace_id.get()))

    token = carried.carried_level.set("DEBUG"), carried.trace_id.set("t\r\n1")
    await Topic(broker, "orders", middleware=[carried.send()]).send(b"secret")
    carried.carried_level.reset(token[0])
    carried.trace_id.reset(token[1])
    await Topic(broker, "orders").send(b"secret", headers={"Headrace-Log-Level": "TRACE"})
    layer = carried.receive(logger, ["A"])
    await run_until_idle(Worker(broker, "orders", handler, group="g", middleware=[layer]))
    logger.removeHandler(keep)
    assert seen == [("DEBUG", "t\\r\\n1"), (None, None)]
    assert len(records) == 1
    assert "processed orders" in records[0]
    assert "secret" not in records[0]


@virtual_time
async def test_by_topic():
    sent = []

    async def many(batch):
        sent.extend(batch)
        return [Receipt() for _ in batch]

    async def one(message):
        sent.append(message)
        return Receipt()

    layer = by_topic({"b": [Base64Encode()]})
    await compose(one, layer)(Message(topic="a", body=b"x"))
    await compose(one, layer)(Message(topic="b", body=b"x"))
    results = await layer.many([Message(topic=topic, body=b"x") for topic in "aba"], many)
    assert [message.body for message in sent] == [b"x", b"eA==", b"x", b"x", b"eA=="]
    assert len(results) == 3


def test_compose_first_is_outermost():
    async def step(item):
        return [item]

    def layer(name):
        async def around(item, call_next):
            return [name, *await call_next(item + name), name]

        return around

    assert asyncio.run(compose(step, layer("a"), layer("b"))("x")) == ["a", "b", "xab", "b", "a"]
