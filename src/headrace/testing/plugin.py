"""Fixtures for users of pytest, opt-in: ``pytest_plugins = ["headrace.testing.plugin"]``."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

import pytest

from headrace.connect import connect
from headrace.core.broker import Broker

__all__ = ["headrace_broker"]


@pytest.fixture
def headrace_broker() -> AbstractAsyncContextManager[Broker]:
    """The embedded engine without a disk, opened by ``async with headrace_broker as broker`` on the test's loop."""
    return connect(":memory:")
