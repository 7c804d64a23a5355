"""Every server line that is promised: what it can works, what is too new for it is refused by name before it is asked.

2.10, 2.11, 2.12 and the current one (jetstream.md, first lines; 3.3.4).
"""

import asyncio
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from headrace import Message, Topic, Worker, connect
from headrace.core.broker import Expect, PublishOptions, SubscribeOptions
from headrace.core.errors import ConfigError, UnsupportedError
from headrace.jetstream.options import JetStreamOptions
from headrace.streams.config import (
    Compression,
    ConsumerConfig,
    ConsumerLimits,
    DeliverPolicy,
    FetchOptions,
    GetBatch,
    OrderedConsumerConfig,
    PriorityPolicy,
    PullOptions,
    PurgeOptions,
    RePublish,
    Rollup,
    StreamConfig,
    StreamMessage,
    StreamPublishOptions,
    StreamSource,
    SubjectTransform,
)
from headrace.streams.errors import (
    AtomicBatchError,
    BadRequestError,
    ConsumerConfigError,
    ConsumerDoesNotExistError,
    ConsumerNotFoundError,
    MessageNotFoundError,
    MessageTtlError,
    NoStreamResponseError,
    StreamNotFoundError,
    WrongLastSequenceError,
)
from headrace.testing.nats import free_port
from tests.integration.jetstream.consuming import PATIENCE, bodies, durable, fill, opened, run, stream_of
from tests.integration.jetstream.versions import CURRENT, OLDER, Running, knows, refusal, server_of, works_since

LATER = datetime(2099, 1, 1, tzinfo=UTC)
GROUPS = {"priority_groups": ["g"], "priority_policy": PriorityPolicy.OVERFLOW}
PINNED = {"priority_groups": ["g"], "priority_policy": PriorityPolicy.PINNED_CLIENT, "pinned_ttl": 60.0}
PRIORITIZED = {"priority_groups": ["g"], "priority_policy": PriorityPolicy.PRIORITIZED}
STREAM_OPTIONS = [
    ((2, 11), "allow_message_ttl", {"allow_message_ttl": True}),
    (
        (2, 11),
        "subject_delete_marker_ttl",
        {"subject_delete_marker_ttl": 60.0},
    ),
    ((2, 12), "allow_atomic", {"allow_atomic": True}),
    ((2, 12), "allow_message_counter", {"allow_message_counter": True}),
    ((2, 12), "allow_message_schedules", {"allow_message_schedules": True}),
    ((2, 14), "allow_batched", {"allow_batched": True}),
]
CONSUMER_OPTIONS = [
    ((2, 11), "pause_until", {"pause_until": LATER}),
    ((2, 11), "priority_groups", GROUPS),
    ((2, 11), "(priority_groups|pinned_ttl)", PINNED),
]


@pytest.fixture(scope="module")
def running():
    with ExitStack() as stack:
        yield Running(stack)


@pytest.fixture(params=[*OLDER, CURRENT])
def url(request, running):
    return running.url(request.param)


async def collected(messages):
    return [each async for each in messages]


async def found(call):
    """(sequence, body) of each, to compare ways of reading."""
    return [(each.sequence, each.data) for each in await call]


def test_a_server_says_who_it_is(running):
    async def story(version):
        async with opened(running.url(version)) as js:
            info = js.connection.server_info
            assert version in {CURRENT, info.version}
            assert info.version_tuple[0] == 2
            assert js.capabilities.ttl is knows(js, (2, 11))
            assert (await js.account_info()).streams == 0

    for version in (*OLDER, CURRENT):
        run(story(version))


def test_publishing(url):
    async def story():
        async with stream_of(url, allow_rollup=True) as (js, stream):
            subject = f"{stream.name}.x"
            assert (await js.publish(subject, b"1", headers={"A": "b"})).sequence == 1
            futures = [await js.publish_async(subject, b"%d" % n, msg_id=f"{n}") for n in range(2, 102)]
            assert [(await each).sequence for each in futures] == list(range(2, 102))
            acks = await js.publish_many([StreamMessage(subject, b"%d" % n, msg_id=f"{n}") for n in range(52, 152)])
            assert [(each.sequence, each.duplicate) for each in acks] == [(n, n < 102) for n in range(52, 152)]
            assert (await js.publish(subject, msg_id="151")).duplicate
            with pytest.raises(WrongLastSequenceError):
                await js.publish(subject, options=StreamPublishOptions(expect=Expect(last=150)))
            expect = Expect(last=151, last_for_topic=151, last_id="151")
            await js.publish(subject, options=StreamPublishOptions(expect=expect, expect_stream=stream.name))
            await js.publish(subject, options=StreamPublishOptions(rollup=Rollup.SUBJECT))
            assert [each.sequence for each in await stream.read()] == [153]
            with pytest.raises(NoStreamResponseError):
                await js.publish("nobody.there", options=StreamPublishOptions(retry_attempts=0))

    run(story())


