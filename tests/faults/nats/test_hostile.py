"""What no server should send: bounded memory, a typed error, a reconnect with back-off, and never a crash (spec 5)."""

import asyncio
import tracemalloc

import pytest

from headrace.core.errors import BrokerError, ConnectionLostError
from headrace.nats import Connection, NoServersError, ProtocolError
from headrace.testing.nats import HostileServer, Hostility
from tests.faults.nats.scene import PATIENCE, eventually, hasty, on_a_loop

MIB = 2**20
ALLOWED = 2 * MIB  # max_frame and a MiB
GREETINGS = (
    Hostility.GARBAGE_INFO,
    Hostility.INFO_IS_NO_OBJECT,
    Hostility.SILENT_GREETING,
    Hostility.GREETING_WITHOUT_END,
)
BROKEN = (
    Hostility.GARBAGE,
    Hostility.NEGATIVE_SIZE,
    Hostility.SIZE_IS_NO_NUMBER,
    Hostility.HUGE_SIZE,
    Hostility.HEADER_OVER_TOTAL,
    Hostility.LINE_WITHOUT_END,
    Hostility.DEEP_INFO,
)
FLOODS = (Hostility.PING_FLOOD, Hostility.ENDLESS_ERR)


def options(errors, **more):
    return hasty(max_frame=MIB, connect_timeout=0.5, on_error=errors.append, on_disconnect=errors.append, **more)


class Memory:
    """What Python's own allocations grow by inside the block, at most."""

    def __enter__(self):
        tracemalloc.start()
        self.peak = 0
        return self

    def __exit__(self, *_):
        self.peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()


@pytest.mark.parametrize("hostility", GREETINGS)
@on_a_loop
async def test_a_hostile_greeting_is_no_connection(hostility):
    with HostileServer(hostility) as server, Memory() as memory:
        with pytest.raises(NoServersError) as caught:
            async with Connection(server.url, options([])):
                pass
        assert len(caught.value.reasons) == 1
        assert isinstance(caught.value.reasons[0], BrokerError | TimeoutError | OSError)
    assert memory.peak < ALLOWED


@pytest.mark.parametrize("hostility", [*GREETINGS, *BROKEN, Hostility.CUT_FRAME])
@on_a_loop
async def test_hostile_server_is_left_and_the_next_link_works(hostility):
    errors = []
    with HostileServer(hostility, times=1 if hostility not in GREETINGS else 3) as server, Memory() as memory:
        connection = Connection(server.url, options(errors))
        if hostility in GREETINGS:  # first heard of at a reconnect, behind a link that was good
            server._times = 0
        async with connection:
            connection.subscribe("a", lambda *_: None)
            if hostility in GREETINGS:
                server._times = 3
                server.cut()
            await eventually(lambda: server.links > 1 and connection.connected)
            await connection.flush(PATIENCE)
            assert connection.stats.reconnects >= 1
    assert memory.peak < ALLOWED
    assert errors
    if hostility in BROKEN:
        assert any(isinstance(error, ProtocolError) for error in errors), errors
    assert all(isinstance(error, ConnectionLostError | BrokerError) for error in errors), errors


@pytest.mark.parametrize("hostility", FLOODS)
@on_a_loop
async def test_a_flood_fills_no_memory_and_closing_still_works(hostility):
    errors = 0

    def count(_):
        nonlocal errors
        errors += 1

    with HostileServer(hostility) as server, Memory() as memory:
        wanted = hasty(max_frame=MIB, on_error=count)
        connection = Connection(server.url, wanted)
        await connection.connect()
        connection.subscribe("a", lambda *_: None)
        await eventually(lambda: server.sent > 4 * MIB or connection.stats.reconnects >= 3)
        async with asyncio.timeout(PATIENCE):
            await connection.aclose()
    assert memory.peak < ALLOWED + MIB  # the server's own buffers are of this process too


@on_a_loop
async def test_hostile_for_ever_is_tried_with_back_off():
    """Some dozen links in two seconds at most, not thousands."""
    with HostileServer(Hostility.GARBAGE, times=None) as server:
        connection = Connection(server.url, hasty(reconnect_wait=0.1, reconnect_max_wait=0.4, on_error=lambda _: None))
        await connection.connect()
        connection.subscribe("a", lambda *_: None)
        await eventually(lambda: server.links >= 4)
        begun = asyncio.get_running_loop().time()
        first = server.links
        await eventually(lambda: server.links >= first + 4)
        took = asyncio.get_running_loop().time() - begun
        await connection.aclose()
    assert took >= 4 * 0.05, "each waits for half of 0.1 s at least"
