"""StreamBroker on the embedded engine: topics, groups, what it holds, what it refuses."""

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from headrace.core.broker import Expect, PublishOptions, Receipt, Start, SubscribeOptions, TopicOptions
from headrace.core.delivery import Position
from headrace.core.errors import ClosedError, ConfigError, Fault, PublishError, UnsupportedError, UsageError
from headrace.core.headers import Headers
from headrace.core.message import Message
from headrace.embedded import open as open_embedded
from headrace.streams.broker import StreamBroker
from headrace.streams.config import AckPolicy, ConsumerConfig, StreamConfig, StreamMessage
from headrace.streams.errors import (
    ConsumerNotFoundError,
    MessageTooLargeError,
    NoStreamResponseError,
    StreamNameInUseError,
    StreamNotFoundError,
    SubjectOverlapError,
    WrongLastSequenceError,
)
from headrace.streams.joining import durable_name
from headrace.streams.subjects import validate_consumer_name
from headrace.testing.virtual import virtual_time


@asynccontextmanager
async def broker(**options):
    async with open_embedded(":memory:") as streams, StreamBroker(streams, **options) as made:
        yield made


def message(topic="a.b", body=b"x", **fields):
    return Message(topic=topic, body=body, **fields)


GROUP = SubscribeOptions(group="g")


async def publish(made, *bodies, topic="a.b"):
    return [await made.publish(message(topic, body)) for body in bodies]


@virtual_time
async def test_publishing_declares_the_topic_by_its_first_token():
    async with broker() as made:
        receipt = await made.publish(message("orders.new"))
        assert receipt == Receipt(position=Position("orders", 1))
        assert hash(receipt) == hash(Receipt(position=Position("orders", 1)))
        assert receipt.attributes() == {
            "messaging.system": "headrace",
            "headrace.stream": "orders",
            "headrace.sequence": 1,
        }
        info = await (await made.streams.stream("orders")).info()
        assert list(info.config.subjects) == ["orders", "orders.>"]
        assert (await made.publish(message("orders"))).position == Position("orders", 2)


@virtual_time
async def test_a_stream_that_covers_the_topic_is_taken():
    async with broker() as made:
        await made.streams.create_stream(StreamConfig(name="ALL", subjects=("x.*",)))
        assert (await made.publish(message("x.y"))).position == Position("ALL", 1)


@virtual_time
async def test_without_create_nothing_is_declared():
    async with broker(create=False) as made:
        with pytest.raises(NoStreamResponseError) as caught:
            await made.publish(message(id="mine"))
        assert (caught.value.fault, caught.value.message_id) == (Fault.UNAVAILABLE, "mine")
        (result,) = await made.publish_batch([message()])
        assert isinstance(result, NoStreamResponseError)
        with pytest.raises(StreamNotFoundError):
            async with made.subscribe("a.b", GROUP):
                pass


@virtual_time
async def test_a_clash_raises_and_alters_nothing():
    async with broker() as made:
        await made.streams.create_stream(StreamConfig(name="a", subjects=("other",)))
        with pytest.raises(StreamNameInUseError):
            await made.declare("a.b")
        await made.streams.create_stream(StreamConfig(name="B", subjects=("b.x",)))
        with pytest.raises(SubjectOverlapError):
            await made.declare("b.y")
        with pytest.raises(PublishError) as caught:
            await made.publish(message("b.y"))
        assert caught.value.fault is Fault.UNAVAILABLE
        good, bad = await made.publish_batch([message("b.x"), message("b.y")])
        assert isinstance(good, Receipt)
        assert isinstance(bad, PublishError)
        assert [name async for name in made.streams.stream_names()] == ["B", "a"]


@virtual_time
async def test_a_wildcard_is_declared_only_below_a_token():
    async with broker() as made:
        with pytest.raises(StreamNotFoundError):
            await made.declare("*.b")
        await made.streams.create_stream(StreamConfig(name="B", subjects=("*",)))
        await made.declare("*")


