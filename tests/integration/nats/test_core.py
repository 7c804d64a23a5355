"""The wire client and a real server: what a user of core NATS does, and what is refused before a byte leaves."""

import asyncio

import pytest

from headrace.core.errors import BrokerTimeoutError, ClosedError, ConfigError, Fault, UsageError
from headrace.nats import (
    Connection,
    NoRespondersError,
    PayloadTooLargeError,
    SlowConsumerError,
    build,
    fields_of,
    lines_of,
)
from headrace.testing.nats import RecordingServer
from tests.integration.nats.scene import connection_to, run, until

pytestmark = pytest.mark.servers


@run
async def test_what_is_published_arrives_byte_for_byte(server):
    got = []
    async with connection_to(server.url) as connection:
        connection.subscribe("a.>", lambda *parts: got.append(parts))
        connection.publish("a.b", b"")
        connection.publish("a.é.𝄞", bytes(range(256)), reply="r.1")
        connection.publish("a.b", b"\r\nMSG a 1 1\r\n", headers=build([("K", "1"), ("k", "é"), ("K", "")]))
        await connection.flush()
        assert connection.stats.in_messages == connection.stats.out_messages == 3
    (one, two, three) = got
    assert one == (b"a.b", b"", b"", b"")
    assert two == ("a.é.𝄞".encode(), b"r.1", b"", bytes(range(256)))
    assert three[:2] == (b"a.b", b"")
    assert three[3] == b"\r\nMSG a 1 1\r\n"
    assert lines_of(three[2]) == "K: 1\r\nk: é\r\nK: \r\n".encode()
    assert fields_of(three[2]) == {"K": ["1", ""], "k": ["é"]}


@run
async def test_facts(server):
    connection = connection_to(server.url, name="me")
    assert not connection.connected
    assert not connection.closed
    with pytest.raises(UsageError):
        _ = connection.loop
    async with connection:
        info = connection.server_info
        assert info.version_tuple >= (2, 10, 0)
        assert info.headers
        assert connection.max_payload == info.max_payload == 1024 * 1024
        assert connection.loop is asyncio.get_running_loop()
        assert connection.clock.now_ns() > 0
        await connection.connect()  # is connected already
    assert connection.closed
    await connection.aclose()
    for call in (connection.connect, connection.flush, connection.room):
        with pytest.raises(ClosedError):
            await call()
    for call in (connection.publish, lambda subject: connection.subscribe(subject, print)):
        with pytest.raises(ClosedError):
            call("a")
    with pytest.raises(ClosedError):
        await connection.request("a", timeout=1)


@run
async def test_requests_find_their_answers(server):
    async with connection_to(server.url) as asking, connection_to(server.url) as answering:
        answering.subscribe("double", lambda subject, reply, header, data: answering.send(reply, b"", b"", data * 2))
        await answering.flush()
        replies = await asyncio.gather(*(asking.request("double", b"%d" % n, timeout=20) for n in range(100)))
        assert [reply.data for reply in replies] == [b"%d%d" % (n, n) for n in range(100)]
        with pytest.raises(NoRespondersError, match="nobody"):
            await asking.request("nobody", timeout=20)
        answering.subscribe("silent", lambda *_: None)
        await answering.flush()
        with pytest.raises(BrokerTimeoutError, match="silent"):
            await asking.request("silent", timeout=0.02)
        assert not asking.replies.waiting


@run
async def test_replies_by_token(server):
    got = []
    async with connection_to(server.url) as connection:
        connection.subscribe("echo", lambda subject, reply, header, data: connection.send(reply, b"", b"", data))
        first = connection.replies.ask_many(3, lambda *parts: got.append(parts))
        for token in range(first, first + 3):
            connection.send(b"echo", connection.replies.prefix + b"%d" % token, b"", b"%d" % token)
        forgotten = connection.replies.ask(lambda *_: got.append("forgotten"))
        connection.replies.forget(forgotten)
        for token in (forgotten, 10**30, "x"):
            connection.publish("echo", b"late", reply=f"{connection.replies.prefix.decode()}{token}")
        await connection.flush()
        await connection.flush()
        assert got == [(token, b"", b"%d" % token) for token in range(first, first + 3)]
        assert connection.stats.unknown_replies == 3
        assert not connection.replies.waiting


