"""Streams and consumers on a real server: made, changed, found, listed, read, emptied; nothing set is lost silently."""

import asyncio
import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from headrace import jetstream
from headrace.core.errors import ConfigError, UnsupportedError
from headrace.core.headers import Headers
from headrace.jetstream import JetStreamOptions
from headrace.streams.api import Stream, StreamManager
from headrace.streams.config import (
    AckPolicy,
    Compression,
    ConsumerConfig,
    ConsumerLimits,
    DeliverPolicy,
    DiscardPolicy,
    GetBatch,
    OrderedConsumerConfig,
    PriorityPolicy,
    PurgeOptions,
    ReplayPolicy,
    RePublish,
    RetentionPolicy,
    StorageType,
    StreamConfig,
    StreamSource,
    SubjectTransform,
)
from headrace.streams.errors import (
    ApiError,
    BadRequestError,
    ConsumerConfigError,
    ConsumerCreateError,
    ConsumerDoesNotExistError,
    ConsumerExistsError,
    ConsumerNotFoundError,
    InvalidConsumerNameError,
    InvalidStreamNameError,
    InvalidSubjectError,
    JetStreamNotEnabledError,
    JetStreamNotEnabledForAccountError,
    MessageDeleteError,
    MessageNotFoundError,
    PurgeError,
    ResourcesExceededError,
    StreamNameInUseError,
    StreamNotFoundError,
    StreamSealedError,
)
from headrace.testing.nats import Direction, NatsServer, Proxy, RecordingServer