def test_consuming(url):
    async def story():
        async with stream_of(url, 20) as (_, stream):
            consumer = await durable(stream, ack_wait=60.0, filter_subjects=[f"{stream.name}.x", f"{stream.name}.y"])
            first, second, third = await consumer.fetch(3, max_wait=PATIENCE)
            await second.in_progress()
            await second.nak()
            await third.term("no good")
            await first.double_ack()  # answered behind those
            assert (await consumer.next(max_wait=PATIENCE)).metadata.num_delivered == 2
            async with consumer.messages(PullOptions(max_messages=5, stop_after=7)) as messages:
                got = [msg async for msg in messages]
            assert bodies(got) == [3, 4, 5, 6, 7, 8, 9]
            for msg in got:
                await msg.ack()
            handled = asyncio.Queue()

            async def handle(msg):
                await msg.double_ack()
                handled.put_nowait(int(msg.data))

            async with consumer.consume(handle, PullOptions(max_bytes=1_000)):
                assert [await handled.get() for _ in range(10)] == list(range(10, 20))
            assert await consumer.fetch_no_wait(5) == []
            info = await consumer.info()
            assert (info.num_pending, info.num_ack_pending) == (0, 1)

    run(story())


def test_ordered_reading(url):
    async def story():
        async with stream_of(url, 30) as (js, stream):
            reader = await stream.ordered_consumer(OrderedConsumerConfig(filter_subjects=[f"{stream.name}.x"]))
            assert bodies(await reader.fetch(5, max_wait=PATIENCE)) == [0, 1, 2, 3, 4]
            async with reader.messages(PullOptions(stop_after=15, max_messages=4)) as messages:
                got = [await anext(messages) for _ in range(5)]
                await js.delete_consumer(stream.name, reader.name)
                got += [msg async for msg in messages]
            assert bodies(got) == list(range(5, 20))
            assert bodies(await reader.fetch(10, max_wait=PATIENCE)) == list(range(20, 30))

    run(story())


@pytest.mark.parametrize("direct", [False, True])
def test_reading_what_is_stored(url, direct):
    """By a batch get where the server can, else by its other ways: it reads the same."""

    async def story():
        async with stream_of(url, 600, allow_direct=direct) as (js, stream):
            await stream.delete_msg(300)
            await stream.secure_delete_msg(301)
            await js.publish(f"{stream.name}.y", b"y", headers={"A": "b"})
            left = [(n, b"%d" % (n - 1)) for n in range(1, 601) if n not in {300, 301}]
            assert await found(stream.read(limit=1_000)) == [*left, (601, b"y")]
            assert await found(stream.read(subject="*.x", start=290, offset=5, limit=10)) == left[294:304]
            assert await found(collected(stream.get_batch(GetBatch(batch=599, subject="*.x")))) == left
            some = GetBatch(batch=9, start_sequence=299, max_bytes=1)
            assert await found(collected(stream.get_batch(some))) == [left[298]]
            with pytest.raises(MessageNotFoundError):
                await collected(stream.get_batch(GetBatch(batch=1, start_sequence=602)))
            last = await stream.get_last_msg_for_subject("*.y")
            assert (last.sequence, last.headers.get("A")) == (601, "b")
            assert (await stream.get_msg(300, subject="*.x")).sequence == 302
            with pytest.raises(MessageNotFoundError):
                await stream.get_msg(300)
            info = await stream.info(deleted_details=True, subject_filter=">")
            assert (info.state.deleted, len(info.state.subjects)) == ((300, 301), 2)
            assert await stream.purge(PurgeOptions(subject="*.x", keep=1)) == 597

    run(story())


