"""All engines keep the promises of the seam, stream engines their model's: on a directory, in memory, on servers."""

import pytest

from headrace.core.broker import Capabilities
from headrace.testing.conformance import broker_checks, stream_checks
from headrace.testing.nats import NatsServer
from tests.conformance.engines import brokers, capabilities, managers, run, run_at
from tests.conformance.together import accounts, judged

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


@pytest.fixture(scope="session")
def verdicts(request):
    """What the checks of the server come to, of those that are selected: all run when the first is asked for."""
    items = [item for item in request.session.items if getattr(item, "function", None) is test_server]
    wanted = [(item.callspec.params["kind"], item.callspec.params["name"]) for item in items]
    with NatsServer(config=accounts(2 * len(wanted))) as server:
        return judged(wanted, lambda number: server.url.replace("//", f"//u{number}:p@"))


@pytest.mark.servers
@pytest.mark.parametrize("name", BROKER)
def test_kafka(name, kafka_server):
    place = f"kafka://{kafka_server.bootstrap}"
    (check,) = [check for check in broker_checks(capabilities(place)) if check.name == name]
    if check.excluded:
        pytest.skip(check.excluded)
    run_at(place, check.run(brokers(place)))


@pytest.mark.servers
@pytest.mark.timeout(300)  # of the first; it waits for all of them
@pytest.mark.parametrize(
    ("kind", "name"), [*(("broker", name) for name in BROKER), *(("stream", name) for name in STREAMS)]
)
def test_server(kind, name, verdicts):
    verdict = verdicts[kind, name]
    if isinstance(verdict, Exception):
        raise verdict
    if verdict:
        pytest.skip(verdict)