PATIENCE = 20
NAMES = (f"MAN{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def server():
    with NatsServer() as running:
        yield running


def story(server, tell, **config):
    """Run `tell(js, stream)`: an open JetStream, and a stream of its own that covers its name in lower case."""

    async def run():
        async with jetstream.connect(server.url, options=JetStreamOptions(timeout=PATIENCE)) as js:
            name = next(NAMES)
            await tell(js, await js.create_stream(StreamConfig(name=name, subjects=[f"{name.lower()}.>"], **config)))

    asyncio.run(run())


async def fill(js, stream, count, *, subjects=1):
    for number in range(count):
        await js.publish(f"{stream.name.lower()}.{number % subjects}", b"%d" % (number + 1))


def numbers(messages):
    return [each.sequence for each in messages]


async def collected(messages):
    return [each async for each in messages]


# -- streams ----------------------------------------------------------------------------------------------------------


def test_it_is_a_stream_manager(server):
    async def tell(js, stream):
        assert isinstance(js, StreamManager)
        assert isinstance(stream, Stream)
        assert repr(stream) == f"ServerStream({stream.name!r})"

    story(server, tell)


def test_create_again_update_and_find(server):
    async def tell(js, stream):
        config = stream.cached_info.config
        assert (await js.create_stream(config)).name == stream.name
        with pytest.raises(StreamNameInUseError):
            await js.create_stream(replace(config, max_messages=5))
        updated = await js.update_stream(replace(config, max_messages=5))
        assert updated.cached_info.config.max_messages == 5
        assert (await js.create_or_update_stream(config)).cached_info.config.max_messages is None
        other = StreamConfig(name=next(NAMES))
        with pytest.raises(StreamNotFoundError):
            await js.update_stream(other)
        made = await js.create_or_update_stream(other)
        assert made.cached_info.config.subjects == (other.name,)
        assert (await js.stream(other.name)).cached_info.created == made.cached_info.created
        await js.delete_stream(other.name)
        for call in (js.stream, js.delete_stream):
            with pytest.raises(StreamNotFoundError):
                await call(other.name)

    story(server, tell)


def test_names_by_subject(server):
    async def tell(js, stream):
        assert await js.stream_name_by_subject(f"{stream.name.lower()}.x") == stream.name
        with pytest.raises(StreamNotFoundError):
            await js.stream_name_by_subject("nobody.has.this")
        assert await collected(js.stream_names(subject=f"{stream.name.lower()}.>")) == [stream.name]
        assert stream.name in await collected(js.stream_names())
        (info,) = await collected(js.list_streams(subject=f"{stream.name.lower()}.a"))
        assert info.config == stream.cached_info.config
        assert stream.name in [each.config.name async for each in js.list_streams()]

    story(server, tell)


FULL = {
    "description": "all of it",
    "max_consumers": 5,
    "max_messages": 100,
    "max_bytes": 100_000,
    "max_age": timedelta(hours=1),
    "max_messages_per_subject": 7,
    "max_message_size": 1_000,
    "discard": DiscardPolicy.NEW,
    "discard_new_per_subject": True,
    "storage": StorageType.MEMORY,
    "duplicate_window": timedelta(seconds=10),
    "deny_delete": True,
    "deny_purge": True,
    "allow_direct": True,
    "metadata": {"a": "b"},
    "republish": RePublish(source="full.x", destination="rep.x", headers_only=True),
    "first_sequence": 10,
    "consumer_limits": ConsumerLimits(inactive_threshold=100.0, max_ack_pending=50),
    "allow_message_ttl": True,
    "allow_atomic": True,
    "subject_transform": SubjectTransform(source="full.y", destination="full.z"),
}


@pytest.mark.parametrize("changed", [{}, {"compression": Compression.S2, "storage": StorageType.FILE}])
def test_every_option_comes_back(server, changed):
    async def tell(js, _):
        config = StreamConfig(**{"name": next(NAMES), "subjects": ["full.>"], **FULL, **changed})
        made = await js.create_stream(config)
        assert made.cached_info.config == config
        assert (await js.update_stream(made.cached_info.config)).cached_info.config == config
        await js.delete_stream(config.name)

    story(server, tell)


@pytest.mark.parametrize(
    "config",
    [
        {"no_ack": True},
        {"retention": RetentionPolicy.INTEREST},
        {"subject_delete_marker_ttl": timedelta(seconds=60), "allow_rollup": True, "allow_message_ttl": True},
        {"allow_message_counter": True},
        {"allow_message_schedules": True, "allow_rollup": True},
        {"allow_batched": True},
        {
            "sources": [
                StreamSource(name="A", start_sequence=3, filter_subject="a.*"),
                StreamSource(name="B", domain="d"),
            ]
        },
        {"sources": [StreamSource(name="A", subject_transforms=[SubjectTransform(source="a", destination="b")])]},
        {"sources": [StreamSource(name="A", start_time=datetime(2026, 1, 1, 1, 1, 1, 123_456, tzinfo=UTC))]},
        {"mirror": StreamSource(name="A")},
    ],
)
def test_rarer_options_are_accepted(server, config):
    async def tell(js, _):
        name = next(NAMES)
        made = await js.create_stream(StreamConfig(name=name, **config))
        for field, value in config.items():
            got = getattr(made.cached_info.config, field)
            if field == "sources":
                assert [each.name for each in got] == [each.name for each in value]
            else:
                assert got == value
        await js.delete_stream(name)

    story(server, tell)


def test_mirror_and_sources(server):
    async def tell(js, stream):
        await fill(js, stream, 3)
        mirror = await js.create_stream(StreamConfig(name=next(NAMES), mirror=StreamSource(name=stream.name)))
        sourced = await js.create_stream(StreamConfig(name=next(NAMES), sources=[StreamSource(name=stream.name)]))
        for copy in (mirror, sourced):
            for _ in range(PATIENCE * 20):
                info = await copy.info()
                if info.state.messages == 3:
                    break
                await asyncio.sleep(0.05)
            assert [each.data for each in await copy.read()] == [b"1", b"2", b"3"]
        assert (await mirror.info()).mirror.name == stream.name
        (source,) = (await sourced.info()).sources
        assert (source.name, source.lag) == (stream.name, 0)

    story(server, tell)


def test_a_field_of_a_newer_server_survives_an_update(server):
    """`persist_mode` is known to this server and not to us."""

    async def tell(js, _):
        name = next(NAMES)
        body = msgspec.json.encode({"name": name, "persist_mode": "async"})
        await js.connection.request(f"$JS.API.STREAM.CREATE.{name}", body, timeout=PATIENCE)
        stream = await js.stream(name)
        assert stream.cached_info.config.extra == {"persist_mode": "async"}
        changed = await js.update_stream(replace(stream.cached_info.config, description="changed"))
        config = changed.cached_info.config
        assert (config.description, config.extra) == ("changed", {"persist_mode": "async"})

    story(server, tell)


def test_an_option_that_does_not_come_back_is_refused_and_nothing_stays(server):
    """A server sets mirror_direct as the origin's allow_direct is, whatever was asked for."""

    async def tell(js, stream):
        config = StreamConfig(name=next(NAMES), mirror=StreamSource(name=stream.name), mirror_direct=True)
        with pytest.raises(UnsupportedError, match=r"did not keep mirror_direct of stream .* deleted again"):
            await js.create_stream(config)
        with pytest.raises(StreamNotFoundError):
            await js.stream(config.name)

    story(server, tell)


def test_an_update_that_does_not_come_back_deletes_nothing(server):
    """A server takes no pause_until in an update: that is what pause() is for."""

    async def tell(js, stream):
        config = ConsumerConfig(durable="c")
        await stream.create_consumer(config)
        later = replace(config, pause_until=datetime(2100, 1, 1, tzinfo=UTC))
        with pytest.raises(UnsupportedError, match=r"pause_until of consumer 'c': it is as the server has it now"):
            await stream.update_consumer(later)
        with pytest.raises(UnsupportedError, match="pause_until"):
            await stream.create_or_update_consumer(later)
        assert (await stream.consumer("c")).cached_info.paused is False

    story(server, tell)


def test_what_somebody_else_has_just_made_is_not_deleted(server):
    """The answer to a create does not say whether it made anything."""

    async def tell(js, stream):
        name = next(NAMES)
        config = StreamConfig(name=name, mirror=StreamSource(name=stream.name))
        await js.publish(f"{stream.name.lower()}.x", b"1")
        with Proxy(server.port) as proxy:
            async with jetstream.connect(proxy.url, options=JetStreamOptions(timeout=PATIENCE)) as slow:
                await slow.connection.flush()
                proxy.freeze(Direction.TO_SERVER)
                late = asyncio.create_task(slow.create_stream(replace(config, mirror_direct=True)))
                await asyncio.sleep(0.05)  # it is on its way
                await js.create_stream(config)
                proxy.thaw()
                with pytest.raises(UnsupportedError, match=r"did not keep mirror_direct .* as the server has it now"):
                    await late
        assert (await js.stream(name)).cached_info.config.mirror.name == stream.name

    story(server, tell)


def test_what_can_only_be_read_and_what_is_for_push(server):
    async def tell(js, stream):
        with pytest.raises(UnsupportedError, match="template_owner"):
            await js.create_stream(StreamConfig(name="T", template_owner="x"))
        with pytest.raises(UnsupportedError, match="rate_limit"):
            await stream.create_consumer(ConsumerConfig(durable="c", rate_limit=5))
        with pytest.raises(ApiError) as caught:
            await js.create_stream(StreamConfig(name="T", extra={"bogus": 1}))
        assert caught.value.err_code == 10025

    story(server, tell)


def test_sealed_and_denied(server):
    async def tell(js, stream):
        await fill(js, stream, 2)
        config = stream.cached_info.config
        sealed = await js.update_stream(replace(config, sealed=True))
        assert sealed.cached_info.config.deny_delete
        with pytest.raises(StreamSealedError):
            await js.publish(f"{stream.name.lower()}.x")
        with pytest.raises((MessageDeleteError, StreamSealedError)):
            await stream.delete_msg(1)
        with pytest.raises((PurgeError, StreamSealedError)):
            await stream.purge()

    story(server, tell, max_age=3_600)

    async def denied(js, stream):
        await fill(js, stream, 1)
        with pytest.raises(MessageDeleteError):
            await stream.delete_msg(1)
        with pytest.raises(PurgeError):
            await stream.purge()

    story(server, denied, deny_delete=True, deny_purge=True)


def test_names_and_subjects_are_refused_before_a_byte():
    async def tell(recording):
        async with jetstream.connect(recording.url) as js:
            await js.connection.flush()
            before = recording.received
            for name in ("", "a.b", "a b", "a*", "a>", "a/b", "a\\b", "a\r\nPUB x 0", "\x00", "x" * 256):
                for call in (js.stream, js.delete_stream, lambda bad: anext(js._consumers.names(bad))):
                    with pytest.raises(InvalidStreamNameError):
                        await call(name)
                for call in (js.consumer, js.delete_consumer):
                    with pytest.raises(InvalidConsumerNameError):
                        await call("S", name)
                    with pytest.raises(InvalidStreamNameError):
                        await call(name, "c")
                with pytest.raises(InvalidStreamNameError):
                    await js.create_consumer(name, ConsumerConfig())
                with pytest.raises(InvalidStreamNameError):
                    await js.ordered_consumer(name, OrderedConsumerConfig())
            for subject in ("", "a b", "a..b", ".a", "a\r\nb", "foo*"):
                with pytest.raises(InvalidSubjectError):
                    await js.stream_name_by_subject(subject)
                with pytest.raises(InvalidSubjectError):
                    await anext(js.stream_names(subject=subject))
            await js.connection.flush()
            sent = recording.received[len(before) :]
            assert b"PUB" not in sent

    with RecordingServer() as recording:
        asyncio.run(tell(recording))


def test_account_info(server):
    async def tell(js, stream):
        await fill(js, stream, 1)
        info = await js.account_info()
        assert info.streams >= 1
        assert info.storage > 0
        assert info.api.total > 0
        assert info.limits.max_streams is None

    story(server, tell)


# -- consumers --------------------------------------------------------------------------------------------------------


def test_create_update_and_find_consumers(server):
    async def tell(js, stream):
        config = ConsumerConfig(durable="c", filter_subject=f"{stream.name.lower()}.*", ack_wait=9, backoff=[9, 10])
        made = await stream.create_consumer(config)
        assert (made.name, made.stream) == ("c", stream.name)
        assert (await js.create_consumer(stream.name, config)).cached_info.created == made.cached_info.created
        with pytest.raises(ConsumerExistsError):
            await stream.create_consumer(replace(config, max_deliver=5))
        updated = await js.update_consumer(stream.name, replace(made.cached_info.config, max_deliver=5))
        assert updated.cached_info.config.max_deliver == 5
        with pytest.raises(ConsumerCreateError, match="ack policy"):
            await stream.update_consumer(replace(config, ack_policy=AckPolicy.NONE))
        with pytest.raises(ConsumerDoesNotExistError):
            await stream.update_consumer(ConsumerConfig(durable="d"))
        assert (await js.create_or_update_consumer(stream.name, ConsumerConfig(durable="d"))).name == "d"
        assert (await js.consumer(stream.name, "d")).name == "d"
        await js.delete_consumer(stream.name, "d")
        for call in (stream.consumer, stream.delete_consumer):
            with pytest.raises(ConsumerNotFoundError):
                await call("d")
        with pytest.raises(StreamNotFoundError):
            await js.create_consumer("NOWHERE", config)
        with pytest.raises(StreamNotFoundError):
            await js.ordered_consumer("NOWHERE", OrderedConsumerConfig())

    story(server, tell)


def test_an_ephemeral_consumer_has_a_name_and_may_be_made_again(server):
    async def tell(js, stream):
        unnamed = await stream.create_consumer(ConsumerConfig())
        assert unnamed.name
        assert unnamed.cached_info.config.durable is None
        config = ConsumerConfig(name="e")
        made = await stream.create_consumer(config)
        assert made.cached_info.config.inactive_threshold == timedelta(seconds=5)
        assert (await stream.create_consumer(config)).cached_info.created == made.cached_info.created
        with pytest.raises(ConsumerExistsError):
            await stream.create_consumer(replace(config, max_deliver=3))
        await stream.create_consumer(ConsumerConfig(name="f", inactive_threshold=60.0))
        with pytest.raises(ConsumerExistsError):
            await stream.create_consumer(ConsumerConfig(name="f"))

    story(server, tell)


@pytest.mark.parametrize(
    "fields",
    [
        {"description": "x", "max_deliver": 5, "backoff": (timedelta(seconds=1), timedelta(seconds=2))},
        {
            "deliver_policy": DeliverPolicy.BY_START_SEQUENCE,
            "start_sequence": 2,
            "replay_policy": ReplayPolicy.ORIGINAL,
        },
        {
            "deliver_policy": DeliverPolicy.BY_START_TIME,
            "start_time": datetime(2026, 1, 1, 2, 3, 4, 567_891, tzinfo=UTC),
        },
        {"max_waiting": 3, "max_ack_pending": None, "headers_only": True, "memory_storage": True, "replicas": 1},
        {"max_request_batch": 4, "max_request_expires": timedelta(seconds=10), "max_request_max_bytes": 1_000},
        {"inactive_threshold": timedelta(seconds=100), "metadata": {"a": "b"}, "sample_frequency": 50},
        {"pause_until": datetime(2100, 1, 1, tzinfo=UTC)},
        {
            "priority_groups": ("g",),
            "priority_policy": PriorityPolicy.PINNED_CLIENT,
            "pinned_ttl": timedelta(seconds=9),
        },
        {"priority_groups": ("g",), "priority_policy": PriorityPolicy.PRIORITIZED},
        {"ack_policy": AckPolicy.ALL},
        {"ack_policy": AckPolicy.NONE, "max_ack_pending": None},
        {"filter_subjects": ("a", "b.>")},
    ],
)
def test_every_option_of_a_consumer_comes_back(server, fields):
    async def tell(js, stream):
        made = await stream.create_consumer(ConsumerConfig(durable="c", **fields))
        for name, value in fields.items():
            assert getattr(made.cached_info.config, name) == value
        assert made.cached_info.config.metadata == fields.get("metadata")
        config = made.cached_info.config
        assert (await stream.create_consumer(config)).cached_info.config == config

    story(server, tell)


def test_limits_of_the_stream_fill_in_what_is_not_set(server):
    async def tell(js, stream):
        made = await stream.create_consumer(ConsumerConfig(name="c"))
        config = made.cached_info.config
        assert (config.max_ack_pending, config.inactive_threshold) == (50, timedelta(seconds=100))

    story(server, tell, consumer_limits=ConsumerLimits(inactive_threshold=100, max_ack_pending=50))


def test_lists_over_many_pages():
    """Names come 1024 a page, infos 256."""

    async def tell(server):
        async with jetstream.connect(server.url, options=JetStreamOptions(timeout=PATIENCE)) as js:
            count = 1_030
            for first in range(0, count, 100):
                names = [f"s{number}" for number in range(first, min(first + 100, count))]
                configs = [StreamConfig(name=name, storage=StorageType.MEMORY) for name in names]
                await asyncio.gather(*map(js.create_stream, configs))
            wanted = {f"s{number}" for number in range(count)}
            found = await collected(js.stream_names())
            assert (set(found), len(found)) == (wanted, count)
            infos = [each.config.name async for each in js.list_streams()]
            assert (set(infos), len(infos)) == (wanted, count)
            stream = await js.stream("s1")
            for number in range(260):
                await stream.create_consumer(ConsumerConfig(durable=f"c{number}", memory_storage=True))
            names = [each.name async for each in stream.list_consumers()]
            assert (len(names), set(names)) == (260, set(await collected(stream.consumer_names())))

    with NatsServer() as server:
        asyncio.run(tell(server))


# -- messages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direct", [False, True])
def test_get(server, direct):
    """With and without direct get a message is the same, byte for byte."""
    headers = Headers([("A", "1"), ("a", "zwei ä"), ("Empty", "")])
    bodies = [b"", bytes(range(256)), b"NATS/1.0 503\r\n\r\n"]

    async def tell(js, stream):
        subject = stream.name.lower()
        for body in bodies:
            await js.publish(f"{subject}.a.ä", body, headers=headers, msg_id=f"id-{len(body)}")
            await js.publish(f"{subject}.b", body)
        for place, body in enumerate(bodies):
            message = await stream.get_msg(2 * place + 1)
            assert (message.subject, message.data, message.sequence) == (f"{subject}.a.ä", body, 2 * place + 1)
            assert message.headers.items() == (("Nats-Msg-Id", f"id-{len(body)}"), *headers.items())
            assert abs(message.time - datetime.now(UTC)) < timedelta(minutes=5)
            plain = await stream.get_msg(2 * place + 2)
            assert (plain.data, plain.headers.items()) == (body, ())
        assert (await stream.get_msg(2, subject=f"{subject}.a.*")).sequence == 3
        assert (await stream.get_msg(0, subject=f"{subject}.>")).sequence == 1
        assert (await stream.get_last_msg_for_subject(f"{subject}.b")).sequence == 6
        assert (await stream.get_last_msg_for_subject(f"{subject}.a.>")).sequence == 5
        for call in (
            lambda: stream.get_msg(7),
            lambda: stream.get_msg(1 << 70),
            lambda: stream.get_msg(6, subject=f"{subject}.a.*"),
            lambda: stream.get_last_msg_for_subject(f"{subject}.c"),
            lambda: stream.get_last_msg_for_subject(f"{subject}.c.*"),
        ):
            with pytest.raises(MessageNotFoundError) as missing:
                await call()
            assert (missing.value.code, missing.value.err_code) == (404, 10037)
        with pytest.raises(BadRequestError) as refused:
            await stream.get_msg(0)
        assert (refused.value.code, refused.value.err_code) == (400, 10003)
        for bad in (-1, True, "1", None):
            with pytest.raises(ConfigError):
                await stream.get_msg(bad)

    story(server, tell, allow_direct=direct)


@pytest.mark.parametrize("direct", [False, True])
def test_get_what_was_republished(server, direct):
    """It brings headers of the names that the server adds in a direct get: both stay apart."""

    async def tell(js, origin):
        name = next(NAMES)
        stream = await js.create_stream(StreamConfig(name=name, subjects=["copy.>"], allow_direct=direct))
        await js.publish(f"{origin.name.lower()}.x", b"body", headers={"A": "b"})
        for _ in range(PATIENCE * 20):
            if (await stream.info()).state.messages:
                break
            await asyncio.sleep(0.05)
        message = await stream.get_msg(1)
        assert (message.subject, message.sequence, message.data) == (f"copy.{origin.name.lower()}.x", 1, b"body")
        assert message.headers.get("A") == "b"
        assert message.headers.get("Nats-Stream") == origin.name
        assert message.headers.get("Nats-Subject") == f"{origin.name.lower()}.x"
        (read,) = await stream.read()
        assert read == message
        await js.delete_stream(name)

    story(server, tell, republish=RePublish(source=">", destination="copy.>"))


def test_direct_get_taken_back_behind_our_back(server):
    async def tell(js, stream):
        await fill(js, stream, 1)
        await js.update_stream(replace(stream.cached_info.config, allow_direct=False))
        assert (await stream.get_msg(1)).data == b"1"

    story(server, tell, allow_direct=True)


def test_delete_and_secure_delete(server):
    async def tell(js, stream):
        await fill(js, stream, 4)
        await stream.delete_msg(2)
        await stream.secure_delete_msg(3)
        info = await stream.info(deleted_details=True)
        assert info.state.deleted == (2, 3)
        assert stream.cached_info == info
        for call in (stream.delete_msg, stream.secure_delete_msg):
            for sequence, code in ((2, 10043), (9, 10057)):
                with pytest.raises(MessageDeleteError) as caught:
                    await call(sequence)
                assert caught.value.err_code == code

    story(server, tell)


def test_purge(server):
    async def tell(js, stream):
        await fill(js, stream, 10, subjects=2)
        subject = stream.name.lower()
        assert await stream.purge(PurgeOptions(subject=f"{subject}.0", keep=2)) == 3
        assert await stream.purge(PurgeOptions(subject=f"{subject}.1", sequence=5)) == 2
        assert numbers(await stream.read()) == [6, 7, 8, 9, 10]
        assert await stream.purge(PurgeOptions(sequence=8)) == 2
        assert await stream.purge() == 3
        info = await stream.info(subject_filter=">")
        assert (info.state.messages, info.state.subjects, info.state.last_sequence) == (0, {}, 10)

    story(server, tell)


WAYS = {
    "batch": {"allow_direct": True},
    "consumer": {},
    "work queue": {"retention": RetentionPolicy.WORKQUEUE},
}


@pytest.mark.parametrize("way", WAYS)
def test_read(server, way):
    """The same pages, whichever way the stream lets us read."""

    async def tell(js, stream):
        assert await stream.read() == []
        await fill(js, stream, 20, subjects=3)
        await asyncio.sleep(0.02)
        middle = datetime.now(UTC)
        await asyncio.sleep(0.02)
        await fill(js, stream, 5, subjects=3)
        await stream.delete_msg(4)
        subject = f"{stream.name.lower()}.1"
        every = [each for each in range(1, 26) if each != 4]
        assert numbers(await stream.read()) == every
        assert numbers(await stream.read(start=0, limit=2)) == [1, 2]
        assert numbers(await stream.read(start=5, limit=4)) == [5, 6, 7, 8]
        assert numbers(await stream.read(offset=20)) == every[20:]
        assert numbers(await stream.read(subject=subject)) == [2, 5, 8, 11, 14, 17, 20, 22, 25]
        assert numbers(await stream.read(subject=subject, start=4, offset=2, limit=3)) == [11, 14, 17]
        assert numbers(await stream.read(start=middle)) == [21, 22, 23, 24, 25]
        assert numbers(await stream.read(start=middle, subject=subject, offset=1)) == [25]
        assert await stream.read(start=26) == []
        assert await stream.read(start=1 << 60) == []
        assert await stream.read(start=datetime(2100, 1, 1, tzinfo=UTC)) == []
        assert await stream.read(offset=1_000) == []
        assert await stream.read(subject="nobody.has.this") == []
        assert (await stream.read(start=5, limit=1))[0] == await stream.get_msg(5)
        assert await collected(stream.consumer_names()) == []
        for bad in ({"limit": 0}, {"limit": 10_001}, {"offset": -1}, {"start": -1}, {"start": datetime(2026, 1, 1)}):
            with pytest.raises(ConfigError):
                await stream.read(**bad)

    story(server, tell, **WAYS[way])


def test_read_where_no_consumer_more_is_allowed(server):
    async def tell(js, stream):
        await stream.create_consumer(ConsumerConfig(durable="c"))
        await fill(js, stream, 5)
        assert numbers(await stream.read(offset=1)) == [2, 3, 4, 5]
        assert numbers(await collected(stream.get_batch(GetBatch(batch=2)))) == [1, 2]

    story(server, tell, max_consumers=1)


@pytest.mark.parametrize("way", ["batch", "consumer"])
def test_read_and_get_many(server, way):
    """More than is asked for at once."""

    async def tell(js, stream):
        futures = [await js.publish_async(f"{stream.name.lower()}.{number % 2}", b"x") for number in range(2_500)]
        for future in futures:
            await future
        assert numbers(await stream.read(limit=10_000)) == list(range(1, 2_501))
        assert numbers(await stream.read(offset=1_500, limit=700)) == list(range(1_501, 2_201))
        assert len(await collected(stream.get_batch(GetBatch(batch=2_300)))) == 2_300
        on_one = GetBatch(batch=9_999, subject=f"{stream.name.lower()}.1", start_sequence=101)
        assert numbers(await collected(stream.get_batch(on_one))) == list(range(102, 2_501, 2))

    story(server, tell, **WAYS[way])


@pytest.mark.parametrize("way", WAYS)
def test_get_batch(server, way):
    async def tell(js, stream):
        with pytest.raises(MessageNotFoundError):
            await collected(stream.get_batch(GetBatch(batch=1)))
        await fill(js, stream, 9, subjects=3)
        await asyncio.sleep(0.02)
        middle = datetime.now(UTC)
        await asyncio.sleep(0.02)
        await fill(js, stream, 3)
        subject = stream.name.lower()
        for options, found in (
            ({"batch": 3}, [1, 2, 3]),
            ({"batch": 99, "start_sequence": 8}, [8, 9, 10, 11, 12]),
            ({"batch": 2, "subject": f"{subject}.1"}, [2, 5]),
            ({"batch": 99, "start_time": middle}, [10, 11, 12]),
            ({"batch": 99, "max_bytes": 1}, [1]),
            ({"batch": 99, "max_bytes": 2 * len(f"{subject}.0") + 2}, [1, 2]),
        ):
            assert numbers(await collected(stream.get_batch(GetBatch(**options)))) == found, options
        for options in ({"start_sequence": 13}, {"subject": "nobody.has.this"}):
            with pytest.raises(MessageNotFoundError):
                await collected(stream.get_batch(GetBatch(batch=5, **options)))

    story(server, tell, **WAYS[way])


def test_get_last_for(server):
    async def tell(js, stream):
        subject = stream.name.lower()
        with pytest.raises(MessageNotFoundError):
            await collected(stream.get_last_for([f"{subject}.*"]))
        with pytest.raises(MessageNotFoundError) as missing:
            await collected(stream.get_last_for([f"{subject}.*"], up_to_sequence=5))
        assert (missing.value.code, missing.value.err_code) == (404, 10037)
        await fill(js, stream, 10, subjects=4)
        for subjects, options, found in (
            ([f"{subject}.*"], {}, [7, 8, 9, 10]),
            ([f"{subject}.0", f"{subject}.2"], {}, [7, 9]),
            ([f"{subject}.0", f"{subject}.0"], {}, [9]),
            ([">"], {"up_to_sequence": 6}, [3, 4, 5, 6]),
            ([">"], {"up_to_sequence": 1_000}, [7, 8, 9, 10]),
            ([">"], {"batch": 2}, [7, 8]),
        ):
            assert numbers(await collected(stream.get_last_for(subjects, **options))) == found, (subjects, options)
        with pytest.raises(MessageNotFoundError):
            await collected(stream.get_last_for(["nobody.has.this"]))
        for bad in ([], "text", ["a..b"]):
            with pytest.raises(ConfigError):
                stream.get_last_for(bad)
        for bad in ({"up_to_sequence": 0}, {"batch": 0}, {"batch": True}):
            with pytest.raises(ConfigError):
                stream.get_last_for([">"], **bad)

    story(server, tell, allow_direct=True)


def test_get_last_for_too_many_and_without_direct_get(server):
    async def many(js, stream):
        futures = [await js.publish_async(f"{stream.name.lower()}.{number}") for number in range(1_025)]
        for future in futures:
            await future
        with pytest.raises(ApiError) as caught:
            await collected(stream.get_last_for([">"]))
        assert caught.value.code == 413
        some = [f"{stream.name.lower()}.{number}" for number in range(1_024)]
        assert len(await collected(stream.get_last_for(some))) == 1_024

    story(server, many, allow_direct=True)

    async def without(js, stream):
        with pytest.raises(UnsupportedError, match="allow_direct"):
            await collected(stream.get_last_for([">"]))

    story(server, without)


def test_leaving_a_batch_early_leaves_nothing(server):
    async def tell(js, stream):
        await fill(js, stream, 5)
        async for message in stream.get_batch(GetBatch(batch=5)):
            assert message.sequence == 1
            break
        asking = asyncio.create_task(stream.read())
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert not js._api.waiting
        assert numbers(await stream.read()) == [1, 2, 3, 4, 5]

    story(server, tell, allow_direct=True)


def test_limits_of_an_account_are_typed_errors_and_the_rest_goes_on():
    config = """
    no_auth_user: u
    accounts: {
        A: { jetstream: {max_streams: 1, max_consumers: 1, max_file: 20000}, users: [{user: u, password: p}] }
        B: { users: [{user: b, password: b}] }
    }
    """

    async def tell(server):
        async with jetstream.connect(server.url) as js:
            limits = (await js.account_info()).limits
            assert (limits.max_streams, limits.max_consumers, limits.max_storage) == (1, 1, 20_000)
            with pytest.raises(ResourcesExceededError):
                await js.create_stream(StreamConfig(name="A", max_bytes=50_000))
            stream = await js.create_stream(StreamConfig(name="A"))
            with pytest.raises(ApiError) as caught:
                await js.create_stream(StreamConfig(name="B"))
            assert caught.value.err_code == 10027
            await stream.create_consumer(ConsumerConfig(durable="a"))
            with pytest.raises(ConsumerConfigError):
                await stream.create_consumer(ConsumerConfig(durable="b"))
            for _ in range(2):
                await js.publish("A", bytes(8_000))
            with pytest.raises(ResourcesExceededError):
                await js.publish("A", bytes(8_000))
            assert numbers(await stream.read()) == [1, 2]
            assert await stream.purge() == 2
            await js.publish("A", bytes(8_000))
        async with jetstream.connect(server.url.replace("//", "//b:b@")) as js:
            with pytest.raises(JetStreamNotEnabledForAccountError):
                await js.account_info()

    with NatsServer(config=config) as server:
        asyncio.run(tell(server))


def test_a_server_without_streams():
    async def tell(server):
        async with jetstream.connect(server.url) as js:
            with pytest.raises(JetStreamNotEnabledError):
                await js.account_info()
            with pytest.raises(JetStreamNotEnabledError):
                await js.stream("S")

    with NatsServer(jetstream=False) as server:
        asyncio.run(tell(server))
