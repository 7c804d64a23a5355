"""Links that go: back on any server, subscribed again, in order, with everyone told."""

import asyncio
import json
from contextlib import suppress

import pytest

from headrace.core.errors import BrokerTimeoutError, ClosedError, ConnectionLostError, UsageError
from headrace.nats import AuthenticationError, NoServersError, ServerError, StaleConnectionError, life
from headrace.testing.nats import Direction, NatsServer, Proxy, RecordingServer, free_port
from tests.integration.nats.scene import Diary, connection_to, plain_server, run, until

pytestmark = pytest.mark.servers


@run
async def test_no_server_at_all_says_why_for_each():
    ports = [free_port(), free_port()]
    connection = connection_to([f"nats://127.0.0.1:{port}" for port in ports])
    with pytest.raises(NoServersError) as caught:
        await connection.connect()
    assert all(f"127.0.0.1:{port}: " in str(caught.value) for port in ports)
    assert [type(reason) for reason in caught.value.reasons] == [ConnectionLostError] * 2
    assert caught.value.__cause__ is caught.value.reasons[-1]
    assert not connection.closed
    with plain_server(port=ports[1]):
        await connection.connect()
        await connection.flush()
        await connection.aclose()


@run
async def test_a_server_that_says_nothing_is_given_up(server):
    with _Silent() as silent:
        connection = connection_to([silent.url, server.url], connect_timeout=0.5, randomize=False)
        for _ in range(20):  # on a busy machine half a second may be too little for the good one, too
            with suppress(NoServersError):
                await connection.connect()
                break
        await connection.flush()
        await connection.aclose()
        assert silent.links > 0


class _Silent(RecordingServer):
    async def serve(self, reader, writer):
        await reader.read()


@run
async def test_killed_and_back(server):
    got, away = [], []
    with plain_server() as mortal:
        connection = connection_to(mortal.url, on_disconnect=away.append)
        diary = Diary(connection, lambda: connection.send(b"x", b"", b"", b"first"))
        async with connection:
            connection.subscribe("x", lambda *parts: got.append(parts[3]))
            await connection.flush()
            mortal.kill()
            await until(lambda: not connection.connected)
            frames = [connection.send(b"x", b"", b"", b"%d" % number) for number in range(5)]
            assert connection.withdraw(frames[2])
            assert connection.flushed < frames[0]
            connection.subscribe("x", lambda *parts: got.append(b"new " + parts[3]))
            flushing = asyncio.ensure_future(connection.flush(20))
            mortal.start()
            await flushing
            assert connection.flushed >= frames[-1]
            assert connection.stats.reconnects == 1
        for prefix in (b"", b"new "):
            heard = [body for body in got if body.startswith(b"new ") == bool(prefix)]
            assert heard == [prefix + body for body in (b"first", b"0", b"1", b"3", b"4")]
        assert diary.words == ["lost", "restored", "closed"]
        assert len(away) == 1


@run
async def test_another_server_takes_over_and_hooks_are_told():
    told = []
    with plain_server() as one, plain_server() as two:
        connection = connection_to(
            [one.url, two.url],
            randomize=False,
            on_disconnect=lambda error: told.append("disconnect"),
            on_reconnect=lambda: told.append("reconnect"),
            on_closed=lambda error: told.append(("closed", error)),
        )
        async with connection:
            assert connection.server_info.port == one.port
            one.kill()
            await until(lambda: "reconnect" in told)
            assert connection.server_info.port == two.port
            await connection.flush()
    assert told == ["disconnect", "reconnect", ("closed", None)]


@run
async def test_a_hook_or_listener_that_raises_disturbs_nobody():
    errors = []

    class Bad:
        def lost(self, error):
            raise ValueError("lost")

        def restored(self):
            raise ValueError("restored")

        def closed(self, error):
            raise ValueError("closed")

    def bad(*_):
        raise ValueError("hook")

    with plain_server() as server, Proxy(server.port) as proxy:
        connection = connection_to(
            proxy.url, on_error=errors.append, on_disconnect=bad, on_reconnect=bad, on_closed=bad
        )
        connection.add_listener(Bad())
        diary = Diary(connection)
        async with connection:
            proxy.cut()
            await until(lambda: "restored" in diary.words)
            await connection.flush()
        assert diary.words == ["lost", "restored", "closed"]
        assert [str(error) for error in errors] == ["lost", "hook", "restored", "hook", "closed", "hook"]
        connection.remove_listener(diary)


