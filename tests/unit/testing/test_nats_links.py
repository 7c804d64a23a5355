"""Proxy, RecordingServer, HostileServer: each does to a plain socket what it says."""

import asyncio
import gc
import json
import select
import socket
import threading
import time
from contextlib import contextmanager, suppress

import pytest

from headrace.core.errors import ConfigError, UsageError
from headrace.testing.nats import Direction, HostileServer, Hostility, Proxy, RecordingServer

SILENCE = 0.03


@contextmanager
def linked(port):
    """A plain client, as socket and as lines."""
    with socket.create_connection(("127.0.0.1", port), 20) as link, link.makefile("rb") as lines:
        yield link, lines


def silent(link):
    return not select.select([link], [], [], SILENCE)[0]


@contextmanager
def proxied():
    """A proxy in front of a server that answers PING."""
    with RecordingServer() as server, Proxy(server.port) as proxy:
        yield server, proxy


def test_a_recording_server_greets_answers_and_keeps_every_byte():
    with RecordingServer({"version": "2.10.0", "nonce": None}) as server:
        with linked(server.port) as (link, lines):
            info = json.loads(lines.readline().removeprefix(b"INFO "))
            link.sendall(b"CONNECT {}\r\nPI")
            link.sendall(b"NG\r\nPUB a 2\r\n\x00\r\r\n")
            assert lines.readline() == b"PONG\r\n"
            server.send(b"MSG a 1 0\r\n\r\n")
            assert lines.readline() == b"MSG a 1 0\r\n"
            assert server.wait_for(b"\r\r\n")
        assert server.received == b"CONNECT {}\r\nPING\r\nPUB a 2\r\n\x00\r\r\n"
        assert server.lines("PUB") == ["PUB a 2"]
    assert info["version"] == "2.10.0"
    assert info["port"] == server.port
    assert "nonce" not in info


def test_a_recording_server_may_leave_pings_unanswered():
    with RecordingServer() as server, linked(server.port) as (link, lines):
        lines.readline()
        server.pongs = False
        link.sendall(b"PING\r\n")
        assert silent(link)


def test_opened_and_closed_on_a_running_loop_too():
    async def run():
        with proxied() as (_, proxy):
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            assert (await reader.readline()).startswith(b"INFO ")
            writer.close()
            await writer.wait_closed()

    asyncio.run(run())


def test_waiting_for_bytes_that_do_not_come_ends():
    with RecordingServer() as server:
        assert not server.wait_for(b"x", timeout=SILENCE)


def test_a_proxy_passes_both_ways_and_counts():
    with proxied() as (server, proxy), linked(proxy.port) as (link, lines):
        greeting = lines.readline()
        link.sendall(b"PING\r\n")
        assert lines.readline() == b"PONG\r\n"
        assert server.received == b"PING\r\n"
        assert proxy.passed == {Direction.TO_SERVER: 6, Direction.TO_CLIENT: len(greeting) + 6}
        assert proxy.links == 1


def test_a_cut_is_seen_by_both_ends_and_the_next_link_works():
    with proxied() as (_, proxy):
        with linked(proxy.port) as (_, lines):
            lines.readline()
            proxy.cut()
            with pytest.raises(ConnectionResetError):
                lines.readline()
        with linked(proxy.port) as (_, lines):
            assert lines.readline().startswith(b"INFO ")


def test_down_refuses_until_up():
    with proxied() as (_, proxy):
        proxy.down()
        with pytest.raises(ConnectionRefusedError), linked(proxy.port):
            pass
        proxy.up()
        with linked(proxy.port) as (_, lines):
            assert lines.readline().startswith(b"INFO ")


@pytest.mark.parametrize("way", [None, Direction.TO_CLIENT, Direction.TO_SERVER])
def test_a_frozen_link_is_silent_and_later_ones_are_not(way):
    with proxied() as (server, proxy), linked(proxy.port) as (link, lines):
        lines.readline()
        proxy.freeze(*([way] if way else []))
        link.sendall(b"PING\r\n")
        assert silent(link)
        assert (b"PING\r\n" in server.received) == (way == Direction.TO_CLIENT)
        with linked(proxy.port) as (_, others):
            assert others.readline().startswith(b"INFO ")
        proxy.thaw()
        assert lines.readline() == b"PONG\r\n"


@pytest.mark.parametrize("count", [0, 7])
def test_cut_after_so_many_bytes(count):
    with proxied() as (server, proxy), linked(proxy.port) as (_, lines):
        lines.readline()
        proxy.cut_after(count)
        server.send(b"MSG a 1 5\r\nhello\r\n")
        assert lines.read() == b"MSG a 1"[:count]


