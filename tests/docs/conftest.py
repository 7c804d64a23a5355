"""A Kafka for the pages, empty at the start: they print offsets, and their topics have names of their own."""

import pytest

from headrace.testing.kafka import KafkaServer
from headrace.testing.plugin import kafka_installed, kafka_server

__all__ = ["kafka_address", "kafka_installed", "kafka_server"]


@pytest.fixture(scope="session")
def kafka_address(kafka_installed):
    """Skipped, or with ``CI`` failed, where there is none."""
    with KafkaServer(libs=kafka_installed) as server:
        yield server.bootstrap
