"""Servers that go on purpose: lame duck, and one that no longer takes the credentials."""

import asyncio

import pytest

from headrace.core.errors import BrokerError, ClosedError, PublishInterruptedError
from headrace.nats import Connection
from headrace.testing.nats import NatsCluster, NatsServer, free_port
from tests.faults.nats.scene import (
    PATIENCE,
    READERS,
    SUBJECT,
    Reader,
    eventually,
    hasty,
    made,
    on_a_loop,
    opened,
    parked,
    reading,
    stored,
)

LEAVES = 'lame_duck_grace_period: "1s"\nlame_duck_duration: "30s"\n'


@on_a_loop
async def test_lame_duck_of_the_only_server():
    """There is nowhere to go: it is waited for. Its JetStream ends first, so nothing is published meanwhile."""
    ducks = []
    with NatsServer(config=LEAVES) as server:
        async with opened(server, on_lame_duck=lambda: ducks.append(server.port)) as js:
            stream = await made(js)
            async with reading(js, "messages") as reader:
                await js.publish(SUBJECT, b"0", msg_id="0")
                await reader.until(1)  # it has its consumer: a request that is open when the server goes would fail
                server.lame_duck()
                await eventually(lambda: ducks)
                await eventually(lambda: not server.running)
                future = await js.publish_async(SUBJECT, b"1", msg_id="1")
                server.start()
                await future
                await reader.until(2)
                assert await stored(stream) == [b"0", b"1"]
        assert ducks == [server.port]


@on_a_loop
async def test_lame_duck_among_others():
    """The client is elsewhere before its server has gone, and nothing is lost on the way."""
    ducks = []
    with NatsCluster(config=LEAVES) as cluster:
        first = cluster.servers[0]
        async with opened(first, on_lame_duck=lambda: ducks.append(1)) as js:  # the others it learns from the server
            stream = await made(js, replicas=3)
            async with reading(js, "messages") as messages, reading(js, "ordered") as ordered:
                await parked(js, "messages")
                await parked(js, "ordered")
                futures = []
                first.lame_duck()
                for number in range(300):
                    futures.append(await js.publish_async(SUBJECT, b"%d" % number, msg_id=f"{number}"))
                    await asyncio.sleep(0.005)
                await eventually(lambda: js.connection.connected and js.connection.server_info.port != first.port)
                for future in futures:
                    await future
                await messages.until(300)
                await ordered.until(300)
            everything = await stored(stream)
            assert sorted(everything, key=int) == [b"%d" % number for number in range(300)]
            assert ordered.bodies == everything
        assert ducks


def other_password(port, word):
    return NatsServer(port=port, config=f'authorization {{ user: u, password: "{word}" }}')


@on_a_loop
async def test_auth_expired_on_reconnect():
    """The server is back and takes the password no more: closed for good, and said without the password."""
    closed, port = [], free_port()
    with other_password(port, "one-secret") as server:
        options = hasty(user="u", password="one-secret", on_closed=closed.append)
        async with Connection(server.url, options) as connection:
            server.kill()
            with other_password(port, "two"):
                await eventually(lambda: closed)
            with pytest.raises(ClosedError) as caught:
                connection.publish("a", b"x")
            assert "one-secret" not in f"{closed!r} {caught.value!r} {connection!r}"


@pytest.mark.parametrize("kind", READERS)
@on_a_loop
async def test_auth_expired_ends_every_reader(kind):
    port = free_port()
    with other_password(port, "one") as server:
        async with opened(server, user="u", password="one") as js:
            await made(js)
            task = asyncio.create_task(READERS[kind](js, Reader(kind)))
            await parked(js, kind)
            future = await js.publish_async(SUBJECT, b"x", msg_id="1")
            await future
            server.kill()
            lost = await js.publish_async(SUBJECT, b"y", msg_id="2")
            with other_password(port, "two"):
                done, _ = await asyncio.wait([task], timeout=PATIENCE)
            assert done, "it does not hear that the connection is closed"
            assert isinstance(task.exception(), ClosedError | BrokerError)
            with pytest.raises(PublishInterruptedError):
                await lost
            with pytest.raises(ClosedError):
                await js.publish(SUBJECT, b"z")
