"""Each wrong Kafka engine that the specification names is caught, by a check that the real one passes."""

import re

import pytest

from tests.conformance.kafka_mutants import letters, reading, saving, sending

WRONG = reading.MUTANTS | letters.MUTANTS | saving.MUTANTS | sending.MUTANTS
MUTANTS = {f"{wrong}: {name}": mutant for wrong, mutants in WRONG.items() for name, mutant in mutants.items()}
CHECKS = {check.__name__: check for _, check, _ in MUTANTS.values()}


def test_all_that_are_named_are_there():
    """Section 7 of the specification of Kafka."""
    assert list(WRONG) == [
        "commit highest seen",
        "commit after revoke",
        "revoke that does not wait",
        "done before dead letter confirmed",
        "save out of order",
        "future forgotten at close",
        "failed message sent again behind its key",
    ]


@pytest.mark.parametrize("name", CHECKS)
def test_the_real_engine_passes(name):
    CHECKS[name]()


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(name, monkeypatch):
    """By what the check says: a mutant that merely crashes proves nothing."""
    mutate, check, said = MUTANTS[name]
    mutate(monkeypatch)
    with pytest.raises(AssertionError) as caught:
        check()
    print(f"{name}: {check.__name__}: {caught.value}")
    assert re.search(said, str(caught.value))