@run
async def test_who_waits_for_an_answer_hears_of_the_loss_and_what_was_not_sent_is_sent_later():
    with plain_server() as server, Proxy(server.port) as proxy:
        async with connection_to(proxy.url) as connection, connection_to(server.url) as other:
            other.subscribe("silent", lambda *_: None)
            await other.flush()
            asking = asyncio.ensure_future(connection.request("silent", timeout=20))
            await connection.flush()
            proxy.freeze()
            flushing = asyncio.ensure_future(connection.flush(20))
            await asyncio.sleep(0.01)
            proxy.cut()
            for waiting in (asking, flushing):
                with pytest.raises(ConnectionLostError):
                    await waiting
            assert not connection.connected
            other.subscribe("svc", lambda subject, reply, header, data: other.send(reply, b"", b"", data))
            await other.flush()
            reply = await connection.request("svc", b"kept", timeout=20)  # asked while away
            assert reply.data == b"kept"


@run
async def test_a_request_that_no_socket_got_outlives_the_link():
    with plain_server() as server, Proxy(server.port) as proxy:
        async with connection_to(proxy.url, write_limit=65_536) as connection, connection_to(server.url) as other:
            other.subscribe("svc", lambda subject, reply, header, data: other.send(reply, b"", b"", data))
            await other.flush()
            await connection.request("svc", timeout=20)
            proxy.freeze(Direction.TO_SERVER)
            for _ in range(400):
                if connection.full:
                    break
                connection.publish("x", b"x" * 65_536)
                await asyncio.sleep(0)
            written = asyncio.ensure_future(connection.flush(20))
            await asyncio.sleep(0)
            before = connection.flushed
            asking = asyncio.ensure_future(connection.request("svc", b"kept", timeout=20))
            await asyncio.sleep(0.01)
            assert connection.flushed == before
            proxy.cut()
            assert (await asking).data == b"kept"
            with pytest.raises(ConnectionLostError):
                await written


@run
async def test_a_request_that_times_out_while_away_is_taken_back():
    got = []
    with plain_server() as server:
        async with connection_to(server.url) as connection:
            server.kill()
            await until(lambda: not connection.connected)
            with pytest.raises(BrokerTimeoutError):
                await connection.request("x", b"late", timeout=0.01)
            connection.subscribe("x", lambda *parts: got.append(parts[3]))
            connection.publish("x", b"kept")
            server.start()
            await connection.flush(20)
            assert got == [b"kept"]


@run
async def test_the_reconnect_buffer_is_bounded():
    with plain_server() as server:
        async with connection_to(server.url, reconnect_buffer=1000) as connection:
            server.kill()
            await until(lambda: not connection.connected)
            connection.publish("x", b"x" * 500)
            with pytest.raises(ConnectionLostError, match="1000"):
                connection.publish("x", b"x" * 500)
            with pytest.raises(BrokerTimeoutError):
                await connection.flush(0.01)


@run
async def test_drain_while_away_sends_what_was_kept_and_takes_nothing_more():
    got, late = [], []
    with plain_server() as server, plain_server() as other:
        connection = connection_to([server.url, other.url], randomize=False)
        await connection.connect()
        connection.subscribe("in", lambda *parts: late.append(parts[3]))
        async with connection_to(other.url) as watching:
            watching.subscribe("out", lambda *parts: got.append(parts[3]))
            watching.subscribe("out", lambda *_: watching.send(b"in", b"", b"", b"more"))
            await watching.flush()
            server.kill()
            await until(lambda: not connection.connected)
            connection.publish("out", b"kept")
            await connection.drain()
            await until(lambda: got)
            await watching.flush()
        assert got == [b"kept"]
        assert late == []


@run
async def test_messages_sent_before_the_first_connect_are_kept(server):
    got = []
    connection = connection_to(server.url)
    connection.subscribe("early", lambda *parts: got.append(parts[3]))
    connection.publish("early", b"1")
    diary = Diary(connection)
    async with connection:
        await connection.flush()
    assert got == [b"1"]
    assert diary.words == ["closed"]


@run
async def test_without_reconnect_a_lost_link_is_the_end():
    with plain_server() as server:
        connection = connection_to(server.url, reconnect=False)
        diary = Diary(connection)
        await connection.connect()
        waiting = asyncio.ensure_future(connection.request("_", timeout=20))
        server.kill()
        with pytest.raises((ConnectionLostError, ClosedError)):
            await waiting
        await until(lambda: connection.closed)
        assert diary.words == ["lost", "closed"]
        assert diary.entries[1][1] is diary.entries[0][1]
        with pytest.raises(ClosedError):
            connection.publish("x")
        await connection.aclose()


