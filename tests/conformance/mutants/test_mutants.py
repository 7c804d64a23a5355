"""Every check catches its mutant, and no check is without one."""

from contextlib import asynccontextmanager

import pytest

from headrace.core.broker import Capabilities
from headrace.core.errors import ClosedError, ConfigError
from headrace.streams.errors import ConsumerDeletedError, MessageNotFoundError
from headrace.testing.conformance import broker_checks, stream_checks
from tests.conformance.engines import brokers, managers, run
from tests.conformance.mutants import broker, reading, second, streams

BROKER = {check.name: check for check in broker_checks(Capabilities())}
STREAMS = {check.name: check for check in stream_checks(Capabilities())}
STREAM_MUTANTS = streams.MUTANTS | reading.MUTANTS | second.MUTANTS
DIRECTORY = {"group_resumes_after_reopen"}
"""Checks that need a store which survives its engine; the others run without a disk."""
RAISED = {
    "acked_is_stored": MessageNotFoundError,
    "consume_survives_its_handler": TimeoutError,
    "declare_idempotent": ConfigError,
    "futures_resolve_on_close": TimeoutError,
    "late_settle_counted": ClosedError,
    "ordered_sees_all_once": TimeoutError,
    "ordered_survives_delete": ConsumerDeletedError,
}
"""Mutants whose defect is the error itself, or that nothing ever comes."""


class Unchanged:
    """No defect at all: what the stream mutants wrap, and nothing else."""

    class Session(streams.WrongSession):
        pass

    Stream = streams.Wrong


def test_every_check_has_its_mutant():
    assert set(BROKER) == set(broker.MUTANTS)
    assert set(STREAMS) == set(STREAM_MUTANTS)
    assert len(STREAM_MUTANTS) == len(streams.MUTANTS) + len(reading.MUTANTS) + len(second.MUTANTS)


@pytest.mark.parametrize("name", BROKER)
def test_broker_mutant_is_caught(name, tmp_path):
    assert caught(BROKER[name], broker_opener(name, broker.MUTANTS[name], tmp_path))


@pytest.mark.parametrize("name", STREAMS)
def test_stream_mutant_is_caught(name):
    assert caught(STREAMS[name], stream_opener(STREAM_MUTANTS[name]))


@pytest.mark.parametrize("name", BROKER)
def test_it_is_the_defect_that_a_broker_check_catches(name, tmp_path):
    run(BROKER[name].run(broker_opener(name, broker.WrongBroker, tmp_path)))


@pytest.mark.parametrize("name", STREAMS)
def test_it_is_the_defect_that_a_stream_check_catches(name):
    run(STREAMS[name].run(stream_opener(Unchanged)))


def broker_opener(name, mutant, tmp_path):
    """Opens the real engine behind the mutant."""
    opened = []

    @asynccontextmanager
    async def open_mutant():
        opened.append(1)
        async with brokers(tmp_path / "data" if name in DIRECTORY else ":memory:")() as real:
            yield mutant(real, len(opened))

    return open_mutant


def stream_opener(mutant):
    """The same for the stream model."""

    @asynccontextmanager
    async def open_mutant():
        async with managers(":memory:")() as real:
            yield getattr(mutant, "Manager", streams.Wrong)(real, mutant)

    return open_mutant


def caught(check, open_mutant):
    """Whether the check says so itself: a mutant that merely crashes proves nothing, but where that is its defect."""
    try:
        run(check.run(open_mutant))
    except (AssertionError, RAISED.get(check.name, AssertionError)) as error:
        print(f"{check.name}: {type(error).__name__}: {error}")
        return True
    return False
