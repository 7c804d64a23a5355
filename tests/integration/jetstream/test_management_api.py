"""The JetStream API: errors by their number, nonsense, pages, time-outs, traces, and where its requests go."""

import asyncio
import logging
from datetime import UTC, datetime

import pytest

from headrace import jetstream
from headrace.core.errors import (
    BrokerTimeoutError,
    ClosedError,
    ConfigError,
    ConnectionLostError,
    PublishError,
    UnsupportedError,
)
from headrace.jetstream import ClientTrace, JetStream, JetStreamOptions
from headrace.nats.connection import Connection
from headrace.nats.options import ConnectionOptions
from headrace.streams.config import ConsumerConfig, GetBatch, OrderedConsumerConfig, PurgeOptions, StreamConfig
from headrace.streams.errors import (
    ERROR_CLASSES,
    ApiError,
    JetStreamNotEnabledError,
    MessageDeleteError,
    PurgeError,
    StreamError,
)
from headrace.testing.nats import NatsServer
from tests.integration.jetstream.fake import PATIENCE, fake, until

STATE = {"messages": 0, "bytes": 0, "first_seq": 0, "last_seq": 0}
INFO = {"config": {"name": "S", "subjects": ["s"]}, "created": "2026-01-01T00:00:00Z", "state": STATE}


@pytest.fixture(scope="module")
def server():
    with NatsServer() as running:
        yield running


def test_every_err_code_maps(server):
    """Each code of the table, and an unknown one, through a request."""

    def answer(tail, body):
        return {"error": {"code": 400, "err_code": int(tail.rpartition(".")[2]), "description": "maximum of text"}}

    async def ask_all():
        async with fake(server.url, answer) as (streams, _):
            for number, kind in {**ERROR_CLASSES, 10999: ApiError}.items():
                with pytest.raises(StreamError) as caught:
                    await streams.stream(str(number))
                error = caught.value
                assert type(error) is kind, number
                assert (error.code, error.err_code, error.description) == (400, number, "maximum of text")
                assert issubclass(kind, PublishError) == isinstance(error, PublishError)

    asyncio.run(ask_all())


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"no json",
        b"\xff\xfe",
        b"NaN",
        b'{"created": NaN}',
        b"[]",
        b"5",
        b"null",
        b"{" * 10,
        b"[" * 200_000,
        b'{"a":' * 200_000,
        {},
        {"error": 5},
        {"error": {"code": "400"}},
        {"error": {"code": 400, "err_code": 1.5}},
        {"error": {"code": 400, "description": {}}},
        {**INFO, "created": "now"},
        {**INFO, "state": {}},
        {**INFO, "config": {"name": "S", "max_msgs": "5"}},
        {**INFO, "config": None},
        {**INFO, "state": {**STATE, "messages": 1e70}},
    ],
)
def test_nonsense_is_a_stream_error(server, said):
    async def ask():
        async with fake(server.url, lambda *_: said) as (streams, _):
            with pytest.raises(StreamError) as caught:
                await streams.stream("S")
            assert not isinstance(caught.value, ApiError) or caught.value.err_code is None
            with pytest.raises(StreamError):
                [each async for each in streams.list_streams()]
            with pytest.raises(StreamError):
                await streams.account_info()

    asyncio.run(ask())


@pytest.mark.parametrize(
    ("tail", "said"),
    [
        ("STREAM.PURGE.S", {}),
        ("STREAM.MSG.DELETE.S", {"success": 1}),
        ("STREAM.MSG.GET.S", {}),
        ("STREAM.MSG.GET.S", {"message": {"seq": 1, "subject": "s", "time": "0001-01-01T00:00:00Z"}}),
        ("STREAM.MSG.GET.S", {"message": {"seq": 1, "subject": "s", "time": "2026-01-01T00:00:00Z", "data": "!"}}),
        ("STREAM.MSG.GET.S", {"message": {"seq": 1, "subject": "s", "time": "2026-01-01T00:00:00Z", "hdrs": "ä"}}),
    ],
)
def test_nonsense_about_messages(server, tail, said):
    calls = {
        "STREAM.PURGE.S": lambda stream: stream.purge(),
        "STREAM.MSG.DELETE.S": lambda stream: stream.delete_msg(1),
        "STREAM.MSG.GET.S": lambda stream: stream.get_msg(1),
    }

    async def ask():
        async with fake(server.url, lambda asked, _: INFO if asked == "STREAM.INFO.S" else said) as (streams, asked):
            with pytest.raises(StreamError):
                await calls[tail](await streams.stream("S"))
            assert asked.asked[-1][0] == tail

    asyncio.run(ask())


