"""Directed programs: embedded and nats-server do the same, step by step."""

import pytest

from tests.differential.cases import consumers, streams, timed
from tests.differential.engines import compare, compare_beside


@pytest.mark.servers
@pytest.mark.parametrize("name", streams.CASES)
def test_streams(name, url):
    compare(url, streams.CASES[name])


@pytest.mark.servers
@pytest.mark.parametrize("name", consumers.CASES)
def test_consumers(name, url):
    compare(url, consumers.CASES[name])


@pytest.mark.servers
@pytest.mark.timeout(240)
def test_what_time_does(url):
    compare_beside(url, *timed.CASES.values())
