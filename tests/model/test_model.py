"""A state machine drives an engine and the model side by side: embedded on virtual time, nats-server on real time."""

import pytest

from headrace.testing.nats import NatsServer
from tests.model.machine import Machine, check
from tests.model.server import ServerMachine


class DirectoryMachine(Machine):
    directory = True


def test_memory():
    check(Machine, 100, 30, same=True)


def test_directory():
    check(DirectoryMachine, 15, 20, same=True)


@pytest.mark.servers
def test_server():
    with NatsServer() as server:
        check(type("Here", (ServerMachine,), {"url": server.url}), 15, 20, same=True)


@pytest.mark.chaos
def test_memory_long(rounds, in_ci):
    check(Machine, rounds * 2, 60, same=in_ci)


@pytest.mark.chaos
def test_directory_long(rounds, in_ci):
    check(DirectoryMachine, rounds, 40, same=in_ci)


@pytest.mark.chaos
@pytest.mark.servers
def test_server_long(rounds, in_ci):
    with NatsServer() as server:
        check(type("Here", (ServerMachine,), {"url": server.url}), rounds, 40, same=in_ci)