@virtual_time
async def test_declare_compares_what_is_asked_for():
    async with broker() as made:
        await made.declare("a", TopicOptions(max_age=60, max_bytes=10_000, dedup_window=30))
        await made.declare("a", TopicOptions(max_age=timedelta(minutes=1)))
        await made.declare("a.b")
        with pytest.raises(ConfigError, match="max_age"):
            await made.declare("a", TopicOptions(max_age=61))
        with pytest.raises(UnsupportedError, match="partitions"):
            await made.declare("a", TopicOptions(partitions=2))


@virtual_time
async def test_a_stream_deleted_meanwhile_is_declared_again():
    async with broker() as made:
        await publish(made, b"1")
        await made.streams.delete_stream("a")
        await publish(made, b"2")
        await made.streams.delete_stream("a")
        results = await made.publish_batch([message(body=b"%d" % n, key=b"k") for n in range(3)])
        assert all(isinstance(each, Receipt) for each in results), results


@virtual_time
async def test_deliveries_are_what_was_sent():
    async with broker() as made:
        sent = message(key=b"k", headers=Headers({"A": "1", "B": b"\xff"}), id="i", time_ns=123_000)
        await made.publish(sent)
        async with made.subscribe("a.b", GROUP) as subscription:
            (delivery,) = await subscription.pull(5, 1)
            assert delivery.message == sent
            assert (delivery.attempt, delivery.order_key, delivery.group) == (1, b"k", "g")
            assert delivery.position == Position("a", 1)
            assert delivery.attributes() == {
                "messaging.system": "headrace",
                "headrace.stream": "a",
                "headrace.consumer": "g@a=2Eb",
                "headrace.sequence": 1,
                "headrace.num_delivered": 1,
            }
            assert delivery.start()
            delivery.ack()
            await subscription.flush()
            assert await subscription.backlog() == 0


@virtual_time
async def test_one_id_on_two_topics_is_two_messages():
    async with broker() as made:
        assert not (await made.publish(message("a.x", id="42"))).duplicate
        assert not (await made.publish(message("a.y", id="42"))).duplicate
        assert (await made.publish(message("a.y", id="42"))).duplicate


@virtual_time
async def test_expectations():
    async with broker() as made:
        first = await made.publish(message(id="one"))
        await made.publish(message(), PublishOptions(expect=Expect(last=first.position, last_id="one")))
        with pytest.raises(WrongLastSequenceError) as caught:
            await made.publish(message(id="m"), PublishOptions(expect=Expect(last_for_topic=1)))
        assert (caught.value.fault, caught.value.message_id) == (Fault.REJECTED, "m")
        other = PublishOptions(expect=Expect(last=Position("other", 2)))
        with pytest.raises(PublishError):
            await made.publish(message(), other)


@virtual_time
async def test_what_is_wrong_with_one_message_touches_no_other():
    async with broker() as made:
        limit = made.capabilities.max_body
        assert limit == made.streams.max_payload - 64 * 1024
        large = message(body=bytes(limit + 1), key=b"k", id="large")
        with pytest.raises(MessageTooLargeError) as caught:
            await made.publish(large)
        assert (caught.value.limit, caught.value.message_id) == (limit, "large")
        first, bad, behind, free = await made.publish_batch(
            [message(key=b"k"), large, message(key=b"k"), message(key=b"other")]
        )
        assert isinstance(first, Receipt)
        assert isinstance(free, Receipt)
        assert (bad.fault, behind.fault) == (Fault.REJECTED, Fault.UNAVAILABLE)
        assert await made.publish_batch([]) == []


@virtual_time
async def test_unsupported_is_said_before_any_io():
    async with broker() as made:
        with pytest.raises(UnsupportedError, match="delay"):
            await made.publish(message(), PublishOptions(delay=1))
        with pytest.raises(UnsupportedError, match="one topic"):
            made.subscribe(["a", "b"])
        with pytest.raises(ConfigError):
            made.subscribe([])
        assert [name async for name in made.streams.stream_names()] == []


