"""Every check catches its mutant, and no check is without one."""

from contextlib import asynccontextmanager

import pytest

from headrace.core.broker import Capabilities
from headrace.testing.conformance import broker_checks, stream_checks
from tests.conformance.engines import brokers, managers, run
from tests.conformance.mutants import broker, streams

BROKER = {check.name: check for check in broker_checks(Capabilities())}
STREAMS = {check.name: check for check in stream_checks(Capabilities())}
DIRECTORY = {"group_resumes_after_reopen"}
"""Checks that need a store which survives its engine; the others run without a disk."""


def test_every_check_has_its_mutant():
    assert set(BROKER) == set(broker.MUTANTS)
    assert set(STREAMS) == set(streams.MUTANTS)


@pytest.mark.parametrize("name", BROKER)
def test_broker_mutant_is_caught(name, tmp_path):
    opened = []

    @asynccontextmanager
    async def open_mutant():
        opened.append(1)
        async with brokers(tmp_path / "data" if name in DIRECTORY else ":memory:")() as real:
            yield broker.MUTANTS[name](real, len(opened))

    assert caught(BROKER[name], open_mutant)


@pytest.mark.parametrize("name", STREAMS)
def test_stream_mutant_is_caught(name):
    mutant = streams.MUTANTS[name]
    kind = getattr(mutant, "Manager", streams.Wrong)

    @asynccontextmanager
    async def open_mutant():
        async with managers(":memory:")() as real:
            yield kind(real, mutant)

    assert caught(STREAMS[name], open_mutant)


def caught(check, open_mutant):
    """Whether the check fails, as a check does: a mutant that merely crashes proves nothing."""
    try:
        run(check.run(open_mutant))
    except (AssertionError, Exception) as error:
        print(f"{check.name}: {type(error).__name__}: {error}")
        return not isinstance(error, TypeError | AttributeError | NameError)
    return False