@run
async def test_max_reconnects_used_up_is_the_end():
    errors = []
    with plain_server() as server:
        connection = connection_to(server.url, max_reconnects=3, on_error=errors.append)
        diary = Diary(connection)
        await connection.connect()
        server.kill()
        await until(lambda: connection.closed)
        assert diary.words == ["lost", "closed"]
        assert isinstance(diary.entries[-1][1], NoServersError)
        assert len(errors) == 3
        await connection.aclose()


@run
async def test_a_success_in_between_sets_the_count_back():
    with RecordingServer() as server:

        def failed(error):
            if isinstance(error, NoServersError):
                server.up()

        async with connection_to(server.url, max_reconnects=2, on_error=failed) as connection:
            for count in range(1, 5):
                server.down()
                await until(lambda count=count: connection.stats.reconnects == count or connection.closed)
            assert not connection.closed


@run
async def test_closing_while_away_ends_the_search():
    with plain_server() as server:
        connection = connection_to(server.url)
        await connection.connect()
        server.kill()
        await until(lambda: not connection.connected)
        with pytest.raises(UsageError):
            await connection.connect()
        await asyncio.gather(connection.aclose(), connection.aclose())
        assert connection.closed
        assert len(asyncio.all_tasks()) <= 2


@run
async def test_an_unanswered_ping_is_the_end_of_the_link():
    with plain_server() as server, Proxy(server.port) as proxy:
        connection = connection_to(proxy.url, ping_interval=0.05, max_pings_out=2)
        diary = Diary(connection)
        async with connection:
            proxy.freeze()
            await until(lambda: "restored" in diary.words)
            assert isinstance(diary.entries[0][1], StaleConnectionError)


@run
async def test_a_peer_that_takes_nothing_is_found_stale_and_senders_go_on_afterwards():
    with plain_server() as server, Proxy(server.port) as proxy:
        connection = connection_to(proxy.url, ping_interval=0.1, max_pings_out=1, write_limit=65_536)
        async with connection:
            proxy.freeze(Direction.TO_SERVER)
            for _ in range(400):
                if connection.full:
                    break
                connection.publish("x", b"x" * 65_536)
                await asyncio.sleep(0)
            assert connection.full
            await connection.room()
            await until(lambda: connection.stats.reconnects)
            await until(lambda: not connection.full)


@run
async def test_frames_cut_anywhere_lose_nothing_that_a_new_link_brings():
    with plain_server() as server, Proxy(server.port) as proxy:
        async with connection_to(server.url) as sender, connection_to(proxy.url) as connection:
            got = []
            connection.subscribe("x", lambda *parts: got.append(parts[3]))
            await connection.flush()
            for cut in range(1, 40, 3):
                before = connection.stats.reconnects
                proxy.cut_after(cut)
                sender.publish("x", b"y" * 20)
                await until(lambda before=before: connection.stats.reconnects > before)
                await connection.flush(20)
            assert set(got) <= {b"y" * 20}
            sender.publish("x", b"end")
            await until(lambda: got and got[-1] == b"end")


@run
async def test_limits_of_subscriptions_go_on_after_a_reconnect():
    with plain_server() as server, Proxy(server.port) as proxy:
        async with connection_to(server.url) as sender, connection_to(proxy.url) as connection:
            got = []
            subscription = connection.subscribe("x", lambda *parts: got.append(parts[3]))
            subscription.unsubscribe(3)
            await connection.flush()
            sender.publish("x", b"1")
            await until(lambda: got)
            proxy.cut()
            await until(lambda: connection.stats.reconnects == 1)
            await connection.flush()
            for number in range(2, 6):
                sender.publish("x", b"%d" % number)
            await sender.flush()
            await connection.flush()
            assert got == [b"1", b"2", b"3"]
            assert subscription.closed


def clustered(name, port, routes, **options):
    urls = ", ".join(f"nats://127.0.0.1:{route}" for route in routes)
    config = f"server_name: {name}\ncluster {{ name: c, listen: '127.0.0.1:{port}', routes: [{urls}] }}"
    return NatsServer(config=config, jetstream=False, **options)


