"""Closed in whatever state it is: no task, socket or timer is left, nobody waits for ever, every future has an end."""

import asyncio

import pytest

from headrace.core.errors import PublishInterruptedError
from headrace.nats import Connection
from headrace.testing.nats import NatsServer, Proxy
from tests.conftest import alive
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
)


def connected(server, proxy):
    pass


def cut(server, proxy):
    proxy.cut()


def away(server, proxy):
    proxy.down()


def frozen(server, proxy):
    proxy.freeze()


def killed(server, proxy):
    server.kill()


STATES = (connected, cut, away, frozen, killed)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("kind", READERS)
@on_a_loop
async def test_no_task_or_socket_left(kind, state):
    """With a reader that is parked and publishes on their way; the reader hears of it and ends by itself."""
    with NatsServer() as server, Proxy(server.port) as proxy:
        before, tasks = alive(), asyncio.all_tasks()
        async with opened(proxy) as js:
            await made(js)
            task = asyncio.create_task(READERS[kind](js, Reader(kind)))
            await parked(js, kind)
            state(server, proxy)
            futures = [await js.publish_async(SUBJECT, b"x") for _ in range(10)]
            async with asyncio.timeout(PATIENCE):
                await js.aclose()
            for future in futures:
                assert future.done()
                with pytest.raises(PublishInterruptedError):
                    await future
            if kind == "worker":
                task.cancel()  # it waits for ever beside its worker
            done, _ = await asyncio.wait([task], timeout=PATIENCE)
            assert done, "the reader does not hear of it"
            task.cancelled() or task.exception()
            proxy.cut()  # its own sockets
            await eventually(lambda: asyncio.all_tasks() == tasks and alive() <= before)


@pytest.mark.parametrize("state", STATES)
@on_a_loop
async def test_nothing_of_a_bare_connection_is_left(state):
    with NatsServer(jetstream=False) as server, Proxy(server.port) as proxy:
        before, tasks = alive(), asyncio.all_tasks()
        connection = Connection(proxy.url, hasty())
        await connection.connect()
        connection.subscribe("a", lambda *_: None)
        request = asyncio.create_task(connection.request("nobody.there", timeout=PATIENCE))
        flush = asyncio.create_task(connection.flush(PATIENCE))
        state(server, proxy)
        async with asyncio.timeout(PATIENCE):
            await connection.aclose()
            await asyncio.wait([request, flush])
        for task in (request, flush):
            task.cancelled() or task.exception()
        proxy.cut()  # its own sockets
        await eventually(lambda: asyncio.all_tasks() == tasks and alive() <= before)


@on_a_loop
async def test_closing_while_it_connects():
    """To a server that accepts and says nothing, and to nobody."""
    with Proxy(1) as proxy:
        before, tasks = alive(), asyncio.all_tasks()
        connection = Connection(proxy.url, hasty(connect_timeout=30))
        connecting = asyncio.create_task(connection.connect())
        await asyncio.sleep(0.02)
        await connection.aclose()
        done, _ = await asyncio.wait([connecting], timeout=PATIENCE)
        assert done
        connecting.cancelled() or connecting.exception()
        await eventually(lambda: asyncio.all_tasks() == tasks and alive() <= before)


@on_a_loop
async def test_a_loop_that_ends_without_closing_leaves_no_warning_and_no_socket():
    """A program that forgets to close: the next loop starts clean."""
    with NatsServer() as server:
        before = alive()
        async with opened(server) as js:
            stream = await made(js)
            assert (await stream.info()).state.messages == 0
        await eventually(lambda: alive() <= before)
