"""Both engines keep the promises of the seam and of the stream model: in a directory, without a disk, on a server."""

import pytest

from headrace.core.broker import Capabilities
from headrace.testing.conformance import broker_checks, stream_checks
from headrace.testing.nats import NatsServer
from tests.conformance.engines import brokers, capabilities, empty, managers, run_at

BROKER = [check.name for check in broker_checks(Capabilities())]
STREAMS = [check.name for check in stream_checks(Capabilities())]
ENGINES = [":memory:", "directory", pytest.param("server", marks=pytest.mark.servers)]


@pytest.fixture(scope="session")
def server():
    with NatsServer() as running:
        yield running


@pytest.fixture(params=ENGINES)
def place(request, tmp_path, server):
    where = {":memory:": ":memory:", "directory": tmp_path / "data", "server": server.url}[request.param]
    yield where
    empty(where)


@pytest.mark.parametrize("name", BROKER)
def test_broker(name, place):
    (check,) = [check for check in broker_checks(capabilities(place)) if check.name == name]
    if check.excluded:
        pytest.skip(check.excluded)
    run_at(place, check.run(brokers(place)))


@pytest.mark.parametrize("name", STREAMS)
def test_streams(name, place):
    (check,) = [check for check in stream_checks(capabilities(place)) if check.name == name]
    if check.excluded:
        pytest.skip(check.excluded)
    run_at(place, check.run(managers(place)))