def test_no_success_is_an_error(server):
    async def ask():
        said = {"success": False, "purged": 3}
        async with fake(server.url, lambda asked, _: INFO if asked == "STREAM.INFO.S" else said) as (streams, _):
            stream = await streams.stream("S")
            with pytest.raises(PurgeError):
                await stream.purge()
            with pytest.raises(MessageDeleteError):
                await stream.delete_msg(1)
            with pytest.raises(MessageDeleteError):
                await stream.secure_delete_msg(1)
            with pytest.raises(StreamError):
                await streams.delete_stream("S")

    asyncio.run(ask())


DIRECT = b"Nats-Stream: S\r\nNats-Subject: s\r\nNats-Sequence: %d\r\nNats-Time-Stamp: 2026-01-01T00:00:00Z\r\n"
MORE = b"Nats-Num-Pending: 1\r\nNats-Last-Sequence: %d\r\n"
END = b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 0\r\nNats-Last-Sequence: %d\r\n\r\n"


@pytest.mark.parametrize(
    "frames",
    [
        [DIRECT % 1],  # nothing says what was before it
        [DIRECT % 1 + MORE % 0, DIRECT % 3 + MORE % 2],  # a gap
        [DIRECT % 1 + MORE % 0, DIRECT % 2 + b"Nats-Num-Pending: 1\r\nNats-Last-Sequence: x\r\n"],
        [DIRECT % 1 + MORE % 0, DIRECT % 2 + MORE % 1, DIRECT % 3 + MORE % 2],  # more than asked for
        [b"Nats-Sequence: 1\r\n"],
        [b"Other: 1\r\n"],
        [DIRECT.replace(b"%d", b"99999999999999999999999999")],
        [DIRECT.replace(b"2026", b"then") % 1 + MORE % 0],
        [b""],
    ],
)
def test_hostile_batches(server, frames):
    config = {"name": "S", "subjects": ["s"], "allow_direct": True}

    def answer(tail, body):
        if tail == "STREAM.INFO.S":
            return {**INFO, "config": config}
        for frame in frames[:-1]:
            asked[0].say(frame, b"x")
        return frames[-1], b"x"

    async def ask():
        async with fake(server.url, answer) as (streams, faked):
            asked.append(faked)
            stream = await streams.stream("S")
            with pytest.raises(StreamError):
                [each async for each in stream.get_batch(GetBatch(batch=2))]

    asked = []
    asyncio.run(ask())


@pytest.mark.parametrize("killed", [True, False])
def test_a_batch_that_never_ends(killed):
    """A message came, and nothing more: the connection is lost, or it is a time-out."""
    config = {"name": "S", "subjects": ["s"], "allow_direct": True}

    def answer(tail, body):
        return {**INFO, "config": config} if tail == "STREAM.INFO.S" else (DIRECT % 1 + MORE % 0, b"x")

    async def ask(server):
        async with fake(server.url, answer, timeout=PATIENCE if killed else 0.1) as (streams, asked):
            stream = await streams.stream("S")
            asking = asyncio.create_task(stream.read())
            await until(lambda: len(asked.asked) == 2)
            if killed:
                server.kill()
            with pytest.raises(ConnectionLostError if killed else BrokerTimeoutError):
                await asking
            assert not streams._api.waiting

    with NatsServer() as server:
        asyncio.run(ask(server))


def test_page_loops_end(server):
    """A total that is never reached, and pages that never end."""

    def empty_pages(tail, body):
        return {"total": 10**18, "streams": ["a", "b"] if not body["offset"] else []}

    def endless(tail, body):
        return {"total": 10**18, "streams": [f"s{body['offset']}"]}

    async def list_both():
        async with fake(server.url, empty_pages) as (streams, asked):
            assert [name async for name in streams.stream_names()] == ["a", "b"]
            assert [body["offset"] for _, body in asked.asked] == [0, 2]
        async with fake(server.url, endless) as (streams, _):
            with pytest.raises(StreamError, match="no end"):
                [name async for name in streams.stream_names()]
        async with fake(server.url, lambda *_: {"streams": ["a"]}) as (streams, _):
            with pytest.raises(StreamError, match="total"):
                [name async for name in streams.stream_names()]

    asyncio.run(list_both())


