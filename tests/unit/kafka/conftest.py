"""What most tests of a broker's own side ask for."""

import pytest

from headrace.testing.kafka.mock import KafkaMock


@pytest.fixture
def mock():
    """One broker of the driver's mock cluster, with the topic ``orders`` in one partition."""
    with KafkaMock(1) as cluster:
        cluster.create_topic("orders", 1)
        yield cluster
