"""Topic and writer over the scripted engine."""

import asyncio
from dataclasses import dataclass

import pytest

from headrace.core.broker import PublishOptions, Receipt
from headrace.core.errors import (
    ClosedError,
    CodecError,
    ConfigError,
    Fault,
    PublishError,
    UnsupportedError,
    UsageError,
)
from headrace.core.message import Message
from headrace.flow import Topic
from headrace.flow.compose import SendRewrite
from headrace.flow.middleware import Base64Encode, by_topic
from headrace.testing.virtual import virtual_time
from tests.unit.flow.scripted import ScriptedBroker


@dataclass
class Order:
    id: int


@virtual_time
async def test_values_become_messages():
    broker = ScriptedBroker()
    topic = Topic(broker, "orders")
    await topic.send(b"", key="k")
    await topic.send("täxt", headers={"A": ["1", "2"]}, id="me")
    await topic.send({"id": 1})
    await topic.send(Order(2), headers={"content-type": "x/y"})
    first, second, third, fourth = broker.stored["orders"]
    assert (first.body, first.key, first.headers.get("content-type")) == (b"", b"k", None)
    assert (second.body, second.id, second.headers.get_all("a")) == ("täxt".encode(), "me", ("1", "2"))
    assert (third.body, third.headers.get("Content-Type")) == (b'{"id":1}', "application/json")
    assert (fourth.body, fourth.headers.get_all("Content-Type")) == (b'{"id":2}', ("x/y",))
    assert first.time.year == 2000


@virtual_time
async def test_messages_of_its_own_name_only():
    broker = ScriptedBroker()
    topic = Topic(broker, "orders")
    await topic.send(Message(topic="", body=b"1"))
    with pytest.raises(UsageError):
        await topic.send(Message(topic="other", body=b"2"))
    results = await topic.publish_batch([Message(topic="other", body=b"2"), Message(topic="orders", body=b"3")])
    assert isinstance(results[0], PublishError)
    assert results[0].fault is Fault.REJECTED
    assert isinstance(results[1], Receipt)
    assert [message.body for message in broker.stored["orders"]] == [b"1", b"3"]
    assert await topic.send_many([]) == []


@virtual_time
async def test_what_cannot_be_sent_is_refused_before():
    topic = Topic(ScriptedBroker(), "orders")
    with pytest.raises(ConfigError):
        Topic(ScriptedBroker(), "a b")
    with pytest.raises(ConfigError):
        await topic.send(object())
    with pytest.raises(CodecError):
        await topic.send("\ud800")
    with pytest.raises(UnsupportedError):
        await topic.send(b"x", options=PublishOptions(ttl=5))
    with pytest.raises(UnsupportedError):
        await topic.send(b"x", options=PublishOptions(delay=901))
    with pytest.raises(ConfigError):
        await topic.send(b"x", headers={"A": "b\r\nc"})


async def mark(message, call_next):
    if message.body == b"bad":
        raise ValueError("bad body")
    return await call_next(message.replace(headers=message.headers.add("Mark", "1")))


@virtual_time
async def test_middleware_goes_around_each_send():
    broker = ScriptedBroker()
    topic = Topic(broker, "orders", middleware=[mark])
    await topic.send(b"1", options=PublishOptions(delay=5))
    results = await topic.send_many([b"2", b"bad", b"3"])
    assert [message.headers.get("mark") for message in broker.stored["orders"]] == ["1"] * 3
    assert isinstance(results[1].__cause__, ValueError)
    assert results[1].fault is Fault.REJECTED
    assert not topic.capabilities.batch_key_order
    assert Topic(broker, "orders").capabilities.batch_key_order


