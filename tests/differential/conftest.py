import pytest

from headrace.testing.nats import NatsServer


@pytest.fixture(scope="module")
def url():
    """Of one server for all programs of a module."""
    with NatsServer() as server:
        yield server.url