def test_the_last_of_many_subjects(url):
    async def story():
        async with stream_of(url, 3, allow_direct=True) as (js, stream):
            last = []

            async def ask():
                last.extend(await collected(stream.get_last_for([">"])))

            if await works_since(js, (2, 11), "get_last_for", ask):
                assert [each.sequence for each in last] == [3]

    run(story())


def test_time_to_live(url):
    async def story():
        async with stream_of(url) as (js, stream):
            subject, ttl = f"{stream.name}.x", StreamPublishOptions(ttl=3600)
            for publish in (js.publish, js.publish_async):

                async def send(publish=publish):
                    with pytest.raises(MessageTtlError):
                        await (await publish(subject, options=ttl))

                await works_since(js, (2, 11), "ttl", send)

            async def allow():
                await js.update_stream(replace(stream.cached_info.config, allow_message_ttl=True))
                await js.publish(subject, options=ttl)
                assert (await stream.get_msg(1)).headers.get("Nats-TTL") == "3600s"

            await works_since(js, (2, 11), "allow_message_ttl", allow)

    run(story())


def test_expecting_something_of_another_subject(url):
    async def story():
        async with stream_of(url, 2) as (js, stream):
            hits, misses = (
                StreamPublishOptions(expect=Expect(last_for_topic=n), expect_subject=f"{stream.name}.x") for n in (2, 1)
            )

            async def publish():
                await js.publish(f"{stream.name}.y", options=hits)
                with pytest.raises(WrongLastSequenceError):
                    await js.publish(f"{stream.name}.y", options=misses)

            await works_since(js, (2, 11), "expect_subject", publish)

    run(story())


def test_pause_and_reset(url):
    async def story():
        async with stream_of(url, 3) as (js, stream):
            consumer = await durable(stream)

            async def pause():
                await consumer.pause(LATER)
                assert (await consumer.info()).paused
                assert await consumer.fetch_no_wait(1) == []
                await consumer.resume()

            async def unpin():
                with pytest.raises(ConsumerConfigError):
                    await consumer.unpin("g")

            async def reset():
                await consumer.reset(2)
                assert bodies(await consumer.fetch(1, max_wait=PATIENCE)) == [1]

            await works_since(js, (2, 11), "PAUSE", pause)
            await works_since(js, (2, 11), "PAUSE", consumer.resume)
            await works_since(js, (2, 11), "UNPIN", unpin)
            assert bodies(await consumer.fetch(3, max_wait=PATIENCE)) == [0, 1, 2]
            await works_since(js, (2, 14), "RESET", reset)
            assert not (await consumer.info()).paused

    run(story())


def test_priority_groups(url):
    async def story():
        async with stream_of(url, 5) as (js, stream):

            async def take(consumer, **options):
                fetched = consumer.fetch(1, max_wait=PATIENCE, options=FetchOptions(group="g", **options))
                assert len(await fetched) == 1

            async def overflow():
                consumer = await durable(stream, **GROUPS)
                await take(consumer, min_pending=2)
                with pytest.raises(ConfigError if knows(js, (2, 12)) else UnsupportedError, match="priority"):
                    await take(consumer, priority=1)

            async def pinned():
                consumer = await stream.create_consumer(ConsumerConfig(durable="pinned", **PINNED))
                await take(consumer)
                assert (await consumer.info()).priority_groups[0].pinned_client_id
                await consumer.unpin("g")

            async def prioritized():
                await take(await stream.create_consumer(ConsumerConfig(durable="p", **PRIORITIZED)), priority=1)

            await works_since(js, (2, 11), "priority_groups", overflow)
            await works_since(js, (2, 11), "priority_groups", pinned)
            if knows(js, (2, 11)):
                await works_since(js, (2, 12), "priority_policy", prioritized)

    run(story())


def test_atomic_publish(url):
    async def story():
        async with stream_of(url) as (js, stream):
            messages = [StreamMessage(f"{stream.name}.x", b"%d" % n) for n in range(3)]

            async def refused_by_the_stream():
                with pytest.raises(AtomicBatchError):
                    await js.publish_atomic(messages)

            async def publish():
                await js.update_stream(replace(stream.cached_info.config, allow_atomic=True))
                ack = await js.publish_atomic(messages)
                assert (ack.sequence, ack.batch_size) == (3, 3)

            await works_since(js, (2, 12), "publish_atomic", refused_by_the_stream)
            await works_since(js, (2, 12), "allow_atomic", publish)

    run(story())