def test_pages_are_merged(server):
    """Names, lists and the subjects of an info, each over two pages; the filter goes along with each."""
    entry = {"stream_name": "S", "name": "c", "created": "2026-01-01T00:00:00Z", "config": {"name": "c"}}
    entry |= {"delivered": {"consumer_seq": 0, "stream_seq": 0}, "ack_floor": {"consumer_seq": 0, "stream_seq": 0}}
    pages = {
        "STREAM.NAMES": [{"streams": ["a", "b"]}, {"streams": ["c"]}],
        "STREAM.LIST": [{"streams": [INFO, INFO]}, {"streams": [INFO]}],
        "CONSUMER.NAMES.S": [{"consumers": ["a", "b"]}, {"consumers": ["c"]}],
        "CONSUMER.LIST.S": [{"consumers": [entry, entry]}, {"consumers": [entry]}],
        "STREAM.INFO.S": [
            {**INFO, "state": {**STATE, "subjects": {"a": 1, "b": 2}}},
            {**INFO, "state": {**STATE, "subjects": {"c": 3}}},
        ],
    }

    def answer(tail, body):
        if body is None:
            return INFO
        return {**pages[tail][0 if not body["offset"] else 1], "total": 3}

    async def list_all():
        async with fake(server.url, answer) as (streams, asked):
            stream = await streams.stream("S")
            assert [name async for name in streams.stream_names(subject="s.>")] == ["a", "b", "c"]
            assert asked.asked[-2:] == [
                ("STREAM.NAMES", {"offset": 0, "subject": "s.>"}),
                ("STREAM.NAMES", {"offset": 2, "subject": "s.>"}),
            ]
            assert len([each async for each in streams.list_streams()]) == 3
            assert [name async for name in stream.consumer_names()] == ["a", "b", "c"]
            assert len([each async for each in stream.list_consumers()]) == 3
            assert (await stream.info(subject_filter=">")).state.subjects == {"a": 1, "b": 2, "c": 3}

    asyncio.run(list_all())


def test_no_answer_is_a_time_out(server):
    async def ask():
        async with fake(server.url, lambda *_: None, timeout=0.05) as (streams, _):
            with pytest.raises(BrokerTimeoutError, match=r"fake.api.INFO: no answer within 0.05 s"):
                await streams.account_info()
            assert not streams._api.waiting
            assert not streams.connection.replies.waiting

    asyncio.run(ask())


def test_nobody_answers(server):
    async def ask():
        async with jetstream.connect(server.url, options=JetStreamOptions(domain="nowhere")) as streams:
            with pytest.raises(JetStreamNotEnabledError, match=r"\$JS.nowhere.API.INFO") as caught:
                await streams.account_info()
            assert caught.value.code == 503

    asyncio.run(ask())


def test_closing_ends_requests(server):
    async def ask():
        async with fake(server.url, lambda *_: None) as (streams, asked):
            asking = asyncio.create_task(streams.account_info())
            await until(lambda: asked.asked)
            await streams.aclose()
            await streams.aclose()
            with pytest.raises(ClosedError):
                await asking
            assert streams.connection.connected, "it was borrowed"
            for call in (streams.account_info, lambda: streams.publish("s"), lambda: anext(streams.stream_names())):
                with pytest.raises(ClosedError):
                    await call()

    asyncio.run(ask())


def test_a_lost_connection_ends_requests():
    async def ask(server):
        async with fake(server.url, lambda *_: None) as (streams, asked):
            asking = asyncio.create_task(streams.account_info())
            await until(lambda: asked.asked)
            server.kill()
            with pytest.raises(ConnectionLostError):
                await asking
            server.start()
            await until(lambda: streams.connection.connected)

    with NatsServer() as server:
        asyncio.run(ask(server))


def test_what_was_not_sent_yet_is_asked_after_the_reconnect():
    async def ask(server):
        async with jetstream.connect(server.url, options=JetStreamOptions(timeout=PATIENCE)) as streams:
            server.kill()
            await until(lambda: not streams.connection.connected)
            asking = asyncio.create_task(streams.account_info())
            await asyncio.sleep(0.05)
            server.start()
            assert (await asking).streams == 0

    with NatsServer() as server:
        asyncio.run(ask(server))


def test_a_cancelled_request_leaves_nothing(server):
    async def ask():
        async with fake(server.url, lambda *_: None) as (streams, asked):
            asking = asyncio.create_task(streams.account_info())
            await until(lambda: asked.asked)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert not streams._api.waiting
            assert not streams.connection.replies.waiting

    asyncio.run(ask())


