"""What is refused sends nothing: a server that writes down every byte has none of it (spec 5)."""

from datetime import datetime

import pytest

from headrace.core.errors import ConfigError, HeadraceError
from headrace.jetstream import JetStream, JetStreamOptions
from headrace.nats import Connection
from headrace.streams import (
    ConsumerConfig,
    Expect,
    PullOptions,
    PurgeOptions,
    Rollup,
    StreamConfig,
    StreamMessage,
    StreamPublishOptions,
)
from headrace.testing.nats import RecordingServer
from tests.faults.nats.scene import PATIENCE, hasty, on_a_loop

CONTROLS = [*map(chr, range(32)), "\x7f"]
BAD_SUBJECTS = [
    "", " ", "a b", "a..b", ".a", "a.", ".", "*", ">", "a.*", "a.>", "$JS.API.INFO", "$SYS.x", "_INBOX.x",
    "x" * 2**20, *(f"a{control}b" for control in CONTROLS), "a\r\nPUB b 0\r\n\r\n",
]  # fmt: skip
BAD_NAMES = ["", "a b", "a.b", "a*", "a>", "a/b", "a\\b", "x" * 256, *(f"a{control}" for control in CONTROLS)]
BAD_HEADERS = [
    {"": "x"}, {"a b": "x"}, {"a:": "x"}, {"ä": "x"}, {"a\r\nb": "x"}, {"Nats-Msg-Id": "x"}, {"nats-anything": "x"},
    {"a": "x\r\ny"}, {"a": "x\ny"}, {"a": "x\ry"}, {"a": "x\0y"}, {"a": "x" * 2**20},
]  # fmt: skip


async def silence(call):
    """Nothing but the handshake and our own PING arrives, whatever `call(js)` tries, and each try is an error."""
    with RecordingServer() as server:
        async with (
            Connection(server.url, hasty()) as connection,
            JetStream(connection, JetStreamOptions(timeout=1)) as js,
        ):
            await connection.flush(PATIENCE)
            before = len(server.received)
            await call(js)
            await connection.flush(PATIENCE)
            assert server.received[before:] == b"PING\r\n"


@on_a_loop
async def test_subjects():
    async def call(js):
        for subject in BAD_SUBJECTS:
            for publish in (js.publish, js.publish_async):
                with pytest.raises(HeadraceError):
                    await publish(subject, b"x")
            [result] = await refused_many(js, StreamMessage(subject, b"x"))
            assert isinstance(result, HeadraceError), subject

    await silence(call)


async def refused_many(js, message):
    """`publish_many` of one: its error as a result, or raised."""
    try:
        return await js.publish_many([message])
    except HeadraceError as error:
        return [error]


@on_a_loop
async def test_subjects_of_the_bare_connection():
    async def call(js):
        for subject in BAD_SUBJECTS:
            if not subject.startswith(("$", "_INBOX")) and len(subject) < 1_000:
                with pytest.raises(HeadraceError):
                    js.connection.publish(subject, b"x")
                with pytest.raises(HeadraceError):
                    js.connection.publish("fine", b"x", reply=subject)
        for subject in ("", "a b", "a..b", "a\r\nb", ">.a", "a\0"):
            with pytest.raises(HeadraceError):
                js.connection.subscribe(subject, print)
            if subject:
                with pytest.raises(HeadraceError):
                    js.connection.subscribe("a", print, queue=subject + " ")

    await silence(call)


@on_a_loop
async def test_subjects_of_requests():
    async def call(js):
        for subject in ("", "a b", "a..b", "a\r\nPUB b 0\r\n\r\n", "a.*"):
            with pytest.raises(HeadraceError):
                await js.connection.request(subject, b"x", timeout=1)

    await silence(call)


@on_a_loop
async def test_headers_ids_and_options():
    async def call(js):
        for headers in BAD_HEADERS:
            with pytest.raises(HeadraceError):
                await js.publish("a", b"x", headers=headers)
            with pytest.raises(HeadraceError):
                await js.publish_async("a", b"x", headers=headers)
        for msg_id in ("", "a\r\nb", "a\0", "a\n"):
            with pytest.raises(ConfigError):
                await js.publish("a", b"x", msg_id=msg_id)
        for stream in ("a\r\nb", "a\0", ""):
            with pytest.raises(ConfigError):
                await js.publish("a", b"x", options=StreamPublishOptions(expect_stream=stream))
        with pytest.raises(ConfigError):
            await js.publish("a", b"x", options=StreamPublishOptions(expect=Expect(last_id="a\r\nb")))
        with pytest.raises(ConfigError):
            await js.publish("a", b"x", options=StreamPublishOptions(rollup=Rollup.ALL, retry_wait=float("nan")))
        with pytest.raises(HeadraceError, match="1048576"):
            await js.publish("a", b"x" * (2**20 + 1))

    await silence(call)


@on_a_loop
async def test_names():
    async def call(js):
        for name in BAD_NAMES:
            for refused in (
                js.stream(name), js.delete_stream(name), js.consumer("S", name), js.consumer(name, "c"),
                js.delete_consumer("S", name), js.delete_consumer(name, "c"),
            ):  # fmt: skip
                with pytest.raises(ConfigError):
                    await refused
            with pytest.raises(ConfigError):
                await js.create_stream(StreamConfig(name=name))
            with pytest.raises(ConfigError):
                await js.create_consumer("S", ConsumerConfig(durable=name))
            with pytest.raises(ConfigError):
                await js.create_consumer(name, ConsumerConfig(durable="c"))

    await silence(call)


@on_a_loop
async def test_configs():
    naive = datetime(2030, 1, 1)
    wrong = [
        lambda: StreamConfig(name="S", subjects=["a b"]),
        lambda: StreamConfig(name="S", subjects=["a\r\nb"]),
        lambda: StreamConfig(name="S", max_age=float("nan")),
        lambda: StreamConfig(name="S", max_age=-1),
        lambda: ConsumerConfig(durable="c", ack_wait=float("nan")),
        lambda: ConsumerConfig(durable="c", start_time=naive),
        lambda: ConsumerConfig(durable="c", filter_subject="a..b"),
        lambda: PullOptions(expires=float("nan")),
        lambda: PullOptions(max_messages=0),
        lambda: PurgeOptions(sequence=1, keep=1),
    ]

    async def call(js):
        for make in wrong:
            with pytest.raises(ConfigError):
                made = make()
                await (js.create_stream(made) if isinstance(made, StreamConfig) else js.create_consumer("S", made))

    await silence(call)