@virtual_time
async def test_closed_is_closed_and_the_engine_stays_open():
    async with open_embedded(":memory:") as streams:
        made = StreamBroker(streams)
        await made.publish(message())
        async with made.subscribe("a.b", GROUP) as subscription:
            await made.aclose()
            await made.aclose()
            with pytest.raises(ClosedError):
                await subscription.pull(1, 0)
        for call in (made.publish(message()), made.publish_batch([message()]), made.declare("a")):
            with pytest.raises(ClosedError):
                await call
        with pytest.raises(ClosedError):
            made.subscribe("a.b")
        await streams.publish("a.b", b"")


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (None, [b"1", b"2", b"3"]),
        (Start.all(), [b"1", b"2", b"3"]),
        (Start.last(), [b"3"]),
        (Start.at(2), [b"2", b"3"]),
        (Start.at(Position("a", 3)), [b"3"]),
        (Start.at(0), [b"1", b"2", b"3"]),
        (Start.new(), []),
    ],
)
@virtual_time
async def test_where_a_new_group_begins(start, expected):
    async with broker() as made:
        await publish(made, b"1", b"2", b"3")
        async with made.subscribe("a.b", SubscribeOptions(group="g", start=start)) as subscription:
            got = await subscription.pull(10, 1)
            assert [each.message.body for each in got] == expected
            for each in got:
                each.ack()
        async with made.subscribe("a.b", SubscribeOptions(group="g", start=Start.all())) as subscription:
            assert await subscription.pull(10, 1) == []


@virtual_time
async def test_a_group_is_one_durable_per_topic():
    async with broker() as made:
        await publish(made, b"1")
        async with made.subscribe("a.b", GROUP), made.subscribe("a.c", GROUP):
            names = [name async for name in (await made.streams.stream("a")).consumer_names()]
        assert sorted(names) == sorted([durable_name("g", "a.b"), durable_name("g", "a.c")])


def test_durable_names_are_legal_and_distinct():
    assert durable_name("g", "a.b") == "g@a=2Eb"
    long = [durable_name("g" * 128, topic + "ü" * 100) for topic in ("x.", "y.")]
    assert len(set(long)) == 2
    for name in long:
        assert validate_consumer_name(name) == name


@virtual_time
async def test_an_existing_group_must_fit():
    async with broker() as made:
        await made.declare("a.b")
        config = ConsumerConfig(durable=durable_name("g", "a.b"), ack_policy=AckPolicy.NONE, filter_subject="a.b")
        await made.streams.create_consumer("a", config)
        with pytest.raises(ConfigError, match="group 'g'"):
            async with made.subscribe("a.b", GROUP):
                pass


@virtual_time
async def test_another_lease_is_taken_over_and_none_keeps_it():
    async with broker() as made:
        await made.declare("a.b")
        async with made.subscribe("a.b", SubscribeOptions(group="g", lease=10)) as subscription:
            assert subscription.lease == 10
        async with made.subscribe("a.b", GROUP) as subscription:
            assert subscription.lease == 10
        async with made.subscribe("a.b", SubscribeOptions(group="g", lease=20)) as subscription:
            assert subscription.lease == 20
        info = await (await made.streams.consumer("a", durable_name("g", "a.b"))).info()
        assert info.config.waits == (timedelta(seconds=20),)


@virtual_time
async def test_create_false_needs_topic_and_group():
    async with broker() as made:
        await made.declare("a.b")
        with pytest.raises(ConsumerNotFoundError):
            async with made.subscribe("a.b", SubscribeOptions(group="g", create=False)):
                pass


@virtual_time
async def test_a_private_subscription_sees_what_comes_and_leaves_nothing():
    async with broker() as made:
        await publish(made, b"old")
        async with made.subscribe("a.b") as subscription:
            await publish(made, b"new")
            got = await subscription.pull(5, 1)
            assert [each.message.body for each in got] == [b"new"]
        assert [name async for name in (await made.streams.stream("a")).consumer_names()] == []


@virtual_time
async def test_a_private_consumer_that_went_is_made_again():
    async with broker() as made:
        await publish(made, b"old")
        async with made.subscribe("a.b") as subscription:
            await publish(made, b"1")
            (first,) = await subscription.pull(1, 1)
            await made.streams.delete_consumer("a", subscription.consumer.name)
            await publish(made, b"2", b"3")
            first.ack()
            got = [*await subscription.pull(5, 1), *await subscription.pull(5, 1)]
            assert [each.message.body for each in got] == [b"2", b"3"]


