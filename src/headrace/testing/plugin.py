"""Fixtures for users of pytest, opt-in: ``pytest_plugins = ["headrace.testing.plugin"]``."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

import pytest

from headrace.connect import connect
from headrace.core.broker import Broker

__all__ = ["headrace_broker"]


@pytest.fixture
def headrace_broker() -> AbstractAsyncContextManager[Broker]:
    """The embedded engine without a disk, not open yet: ``async with headrace_broker as broker``, on the test's own loop."""
    return connect(":memory:")
