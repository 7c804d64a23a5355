"""Cancelled at every await: no task, socket or timer is left, and the connection can be used or closed as before."""

import asyncio

import pytest

from headrace.core.errors import ClosedError
from headrace.testing.nats import Proxy
from tests.integration.nats.certificates import Authority
from tests.integration.nats.scene import connection_to, plain_server, run, until

pytestmark = pytest.mark.servers
TURNS = 60  # of the loop: more than any of these calls takes


@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    authority = Authority(tmp_path_factory.mktemp("certificates"))
    certificate, key = authority.issue("server", "127.0.0.1")
    with plain_server(config=f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}') as server:
        yield server.url, authority.context()


def timers():
    """What the loop still has to do at some time."""
    scheduled = getattr(asyncio.get_running_loop(), "_scheduled", ())  # other loops keep theirs to themselves
    return [handle for handle in scheduled if not handle.cancelled()]


async def cancel_after(turns, coroutine):
    """Whether it was still running after so many turns of the loop; cancelled then."""
    task = asyncio.ensure_future(coroutine)
    for _ in range(turns):
        await asyncio.sleep(0)
        if task.done():
            break
        if turns > 8:  # let the other side get a word in
            await asyncio.sleep(0.0005)
    running = not task.done()
    task.cancel()
    await asyncio.wait([task])
    if not running:
        task.result()
    return running


async def nothing_left():
    await until(lambda: len(asyncio.all_tasks()) <= 2)
    await until(lambda: not [handle for handle in timers() if "headrace" in repr(handle)])


@run
async def test_connect(server):
    cancelled = 0
    for turns in range(TURNS):
        connection = connection_to(server.url)
        cancelled += await cancel_after(turns, connection.connect())
        assert len(asyncio.all_tasks()) <= 2
        if turns % 2:
            await connection.connect()
            await connection.flush()
        await connection.aclose()
        await nothing_left()
    assert cancelled > 3


@run
async def test_connect_with_tls(secure):
    url, context = secure
    for turns in range(TURNS):
        connection = connection_to(url, tls=context)
        await cancel_after(turns, connection.connect())
        await connection.aclose()
        await nothing_left()


@run
async def test_aclose(server):
    for turns in range(1, 9):  # a task that is cancelled before its first turn runs nothing at all
        connection = connection_to(server.url)
        await connection.connect()
        connection.publish("x", b"x" * 1_000_000)
        await cancel_after(turns, connection.aclose())
        assert connection.closed
        await connection.aclose()
        await nothing_left()


@run
async def test_aclose_with_a_peer_that_takes_nothing(server):
    with Proxy(server.port) as proxy:
        for turns in (1, 3, 20):
            connection = connection_to(proxy.url)
            await connection.connect()
            proxy.freeze()
            for _ in range(8):
                connection.publish("x", b"x" * 1_000_000)
            await asyncio.sleep(0)
            await cancel_after(turns, connection.aclose())
            await nothing_left()
            await connection.aclose()


@run
async def test_requests_flushes_and_room(server):
    async with connection_to(server.url, write_limit=10) as connection:
        connection.subscribe("silent", lambda *_: None)
        for turns in range(10):
            await cancel_after(turns, connection.request("silent", b"x", timeout=20))
            await cancel_after(turns, connection.flush(20))
            connection.publish("silent", b"x" * 100)
            await cancel_after(turns, connection.room())
            assert not connection.replies.waiting
            assert not connection._life.asking
        await connection.flush()
        assert not connection._outgoing._waiting


@run
async def test_messages(server):
    async with connection_to(server.url) as connection, connection.messages("m") as messages:
        for turns in range(6):
            await cancel_after(turns, anext(messages))
            connection.publish("m", b"%d" % turns)
            assert (await anext(messages)).data == b"%d" % turns


@run
async def test_drain(server):
    for turns in range(12):
        connection = connection_to(server.url)
        await connection.connect()
        connection.subscribe("x", lambda *_: None)
        await cancel_after(turns, connection.drain())
        await connection.aclose()
        await nothing_left()


@run
async def test_closing_during_every_step_of_a_reconnect(server):
    with Proxy(server.port) as proxy:
        for turns in range(0, TURNS, 2):
            connection = connection_to(proxy.url, reconnect_wait=0.001, reconnect_max_wait=0.001)
            await connection.connect()
            proxy.cut()
            await until(lambda connection=connection: connection.stats.errors)
            for _ in range(turns):
                await asyncio.sleep(0.0002)
            await connection.aclose()
            await nothing_left()


@run
async def test_closing_while_connecting(server):
    for turns in range(0, TURNS, 3):
        connection = connection_to(server.url)
        connecting = asyncio.ensure_future(connection.connect())
        for _ in range(turns):
            await asyncio.sleep(0.0002)
        await connection.aclose()
        await asyncio.wait([connecting])
        connecting.exception()
        assert not connection.connected
        await nothing_left()


@run
async def test_a_connection_closed_while_it_is_being_made_stays_closed(server):
    with Proxy(server.port) as proxy:
        proxy.delay = 0.02
        connection = connection_to(proxy.url)
        connecting = asyncio.ensure_future(connection.connect())
        await until(lambda: proxy.links == 1)
        await connection.aclose()
        with pytest.raises(ClosedError):
            await connecting
        assert not connection.connected
        await nothing_left()