@virtual_time
async def test_no_more_than_max_in_flight_are_handed_out():
    async with broker() as made:
        await publish(made, *(b"%d" % n for n in range(9)))
        options = SubscribeOptions(group="g", max_in_flight=3)
        async with made.subscribe("a.b", options) as subscription:
            first = list(await subscription.pull(10, 1))
            first += await subscription.pull(10, 0) if len(first) < 3 else []
            assert len(first) == 3
            assert await subscription.pull(10, 1) == []
            waiting = asyncio.create_task(subscription.pull(10, 5))
            await asyncio.sleep(1)
            with pytest.raises(UsageError):
                await subscription.pull(1, 0)
            first[0].ack()
            assert [each.message.body for each in await waiting] == [b"3"]


@virtual_time
async def test_leaving_gives_back_what_was_not_started():
    async with broker() as made:
        await publish(made, b"1", b"2", b"3")
        options = SubscribeOptions(group="g", lease=30)
        async with made.subscribe("a.b", options) as subscription:
            got = await subscription.pull(10, 1)
            assert got[0].start()
            assert await subscription.backlog() == 0
        assert not got[1].start()
        async with made.subscribe("a.b", options) as subscription:
            again = await subscription.pull(10, 1)
            assert [each.message.body for each in again] == [b"2", b"3"]
            assert [each.attempt for each in again] == [2, 2]
            for each in again:
                each.ack()
            await asyncio.sleep(31)
            (last,) = await subscription.pull(10, 1)
            assert last.message.body == b"1"


@virtual_time
async def test_a_lost_lease_is_not_started_and_a_late_settle_counts():
    async with broker() as made:
        await publish(made, b"1", b"2")
        async with made.subscribe("a.b", SubscribeOptions(group="g", lease=5, prefetch=0)) as subscription:
            lost, late = [*await subscription.pull(1, 1), *await subscription.pull(1, 1)]
            assert late.start()
            await asyncio.sleep(6)
            assert not lost.start()
            late.ack()
            assert subscription.late_settles == 1
            assert await subscription.backlog() >= 1


@virtual_time
async def test_keep_and_extend_hold_a_lease():
    async with broker() as made:
        await publish(made, b"1", b"2")
        async with made.subscribe("a.b", SubscribeOptions(group="g", lease=5)) as subscription:
            got = await subscription.pull(2, 1)
            for _ in range(3):
                await asyncio.sleep(4)
                subscription.keep()
            assert got[0].start()
            await asyncio.sleep(4)
            got[0].extend()
            await asyncio.sleep(2)
            assert got[0].start()
            assert not got[1].start()


@virtual_time
async def test_outcomes():
    async with broker() as made:
        await publish(made, b"1", b"2")
        async with made.subscribe("a.b", GROUP) as subscription:
            first, second = await subscription.pull(2, 1)
            first.nak(3)
            second.reject("bad")
            await subscription.flush()
            started = asyncio.get_running_loop().time()
            (again,) = await subscription.pull(2, 10)
            assert (again.message.body, again.attempt) == (b"1", 2)
            assert asyncio.get_running_loop().time() - started >= 2.9


@virtual_time
async def test_wildcards_and_foreign_messages():
    async with broker() as made:
        await made.declare("a.>")
        await made.streams.publish("a.x", b"raw", headers={"A": "1"})
        await made.streams.publish_msg(StreamMessage("a.y", b"id", msg_id="theirs"))
        async with made.subscribe("a.*", GROUP) as subscription:
            one, two = await subscription.pull(5, 1)
            assert (one.message.topic, one.message.id, one.message.headers.get("a")) == ("a.x", "a:1", "1")
            assert (two.message.topic, two.message.id) == ("a.y", "theirs")


@virtual_time
async def test_a_stopped_subscription_keeps_the_wait_of_its_pulls():
    async with broker() as made:
        await publish(made, b"1")
        async with made.subscribe("a.b", GROUP) as subscription:
            await subscription.stop()
            started = asyncio.get_running_loop().time()
            assert await subscription.pull(5, 3) == []
            assert asyncio.get_running_loop().time() - started == pytest.approx(3)
