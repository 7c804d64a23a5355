"""A server that sends what no server should: a typed error, bounded memory, another try with back-off, and no crash."""

import asyncio
import tracemalloc

import pytest

from headrace.core.errors import BrokerError, ConnectionLostError, HeadraceError
from headrace.nats import NoServersError
from headrace.testing.nats import HostileServer, Hostility
from tests.integration.nats.scene import Diary, connection_to, run, until

GREETINGS = {
    Hostility.GARBAGE_INFO,
    Hostility.INFO_IS_NO_OBJECT,
    Hostility.SILENT_GREETING,
    Hostility.GREETING_WITHOUT_END,
}
MAX_FRAME = 4 * 1024 * 1024
MIB = 1024 * 1024


@pytest.mark.parametrize("hostility", sorted(GREETINGS))
def test_a_greeting_that_is_none_is_no_server(hostility):
    @run
    async def story():
        with HostileServer(hostility) as server:
            connection = connection_to(server.url, connect_timeout=0.5)
            with pytest.raises(NoServersError) as caught:
                await connection.connect()
            assert isinstance(caught.value.reasons[0], HeadraceError)
            await connection.aclose()

    story()


@pytest.mark.parametrize("hostility", sorted(set(Hostility) - GREETINGS - {Hostility.PING_FLOOD}))
def test_the_link_ends_with_a_typed_error_and_the_next_one_works(hostility):
    @run
    async def story():
        with HostileServer(hostility, times=2) as server:
            connection = connection_to(server.url, max_frame=MAX_FRAME, connect_timeout=5.0)
            diary = Diary(connection)
            tracemalloc.start()
            try:
                async with connection:
                    connection.subscribe("a", lambda *_: None)
                    await until(lambda: connection.stats.reconnects == 2)
                    await connection.flush(20)
                    assert connection.connected
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert peak < MAX_FRAME + MIB
            lost = [error for word, error in diary.entries if word == "lost"]
            assert len(lost) == 2
            assert all(isinstance(error, BrokerError) for error in lost)
            assert all(isinstance(error, ConnectionLostError) for error in lost) or hostility is Hostility.ENDLESS_ERR

    story()


@run
async def test_a_flood_of_pings_neither_fills_memory_nor_blocks_the_loop():
    with HostileServer(Hostility.PING_FLOOD) as server:
        tracemalloc.start()
        try:
            connection = connection_to(server.url, write_limit=64 * 1024)
            async with connection:
                connection.subscribe("a", lambda *_: None)
                await until(lambda: connection.stats.in_bytes > 4 * MIB or connection.stats.reconnects)
                await asyncio.sleep(0)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 4 * MIB