@run
async def test_servers_of_the_cluster_are_learnt_and_used():
    routes = [free_port(), free_port()]
    with clustered("one", routes[0], routes) as one, clustered("two", routes[1], routes):
        connection = connection_to(one.url)
        async with connection:
            await until(lambda: len(connection.server_info.connect_urls) == 2)
            one.kill()
            await until(lambda: connection.stats.reconnects == 1)
            assert connection.server_info.server_name == "two"
            await connection.flush()
        only = connection_to(one.url, use_discovered=False, max_reconnects=1)
        with pytest.raises(NoServersError):
            await only.connect()


@run
async def test_a_lame_duck_is_left_for_another_server():
    routes = [free_port(), free_port()]
    ducks = []
    with clustered("one", routes[0], routes) as one, clustered("two", routes[1], routes):
        connection = connection_to(one.url, on_lame_duck=lambda: ducks.append(connection.connected))
        diary = Diary(connection)
        async with connection:
            await until(lambda: len(connection.server_info.connect_urls) == 2)
            got = []
            connection.subscribe("x", lambda *parts: got.append(parts[3]))
            await connection.flush()
            one.lame_duck()
            await until(lambda: connection.stats.reconnects == 1)
            assert ducks == [True]
            assert "lame duck" in str(diary.entries[0][1])
            assert connection.server_info.server_name == "two"
            connection.publish("x", b"1")
            await connection.flush()
            assert got == [b"1"]


@run
async def test_a_link_that_dies_at_once_again_and_again_is_tried_ever_more_slowly(monkeypatch):
    asked = []

    def delay(rounds, *, wait, most):
        asked.append((rounds, wait, most))
        return 0.0

    monkeypatch.setattr(life, "delay", delay)
    with RecordingServer() as server:
        async with connection_to(server.url) as connection:
            for count in range(1, 5):
                server.cut()
                await until(lambda count=count: connection.stats.reconnects == count)
            connection._life._since -= 5.0  # one that lived
            server.cut()
            await until(lambda: connection.stats.reconnects == 5)
    assert asked == [(rounds, 0.01, 0.1) for rounds in (0, 1, 2, 3, 0)]


@run
async def test_the_same_refusal_twice_removes_a_server_and_the_last_one_ends_it():
    port = free_port()
    with plain_server(port=port) as server:
        connection = connection_to(f"nats://u:p@127.0.0.1:{port}")
        diary = Diary(connection)
        await connection.connect()
        server.kill()
        await until(lambda: not connection.connected)
        with plain_server(port=port, config="authorization { user: other, password: x }"):
            await until(lambda: connection.closed)
        await connection.aclose()
        error = diary.entries[-1][1]
        assert isinstance(error, NoServersError)
        assert isinstance(error.__cause__, AuthenticationError)


@run
async def test_an_error_of_the_server_ends_the_link_unless_the_server_goes_on():
    errors = []
    config = 'authorization { users: [{ user: u, password: p, permissions: { publish: "ok.>", subscribe: "ok.>" } }] }'
    with plain_server(config=config) as server:
        connection = connection_to(server.url.replace("//", "//u:p@"), on_error=errors.append)
        async with connection:
            connection.publish("forbidden", b"")
            connection.subscribe("forbidden", print)
            await connection.flush()
            assert [type(error).__name__ for error in errors] == ["PermissionsError"] * 2
            assert connection.stats.reconnects == 0
    with RecordingServer() as recorder:
        connection = connection_to(recorder.url)
        diary = Diary(connection)
        async with connection:
            recorder.send(b"-ERR 'Unknown Protocol Operation'\r\n")
            await until(lambda: "restored" in diary.words)
            assert type(diary.entries[0][1]) is ServerError


@run
async def test_a_new_info_is_taken_over():
    with RecordingServer() as recorder:
        async with connection_to(recorder.url) as connection:
            recorder.send(b"INFO " + json.dumps({"version": "2.99.1-beta", "max_payload": 5}).encode() + b"\r\n")
            await until(lambda: connection.max_payload == 5)
            assert connection.server_info.version_tuple == (2, 99, 1)


@run
async def test_pings_of_the_server_are_answered_before_what_is_collected():
    with RecordingServer() as recorder:
        async with connection_to(recorder.url) as connection:
            await connection.flush()
            recorder.send(b"PING\r\nMSG none 77 0\r\n\r\nPING\r\n")
            await until(lambda: connection.stats.in_messages == 1)
            await until(lambda: recorder.received.count(b"PONG\r\n") == 2)