def test_the_trace_sees_requests_and_no_publishes(server):
    seen = []
    trace = ClientTrace(
        request_sent=lambda subject, payload: seen.append(("sent", subject, payload)),
        response_received=lambda subject, payload, headers: seen.append(("got", subject, payload[:1], headers)),
    )

    async def ask():
        async with jetstream.connect(server.url, options=JetStreamOptions(trace=trace)) as streams:
            stream = await streams.create_stream(StreamConfig(name="TRACED", allow_direct=True))
            seen.clear()
            await streams.publish("TRACED", b"x")
            assert seen == []
            await stream.get_msg(1)
            await stream.read()
            await streams.delete_stream("TRACED")

    asyncio.run(ask())
    assert [each[:2] for each in seen] == [
        ("sent", "$JS.API.DIRECT.GET.TRACED"),
        ("got", "$JS.API.DIRECT.GET.TRACED"),
        ("sent", "$JS.API.DIRECT.GET.TRACED"),
        ("got", "$JS.API.DIRECT.GET.TRACED"),
        ("sent", "$JS.API.STREAM.DELETE.TRACED"),
        ("got", "$JS.API.STREAM.DELETE.TRACED"),
    ]
    assert seen[0][2] == b'{"seq":1}'
    assert seen[1][3].startswith(b"NATS/1.0")


def test_a_trace_that_raises_is_logged_and_ignored(server, caplog):
    def fail(*_):
        raise ValueError("no")

    async def ask():
        trace = ClientTrace(request_sent=fail, response_received=fail)
        async with jetstream.connect(server.url, options=JetStreamOptions(trace=trace)) as streams:
            await streams.account_info()

    with caplog.at_level(logging.ERROR):
        asyncio.run(ask())
    assert [record.message for record in caplog.records] == ["a client trace failed"] * 2


def test_a_borrowed_connection_takes_no_connection_options(server):
    async def make():
        async with Connection(server.url) as connection:
            with pytest.raises(ConfigError, match="connection"):
                JetStream(connection, JetStreamOptions(connection=ConnectionOptions(name="x")))

    asyncio.run(make())


def test_a_request_over_max_payload_is_refused_here(server):
    async def ask():
        async with jetstream.connect(server.url) as streams:
            with pytest.raises(ConfigError, match="max_payload"):
                await streams.create_stream(StreamConfig(name="S", description="x" * 1_100_000))
            with pytest.raises(ConfigError, match="bytes"):
                await streams.create_consumer("S", ConsumerConfig(durable="c", filter_subject="x" * 3_000))
            with pytest.raises(ConfigError, match="JSON"):
                await streams.create_stream(StreamConfig(name="S", extra={"a": object()}))
            await streams.account_info()

    asyncio.run(ask())


async def every_call(streams):
    """All that asks the API, direct get and pulls included."""
    stream = await streams.create_stream(StreamConfig(name="ALL", subjects=["all.>"], allow_direct=True))
    await streams.update_stream(StreamConfig(name="ALL", subjects=["all.>"], allow_direct=True, description="x"))
    await streams.create_or_update_stream(StreamConfig(name="TOO", subjects=["too"]))
    for number in range(4):
        await streams.publish(f"all.{number}", b"x")
    assert await streams.stream_name_by_subject("all.x") == "ALL"
    assert len([each async for each in streams.list_streams()]) == 2
    stream = await streams.stream("ALL")
    assert (await stream.info(subject_filter=">")).state.num_subjects == 4
    assert (await stream.get_msg(2)).subject == "all.1"
    assert (await stream.get_last_msg_for_subject("all.2")).sequence == 3
    assert (await stream.get_last_msg_for_subject("all.*")).sequence == 4
    assert len(await stream.read()) == 4
    assert len([each async for each in stream.get_last_for(["all.*"])]) == 4
    await stream.delete_msg(1)
    await stream.secure_delete_msg(2)
    consumer = await stream.create_or_update_consumer(ConsumerConfig(durable="c", filter_subject="all.*"))
    assert (await stream.consumer("c")).name == "c"
    (msg,) = await consumer.fetch(1, max_wait=PATIENCE)
    await msg.double_ack()
    assert (await consumer.info()).ack_floor.stream == 3
    assert [name async for name in stream.consumer_names()] == ["c"]
    assert len([each async for each in stream.list_consumers()]) == 1
    ordered = await stream.ordered_consumer(OrderedConsumerConfig())
    assert (await ordered.next(max_wait=PATIENCE)).metadata.sequence.stream == 3
    await stream.delete_consumer("c")
    assert await stream.purge(PurgeOptions(subject="all.>")) == 2
    plain = await streams.stream("TOO")
    await streams.publish("too", b"x")
    assert (await plain.get_msg(1)).data == b"x"
    assert len(await plain.read()) == 1
    await streams.account_info()
    for name in ("ALL", "TOO"):
        await streams.delete_stream(name)


