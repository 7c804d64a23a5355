"""Members of a group that join, leave and are killed at work: every commit is looked at, not only the totals."""

import asyncio

import pytest

from headrace.testing.kafka import KafkaServer
from headrace.testing.plugin import kafka_installed, kafka_server  # noqa: F401
from tests.faults.kafka.troupe import storm

IN_FLIGHT = 500
SHORT = {
    "group.consumer.min.session.timeout.ms": "5000",
    "group.consumer.session.timeout.ms": "10000",
    "group.consumer.min.heartbeat.interval.ms": "500",
    "group.consumer.heartbeat.interval.ms": "1000",
}
"""With the newer protocol the broker says how long it waits for the dead: 45 s, in which seven more are killed here."""


@pytest.fixture(scope="module")
def server(kafka_installed):  # noqa: F811
    with KafkaServer(libs=kafka_installed, config=SHORT) as running:
        yield running


@pytest.mark.chaos
@pytest.mark.servers
@pytest.mark.parametrize("protocol", ["cooperative", "eager", "consumer"])
def test_rebalance_storm(protocol, tmp_path, server, in_ci):
    count = 50_000 if in_ci else 1_000_000
    verdict, kinds = asyncio.run(storm(tmp_path, server.bootstrap, protocol, count, members=8, pace=0.4))
    print(f"{protocol}: {verdict}; {kinds}")
    assert not verdict.wrong, "\n".join(verdict.wrong[:20])
    assert verdict.commits
    assert kinds["killed"], "nobody was killed: a run without a fault proves nothing"
    assert verdict.again <= kinds["killed"] * IN_FLIGHT, "more came again than the killed ones can have held"


@pytest.mark.chaos
@pytest.mark.servers
@pytest.mark.parametrize("protocol", ["cooperative", "eager", "consumer"])
def test_graceful_stops_make_no_duplicate(protocol, tmp_path, kafka_server, in_ci):  # noqa: F811
    """Members that join and are told to leave, every second."""
    count = 10_000 if in_ci else 200_000
    verdict, kinds = asyncio.run(
        storm(tmp_path, kafka_server.bootstrap, protocol, count, members=6, pace=0.3, every=1.0, deadly=False)
    )
    print(f"{protocol}: {verdict}; {kinds}")
    assert not verdict.wrong, "\n".join(verdict.wrong[:20])
    assert kinds["left"], "nobody left: a run without a fault proves nothing"
    assert not verdict.again


@pytest.mark.servers
def test_members_come_and_go(tmp_path, kafka_server):  # noqa: F811
    """The short version: three members, one leaves, one is killed."""
    verdict, _ = asyncio.run(
        storm(tmp_path, kafka_server.bootstrap, "cooperative", 3_000, members=3, pace=0.004, every=0.5)
    )
    assert not verdict.wrong, "\n".join(verdict.wrong[:20])
    assert verdict.commits
