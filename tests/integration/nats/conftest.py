"""One server for the tests that leave it as it was."""

import pytest

from tests.integration.nats.scene import plain_server


@pytest.fixture(scope="module")
def server():
    with plain_server() as running:
        yield running
