"""The embedded engine keeps the promises of the seam and of the stream model, in a directory and without a disk."""

import pytest

from headrace.core.broker import Capabilities
from headrace.testing.conformance import broker_checks, stream_checks
from tests.conformance.engines import brokers, capabilities, managers, run

BROKER = [check.name for check in broker_checks(Capabilities())]
STREAMS = [check.name for check in stream_checks(Capabilities())]


@pytest.fixture(params=[":memory:", "directory"])
def place(request, tmp_path):
    return ":memory:" if request.param == ":memory:" else tmp_path / "data"


@pytest.mark.parametrize("name", BROKER)
def test_broker(name, place):
    (check,) = [check for check in broker_checks(capabilities(place)) if check.name == name]
    if check.excluded:
        pytest.skip(check.excluded)
    run(check.run(brokers(place)))


@pytest.mark.parametrize("name", STREAMS)
def test_streams(name, place):
    (check,) = [check for check in stream_checks(capabilities(place)) if check.name == name]
    if check.excluded:
        pytest.skip(check.excluded)
    run(check.run(managers(place)))