@run
async def test_a_queue_group_shares(server):
    counts = [0, 0]
    async with connection_to(server.url) as one, connection_to(server.url) as two:
        for index, connection in enumerate((one, two)):

            def count(*_, index=index):
                counts[index] += 1

            connection.subscribe("work", count, queue="crew")
            await connection.flush()
        for _ in range(100):
            one.publish("work")
        await one.flush()
        await two.flush()
        await until(lambda: sum(counts) == 100)
    assert min(counts) > 0


@run
async def test_unsubscribe_now_and_after_so_many(server):
    async with connection_to(server.url) as connection:
        got = {"fresh": 0, "late": 0, "now": 0}

        def count(name):
            def callback(*_):
                got[name] += 1

            return callback

        subscriptions = {name: connection.subscribe("n", count(name)) for name in got}
        subscriptions["fresh"].unsubscribe(2)  # before the server knows of it: the server counts too
        connection.publish("n")
        await connection.flush()
        subscriptions["late"].unsubscribe(3)  # counted from here
        subscriptions["now"].unsubscribe()
        subscriptions["now"].unsubscribe()
        for _ in range(5):
            connection.publish("n")
        await connection.flush()
        assert got == {"fresh": 2, "late": 4, "now": 1}
        assert all(subscription.closed for subscription in subscriptions.values())
        for wrong in (0, -1, True, 1.5):
            with pytest.raises(ConfigError):
                subscriptions["now"].unsubscribe(wrong)


@run
async def test_a_callback_that_raises_is_reported_and_the_next_message_comes(server):
    errors, got = [], []

    def callback(subject, reply, header, data):
        got.append(data)
        raise ValueError(data)

    async with connection_to(server.url, on_error=errors.append) as connection:
        connection.subscribe("x", callback)
        connection.publish("x", b"1")
        connection.publish("x", b"2")
        await connection.flush()
    assert got == [b"1", b"2"]
    assert [error.args for error in errors] == [(b"1",), (b"2",)]


@run
async def test_messages_are_iterated_and_what_is_too_much_is_dropped_and_reported(server):
    errors = []
    async with connection_to(server.url, on_error=errors.append) as connection:
        async with connection.messages("m", max_messages=3) as messages:
            for number in range(10):
                connection.publish("m", b"%d" % number)
            await connection.flush()
            assert [(await anext(messages)).data for _ in range(3)] == [b"0", b"1", b"2"]
            assert messages.dropped == 7
            assert [type(error) for error in errors] == [SlowConsumerError]
            connection.publish("m", b"again")
            message = await anext(messages)
            assert (message.subject, message.reply, message.header, message.data) == (b"m", b"", b"", b"again")
            reading = asyncio.ensure_future(anext(messages))
            await asyncio.sleep(0)
            with pytest.raises(UsageError):
                await anext(messages)
            reading.cancel()
            await asyncio.wait([reading])
            connection.publish("m", b"kept")
            await connection.flush()
            assert (await anext(messages)).data == b"kept"
            for _ in range(4):
                connection.publish("m")
            await connection.flush()
            assert messages.dropped == 8
            assert len(errors) == 2  # it had caught up in between
            assert [(await anext(messages)).data for _ in range(3)] == [b""] * 3
        with pytest.raises(StopAsyncIteration):
            await anext(messages)
        async with connection.messages("m", max_bytes=10) as messages:
            connection.publish("m", b"x" * 11)
            connection.publish("m", b"y" * 10)
            await connection.flush()
            assert (await anext(messages)).data == b"y" * 10
            assert messages.dropped == 1
        with pytest.raises(UsageError):
            await anext(connection.messages("m"))
        for wrong in ({"max_messages": 0}, {"max_bytes": -1}, {"max_messages": None}):
            with pytest.raises(ConfigError):
                connection.messages("m", **wrong)


@run
async def test_iterating_ends_with_the_connection(server):
    async with connection_to(server.url) as connection, connection.messages("m") as messages:
        connection.publish("m", b"last")
        await connection.flush()
        ending = asyncio.ensure_future(connection.drain())
        assert [message.data async for message in messages] == [b"last"]
        await ending