class Refuses(SendRewrite):
    def change(self, message):
        if message.body == b"bad":
            raise ValueError("bad body")
        return message.replace(body=message.body + b"!")


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("layers", [[Refuses()], [Refuses(), Base64Encode()], [by_topic({"orders": [Refuses()]})], []])
@virtual_time
async def test_nothing_of_its_key_overtakes_a_failed_item(in_order, layers):
    broker = ScriptedBroker(batch_key_order=in_order)
    topic = Topic(broker, "orders", middleware=layers)
    wrong = {} if layers else {"topic": "elsewhere"}
    batch = [
        Message(**{"topic": "", "body": body, "key": key, **(wrong if body == b"bad" else {})})
        for body, key in ((b"1", b"k"), (b"bad", b"k"), (b"2", b"k"), (b"3", b"other"), (b"4", None), (b"5", b"k"))
    ]
    results = await topic.publish_batch(batch)
    faults = [result.fault if isinstance(result, PublishError) else None for result in results]
    late = Fault.UNAVAILABLE if in_order else None
    assert faults == [None, Fault.REJECTED, late, None, None, late]
    assert [result.message_id for result in results if isinstance(result, PublishError)] == [
        message.id for message, fault in zip(batch, faults, strict=True) if fault is not None
    ]
    stored = [message.id for message in broker.stored["orders"]]
    assert stored == [message.id for message, fault in zip(batch, faults, strict=True) if fault is None]


@virtual_time
async def test_side_by_side_keeps_the_order_of_a_key():
    broker, running, most = ScriptedBroker(), 0, 0

    async def slow(message, call_next):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(int(message.body) % 3)
        running -= 1
        return await call_next(message)

    topic = Topic(broker, "orders", middleware=[slow])
    await topic.publish_batch([Message(topic="", body=b"%d" % n, key=b"%d" % (n % 80)) for n in range(200)])
    by_key = {}
    for message in broker.stored["orders"]:
        by_key.setdefault(message.key, []).append(int(message.body))
    assert most == 64
    assert all(numbers == sorted(numbers) for numbers in by_key.values())


@virtual_time
async def test_a_function_may_be_the_publisher():
    sent = []

    async def publish(message):
        sent.append(message)
        return Receipt()

    topic = Topic(publish, "orders")
    assert await topic.send(b"x") == Receipt()
    assert await topic.send_many([b"y"]) == [Receipt()]
    with pytest.raises(UnsupportedError):
        await topic.send(b"x", options=PublishOptions(timeout=1))
    assert len(sent) == 2


@virtual_time
async def test_writer_concatenates():
    broker = ScriptedBroker()
    topic = Topic(broker, "orders")
    data = bytearray(b"id\n")
    async with topic.writer(key="k", headers={"A": "1"}) as writer:
        assert writer.write(data) == 3
        data[:] = b"xxx"
        writer.write(memoryview(b"7"))
        writer.add_header("B", "2")
        writer.set_header("A", "3")
    (message,) = broker.stored["orders"]
    assert (message.body, message.key, message.headers.items()) == (b"id\n7", b"k", (("A", "3"), ("B", "2")))
    assert writer.message == message
    assert writer.receipt is not None
    for call in (lambda: writer.write(b"x"), lambda: writer.add_header("a", "b")):
        with pytest.raises(ClosedError):
            call()
    with pytest.raises(ClosedError):
        await writer.close()


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError, KeyboardInterrupt])
def test_writer_discards_what_a_block_that_raises_wrote(error):
    broker = virtual_time(_writing)(error)
    assert broker.stored["orders"] == []


async def _writing(error):
    broker = ScriptedBroker()
    writer = Topic(broker, "orders").writer()
    try:
        async with writer:
            writer.write(b"x")
            raise error
    except error:
        assert writer.closed
    return broker


@virtual_time
async def test_writer_sends_an_empty_message_and_keeps_what_failed():
    broker = ScriptedBroker()
    topic = Topic(broker, "orders")
    async with topic.writer():
        pass
    assert broker.stored["orders"][0].body == b""
    broker.refuse = [PublishError("down")]
    writer = topic.writer(id="mine")
    writer.write(b"x")
    with pytest.raises(PublishError):
        await writer.close()
    assert writer.closed
    await topic.send(writer.message)
    assert broker.stored["orders"][1].id == "mine"