def test_options_that_are_newer_than_some(url):
    async def story():
        async with stream_of(url) as (js, stream):
            for since, option, given in STREAM_OPTIONS:
                config = StreamConfig(name=f"{stream.name}-{option}", **given)

                async def make(config=config, given=given):
                    made = (await js.create_stream(config)).cached_info.config
                    assert all(getattr(made, name) == getattr(config, name) for name in given)

                if not await works_since(js, since, option, make):
                    for call in (js.update_stream, js.create_or_update_stream):
                        with refusal(js, option, since):
                            await call(config)
                    with pytest.raises(StreamNotFoundError):
                        await js.stream(config.name)
            for since, option, given in CONSUMER_OPTIONS:
                config = ConsumerConfig(**given)
                calls = (stream.create_consumer, stream.create_or_update_consumer)
                for call in calls:
                    await works_since(js, since, option, lambda call=call, config=config: call(config))
                with pytest.raises(ConsumerDoesNotExistError if knows(js, since) else UnsupportedError):
                    await stream.update_consumer(config)

    run(story())


def test_options_that_are_as_old_as_the_oldest(url):
    """All of them come back as they were set: else it would be an `UnsupportedError`."""

    async def story():
        async with opened(url) as js:
            origin = await js.create_stream(
                StreamConfig(
                    name="ORIGIN", subjects=["origin.>"], description="d", metadata={"a": "b"}, first_sequence=7,
                    compression=Compression.S2, allow_direct=True, republish=RePublish(source=">", destination="r.>"),
                    subject_transform=SubjectTransform(source="origin.*.a", destination="origin.a.{{wildcard(1)}}"),
                )
            )  # fmt: skip
            ack = await js.publish("origin.1.a")
            assert (ack.sequence, (await origin.get_msg(7)).subject) == (7, "origin.a.1")
            mirror = StreamSource(name="ORIGIN", start_sequence=7)
            await js.create_stream(StreamConfig(name="MIRROR", mirror=mirror, mirror_direct=True, allow_direct=True))
            transform = SubjectTransform(source="origin.a.*", destination="sourced.{{wildcard(1)}}")
            source = StreamSource(name="ORIGIN", subject_transforms=(transform,))
            await js.create_stream(StreamConfig(name="SOURCED", sources=[source]))
            for name in ("ORIGIN", "MIRROR", "SOURCED"):
                stream = await js.stream(name)
                async with asyncio.timeout(PATIENCE):
                    while not (copied := await stream.read()):
                        await asyncio.sleep(0.02)
                assert copied[0].subject == ("sourced.1" if name == "SOURCED" else "origin.a.1")
            limits = ConsumerLimits(max_ack_pending=50, inactive_threshold=60.0)
            await js.update_stream(replace(origin.cached_info.config, consumer_limits=limits))
            config = ConsumerConfig(
                durable="c", filter_subjects=["origin.a.>", "origin.b.>"], metadata={"a": "b"}, max_ack_pending=40,
                backoff=(1.0, 2.0), max_deliver=5, deliver_policy=DeliverPolicy.LAST_PER_SUBJECT, sample_frequency=50,
                max_request_batch=9, max_request_expires=60.0, max_request_max_bytes=1_000, inactive_threshold=30.0,
            )  # fmt: skip
            consumer = await origin.create_consumer(config)
            assert (await origin.create_consumer(config)).cached_info.created == consumer.cached_info.created
            changed = replace(config, max_deliver=7, description="changed")
            assert (await origin.update_consumer(changed)).cached_info.config.max_deliver == 7
            assert (await consumer.next(max_wait=PATIENCE)).metadata.sequence.stream == 7
            for name in ("SOURCED", "MIRROR", "ORIGIN"):
                await js.delete_stream(name)

    run(story())


