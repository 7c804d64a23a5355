"""Random programs: embedded and nats-server do the same, step by step."""

import os

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.differential.engines import compare
from tests.differential.programs import consumer_programs, stream_programs

STREAMS, CONSUMERS = 50, 30
LONG = 2  # programs per round of the long version
QUICK = "HEADRACE_SHRINK" not in os.environ


def check(strategy, url, count, *, same, **options):
    """`same`: the programs of every run, so that a green suite stays green; else new ones."""
    steps = []

    @settings(
        max_examples=count,
        derandomize=same,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
        phases=(Phase.explicit, Phase.generate) if QUICK else tuple(Phase),
    )
    @given(strategy)
    def run(program):
        steps.extend(compare(url, program, **options))

    run()
    assert sum(steps) > 10 * len(steps), "most programs ended at once: there is little to compare"


@pytest.mark.servers
def test_streams(url):
    check(stream_programs(), url, STREAMS, same=True)


@pytest.mark.servers
def test_consumers(url):
    check(consumer_programs(), url, CONSUMERS, same=True)


@pytest.mark.chaos
@pytest.mark.servers
def test_streams_long(url, rounds, in_ci):
    check(stream_programs(), url, rounds * LONG, same=in_ci)


@pytest.mark.chaos
@pytest.mark.servers
def test_consumers_long(url, rounds, in_ci):
    check(consumer_programs(), url, rounds * LONG, same=in_ci)