@run
async def test_drain_hands_out_what_is_on_its_way_and_writes_what_that_sends(server):
    got = []
    async with connection_to(server.url) as other:
        other.subscribe("out", lambda *parts: got.append(parts[3]))
        await other.flush()
        connection = connection_to(server.url)
        await connection.connect()
        connection.subscribe("in", lambda subject, reply, header, data: connection.send(b"out", b"", b"", data))
        await connection.flush()
        for number in range(500):
            other.publish("in", b"%d" % number)
        await other.flush()
        await connection.drain()
        assert connection.closed
        await connection.drain()
        await other.flush()
        assert got == [b"%d" % number for number in range(500)]


@run
async def test_drain_without_a_link_waits_for_nobody(server):
    connection = connection_to(server.url)
    await connection.drain()
    assert connection.closed


@run
async def test_senders_wait_for_room(server):
    async with connection_to(server.url, write_limit=100_000) as connection:
        got = 0

        def count(subject, reply, header, data):
            nonlocal got
            got += len(data)

        connection.subscribe("big", count)
        for _ in range(200):
            connection.publish("big", b"x" * 50_000)
            await connection.room()
            assert connection._outgoing.size <= 150_000
        await connection.flush(30)
        assert got == 200 * 50_000


@run
async def test_a_payload_over_the_limit_is_refused_here(server):
    async with connection_to(server.url) as connection:
        limit = connection.max_payload
        connection.publish("x", b"x" * limit)
        for size, headers in ((limit + 1, None), (limit - 10, build([("A", "1")])), (0, build([("A", "x" * limit)]))):
            with pytest.raises(PayloadTooLargeError, match=str(limit)) as caught:
                connection.publish("x", b"x" * size, headers=headers)
            assert caught.value.limit == limit
            assert caught.value.fault is Fault.REJECTED
        await connection.flush()


SUBJECTS = [
    "", " ", "a b", "a\tb", "a\r\nPUB b 0\r\n\r\n", "a\x00", "a\x7f", "a\x85", "\ud800", ".a", "a.", "a..b", "a" * 2000,
    "é" * 1000, None, 3, b"a",
]  # fmt: skip
WILDCARDS = ["*", ">", "a.*", "a.>", "*.a", "a.*.b"]


@run
async def test_bad_input_puts_no_byte_on_the_wire():
    with RecordingServer() as recorder:
        async with connection_to(recorder.url) as connection:
            await connection.flush()
            before = recorder.received
            for subject in SUBJECTS + WILDCARDS:
                with pytest.raises(ConfigError):
                    connection.publish(subject, b"x")
                with pytest.raises(ConfigError):
                    await connection.request(subject, timeout=1)
            for reply in set(SUBJECTS + WILDCARDS) - {None}:
                with pytest.raises(ConfigError):
                    connection.publish("fine", b"x", reply=reply)
            for subject in [*SUBJECTS, "a.>.b", ">.a"]:
                with pytest.raises(ConfigError):
                    connection.subscribe(subject, print)
            for queue in ("", "a b", "a\r\n", "q" * 2000, 3):
                with pytest.raises(ConfigError):
                    connection.subscribe("a", print, queue=queue)
            for block in (
                b"A: 1",
                b"A: 1\r\n\r\n",
                b"\r\n",
                b"A\r\n",
                b"A b: 1\r\n",
                b"A: 1\nB: 2\r\n",
                b"A: \x00\r\n",
            ):
                with pytest.raises(ConfigError):
                    connection.publish("a", headers=block)
            for data in ("text", None, 3):
                with pytest.raises(ConfigError):
                    connection.publish("a", data)
            with pytest.raises(ConfigError):
                connection.subscribe("a", None)
            for timeout in (-1, None, float("nan")):
                with pytest.raises(ConfigError):
                    await connection.flush(timeout)
                with pytest.raises(ConfigError):
                    await connection.request("a", timeout=timeout)
            await connection.flush()
            assert recorder.received.removeprefix(before) == b"PING\r\n"


@run
async def test_several_connections_on_one_loop_and_none_leaves_anything(server):
    connections = [Connection(server.url) for _ in range(20)]
    await asyncio.gather(*(connection.connect() for connection in connections))
    await asyncio.gather(*(connection.flush() for connection in connections))
    await asyncio.gather(*(connection.aclose() for connection in connections))
    assert len(asyncio.all_tasks()) <= 2