def test_an_option_that_gets_lost_is_refused_and_nothing_stays(url):
    """Servers before 2.12 ignore what they do not know. Nobody told us the version that this one needs."""

    async def story():
        async with stream_of(url) as (js, stream):
            config = StreamConfig(name=f"{stream.name}-new", extra={"warp": 9})
            consumer = ConsumerConfig(durable="new", extra={"warp": 9})
            there = stream.cached_info.config
            if knows(js, (2, 12)):
                for call in (js.create_stream, js.create_or_update_stream):
                    with pytest.raises(BadRequestError, match="warp"):
                        await call(config)
                with pytest.raises(BadRequestError, match="warp"):
                    await stream.create_consumer(consumer)
            else:
                for call in (js.create_stream, js.create_or_update_stream):
                    with pytest.raises(
                        UnsupportedError, match=rf"warp of stream '{config.name}': it was deleted again"
                    ):
                        await call(config)
                for call in (stream.create_consumer, stream.create_or_update_consumer):
                    with pytest.raises(UnsupportedError, match="warp of consumer 'new': it was deleted again"):
                        await call(consumer)
                with pytest.raises(UnsupportedError, match=rf"warp of stream '{there.name}': it is as the server has"):
                    await js.update_stream(replace(there, extra={"warp": 9}))
                await stream.create_consumer(ConsumerConfig(durable="old"))
                with pytest.raises(UnsupportedError, match="warp of consumer 'old': it is as the server has it now"):
                    await stream.update_consumer(ConsumerConfig(durable="old", extra={"warp": 9}))
                assert (await js.stream(there.name)).cached_info.config == there
            with pytest.raises(StreamNotFoundError):
                await js.stream(config.name)
            with pytest.raises(ConsumerNotFoundError):
                await stream.consumer("new")

    run(story())


def test_the_broker_and_a_worker(url):
    async def story():
        async with connect(url, options=JetStreamOptions(timeout=PATIENCE)) as broker:
            topic, seen, failed, end = Topic(broker, "orders.new"), [], set(), asyncio.Event()

            async def handle(order: dict[str, int]) -> None:
                if order["id"] == 3 and not failed:
                    failed.add(3)
                    raise RuntimeError("once")
                seen.append(order["id"])
                if len(seen) == 100:
                    end.set()

            await topic.send_many([{"id": number} for number in range(100)])
            async with Worker(broker, "orders.new", handle, group="billing"):
                await asyncio.wait_for(end.wait(), PATIENCE)
            assert sorted(seen) == list(range(100))
            message = Message(topic="orders.new", body=b"x", id="one", key=b"k")
            assert not (await broker.publish(message)).duplicate
            assert (await broker.publish(message)).duplicate
            async with broker.subscribe("orders.new", SubscribeOptions(group="billing")) as subscription:
                (delivery,) = await subscription.pull(1, PATIENCE)
                assert (delivery.message.id, delivery.message.key, delivery.attempt) == ("one", b"k", 1)
                delivery.ack()
                await subscription.flush()
                assert await subscription.backlog() == 0
            brief = PublishOptions(ttl=3600)
            if knows(broker.streams, (2, 11)):
                await broker.publish(Message(topic="orders.new", body=b"y"), brief)
            else:
                with pytest.raises(UnsupportedError, match="ttl"):
                    await broker.publish(Message(topic="orders.new", body=b"y"), brief)
            await broker.streams.delete_stream("orders")

    run(story())


def test_a_server_is_upgraded_step_by_step_beneath_open_sessions(tmp_path):
    """Same store, same port, the next version: everyone goes on, and what only a newer server can is there then."""

    async def goes_on(js, stream, readers, count):
        await fill(js, stream, 5, count)
        for reader in readers:
            got = [await reader.next(timeout=PATIENCE) for _ in range(5)]
            assert bodies(got) == list(range(count, count + 5))
            for msg in got:
                await msg.double_ack()
        allow = replace(stream.cached_info.config, allow_atomic=True)
        await works_since(js, (2, 12), "allow_atomic", lambda: js.update_stream(allow))

    async def story(start):
        versions = [*OLDER, CURRENT]
        server = start(versions[0])
        async with stream_of(server.url) as (js, stream):
            consumer, history = await durable(stream), await stream.ordered_consumer(OrderedConsumerConfig())
            async with consumer.messages() as messages, history.messages() as replay:
                await goes_on(js, stream, (messages, replay), 0)
                for place, version in enumerate(versions[1:], 1):
                    before = js.connection.server_info.version_tuple
                    server.stop()
                    server = start(version)
                    while js.connection.server_info.version_tuple <= before:
                        await asyncio.sleep(0.02)
                    await goes_on(js, stream, (messages, replay), 5 * place)
            assert [each.sequence for each in await stream.read()] == list(range(1, 21))

    port = free_port()
    with ExitStack() as stack:
        run(story(lambda version: stack.enter_context(server_of(version, tmp_path, port=port))))