def test_domain_for_all_calls():
    """Everything is asked below the domain's prefix, and its server answers there."""

    async def run(server):
        seen = []
        trace = ClientTrace(request_sent=lambda subject, _: seen.append(subject))
        options = JetStreamOptions(domain="hub", trace=trace, timeout=PATIENCE)
        async with jetstream.connect(server.url, options=options) as streams:
            assert (await streams.account_info()).domain == "hub"
            await every_call(streams)
        assert {subject.startswith("$JS.hub.API.") for subject in seen} == {True}

    with NatsServer(config="jetstream: {domain: hub}") as server:
        asyncio.run(run(server))


def test_prefix_for_all_calls():
    """A bridge that hands requests on is the only way to the API."""
    config = """
    no_auth_user: u
    accounts: { A: { jetstream: enabled, users: [
        {user: u, password: p, permissions: {publish: {deny: ["$JS.API.>"]}}}, {user: bridge, password: b}
    ] } }
    """

    async def run(server):
        async with Connection(server.url.replace("//", "//bridge:b@")) as bridge:

            def hand_on(subject, reply, header, data):
                bridge.send(b"$JS.API." + subject.removeprefix(b"my.js."), reply, b"", data)

            bridge.subscribe("my.js.>", hand_on)
            await bridge.flush()
            options = JetStreamOptions(api_prefix="my.js", timeout=PATIENCE)
            async with jetstream.connect(server.url, options=options) as streams:
                await every_call(streams)

    with NatsServer(config=config) as server:
        asyncio.run(run(server))


DENIED = {"error": {"code": 503, "err_code": 10008, "description": "system temporarily unavailable"}}


@pytest.mark.parametrize("looked", ["missing", "there", "denied"])
def test_lost_option_raises_unsupported(server, looked):
    """A server before 2.12 ignores what it does not know. What the call surely made goes again, all else stays."""
    now = datetime.now(UTC).isoformat()  # just made, by us or by somebody else: a time does not tell

    def answer(tail, body):
        stream = tail.startswith("STREAM")
        if "DELETE" in tail:
            return {"success": True}
        if "INFO" in tail and looked != "there":
            number = 10059 if stream else 10014
            return DENIED if looked == "denied" else {"error": {"code": 404, "err_code": number, "description": "no"}}
        times = {"created": now, "ts": now}
        if stream:
            policies = {"retention": "limits", "discard": "old", "storage": "file"}
            return {**INFO, **times, "config": {"name": "S", "subjects": ["s"], **policies}}
        policies = {"deliver_policy": "all", "ack_policy": "explicit", "replay_policy": "instant"}
        places = {name: {"consumer_seq": 0, "stream_seq": 0} for name in ("delivered", "ack_floor")}
        return {"stream_name": "S", "name": "c", "config": {"durable_name": "c", **policies}, **times, **places}

    async def ask():
        async with fake(server.url, answer) as (streams, asked):
            with pytest.raises(UnsupportedError, match=r"max_bytes, metadata, warp of stream 'S'"):
                await streams.create_stream(StreamConfig(name="S", max_bytes=5, metadata={"a": "b"}, extra={"warp": 9}))
            with pytest.raises(UnsupportedError, match=r"max_waiting, warp of consumer 'c'"):
                await streams.create_or_update_consumer(
                    "S", ConsumerConfig(durable="c", max_waiting=5, extra={"warp": 9})
                )
            with pytest.raises(
                UnsupportedError, match=r"max_bytes, warp of stream 'S': it is as the server has it now"
            ):
                await streams.update_stream(StreamConfig(name="S", max_bytes=5, extra={"warp": 9}))
            with pytest.raises(UnsupportedError, match=r"max_bytes of stream 'S': it is as the server has it now"):
                await streams.create_stream(StreamConfig(name="S", max_bytes=5))  # no server is known to do that
            deleted = [tail for tail, _ in asked.asked if "DELETE" in tail]
            assert deleted == (["STREAM.DELETE.S", "CONSUMER.DELETE.S.c"] if looked == "missing" else [])

    asyncio.run(ask())
