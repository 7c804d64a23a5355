"""The comparison notices: a wrong engine is caught by a directed program, and most of them by random ones."""

import pytest

from tests.differential.compare import DifferenceError
from tests.differential.engines import compare
from tests.differential.mutants import MUTANTS
from tests.differential.programs import consumer_programs, stream_programs
from tests.differential.test_random import check

PATIENCE = 0.3
RANDOM = {
    "expectations are ignored": stream_programs,
    "limits are not kept": stream_programs,
    "a nak is an ack": consumer_programs,
    "a pull turns its messages round": consumer_programs,
}


@pytest.mark.servers
@pytest.mark.parametrize("name", MUTANTS)
def test_a_directed_program_notices(name, url, monkeypatch):
    mutate, program = MUTANTS[name]
    mutate(monkeypatch)
    with pytest.raises(DifferenceError) as caught:
        compare(url, program, patience=PATIENCE)
    print(caught.value)


@pytest.mark.servers
@pytest.mark.parametrize("name", RANDOM)
def test_random_programs_notice(name, url, monkeypatch):
    mutate, _ = MUTANTS[name]
    mutate(monkeypatch)
    with pytest.raises(DifferenceError):
        check(RANDOM[name](), url, 60, same=True, patience=PATIENCE)