def test_cut_after_towards_the_server():
    with proxied() as (server, proxy), linked(proxy.port) as (link, lines):
        lines.readline()
        proxy.cut_after(9, Direction.TO_SERVER)
        link.sendall(b"PUB a 5\r\nhello\r\n")
        assert lines.read() == b""
        assert server.wait_for(b"PUB a 5\r\n")
        assert server.received == b"PUB a 5\r\n"


def test_cut_after_less_than_nothing_is_refused():
    with pytest.raises(ConfigError, match="-1"):
        Proxy(1).cut_after(-1)


def test_a_delayed_link_passes_everything_never_early():
    with proxied() as (_, proxy):
        proxy.delay = SILENCE
        begun = time.monotonic()
        with linked(proxy.port) as (_, lines):
            assert lines.readline().startswith(b"INFO ")
            assert time.monotonic() - begun >= SILENCE


def test_a_proxy_without_a_server_hangs_up():
    with RecordingServer() as server:
        nobody = server.port
    with Proxy(nobody) as proxy, pytest.raises(ConnectionResetError), linked(proxy.port) as (_, lines):
        lines.read()


def test_each_lives_in_a_context_only():
    for listener in (Proxy(1), RecordingServer(), HostileServer(Hostility.GARBAGE)):
        with pytest.raises(UsageError, match="with"):
            listener.up()


def treated(lines, link):
    """A well-behaved client's hello, and the frame that lets the attack begin; the greeting."""
    greeting = lines.readline()
    link.sendall(b"CONNECT {}\r\nPING\r\n")
    assert lines.readline() == b"PONG\r\n"
    assert silent(link)
    link.sendall(b"SUB a 1\r\n")
    return greeting


@pytest.mark.parametrize(
    ("hostility", "begins"),
    [
        (Hostility.GARBAGE, bytes(range(8))),
        (Hostility.NEGATIVE_SIZE, b"MSG a 1 -1\r\n"),
        (Hostility.SIZE_IS_NO_NUMBER, b"MSG a 1 1e3\r\n"),
        (Hostility.HUGE_SIZE, b"MSG a 1 1073741824\r\nxxx"),
        (Hostility.HEADER_OVER_TOTAL, b"HMSG a 1 30 20\r\n"),
        (Hostility.CUT_FRAME, b"MSG a 1 1000\r\nxxx"),
        (Hostility.PING_FLOOD, b"PING\r\nPING\r\n"),
        (Hostility.ENDLESS_ERR, b"-ERR 'go away'\r\n-ERR"),
        (Hostility.LINE_WITHOUT_END, b"MSG xxx"),
        (Hostility.DEEP_INFO, b'INFO {"connect_urls":[[['),
    ],
)
def test_hostility_behind_the_hello(hostility, begins):
    with HostileServer(hostility) as server, linked(server.port) as (link, lines):
        assert treated(lines, link).startswith(b"INFO {")
        assert lines.read(len(begins)) == begins


@pytest.mark.parametrize(
    ("hostility", "begins"),
    [
        (Hostility.GARBAGE_INFO, b"INFO {\x00"),
        (Hostility.INFO_IS_NO_OBJECT, b"INFO ["),
        (Hostility.GREETING_WITHOUT_END, b"INFO {      "),
    ],
)
def test_hostility_in_place_of_the_greeting(hostility, begins):
    with HostileServer(hostility) as server, linked(server.port) as (_, lines):
        assert lines.read(len(begins)) == begins


def test_a_silent_greeting():
    with HostileServer(Hostility.SILENT_GREETING) as server, linked(server.port) as (link, _):
        assert silent(link)


def test_a_cut_frame_ends_inside_its_payload():
    with HostileServer(Hostility.CUT_FRAME) as server, linked(server.port) as (link, lines):
        treated(lines, link)
        assert lines.read() == b"MSG a 1 1000\r\n" + b"x" * 500


def test_hostile_so_many_times_and_then_a_server_like_any_other():
    with HostileServer(Hostility.GARBAGE_INFO, times=1) as server:
        with linked(server.port) as (_, lines):
            assert not lines.readline().startswith(b'INFO {"')
        with linked(server.port) as (link, lines):
            treated(lines, link)
            assert silent(link)


def test_who_knocks_as_the_door_closes_is_closed_too():
    """asyncio loses a socket whose server is closed after it was accepted; pytest hears of it from the collector."""
    for _ in range(20):
        with proxied() as (_, proxy):
            knocking = threading.Thread(target=knock, args=(proxy.port,))
            knocking.start()
            time.sleep(0.01)
        knocking.join()
        gc.collect()


def knock(port):
    """Until nobody is there."""
    with suppress(OSError):
        while True:
            socket.create_connection(("127.0.0.1", port), 0.1).close()
