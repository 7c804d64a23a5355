"""What is accepted has its line in the page, and is still so."""

import re
from pathlib import Path

import pytest

from tests.differential import accepted
from tests.differential.cases.differences import DIFFERENCES
from tests.differential.compare import DifferenceError
from tests.differential.engines import compare

PAGE = Path(__file__).parents[2] / "docs" / "embedded-differences.md"
REGISTERED = [function for _, function in accepted.ACCEPTED + accepted.AVOIDED]


def test_every_accepted_difference_has_its_line():
    rows = re.findall(r"^\| (.+?) \| .+ \| .+ \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    missing = [f"{one.__name__}: {one.line}" for one in REGISTERED if not any(row.startswith(one.line) for row in rows)]
    assert not missing


def test_every_accepted_difference_has_a_program():
    assert set(DIFFERENCES) == set(REGISTERED)


@pytest.mark.servers
@pytest.mark.parametrize("function", DIFFERENCES, ids=lambda function: function.__name__)
def test_it_is_still_so(function, url, monkeypatch):
    for name in ("ACCEPTED", "AVOIDED"):
        monkeypatch.setattr(accepted, name, [one for one in getattr(accepted, name) if one[1] is not function])
    with pytest.raises(DifferenceError):
        compare(url, DIFFERENCES[function], patience=0.3)
    monkeypatch.undo()
    compare(url, DIFFERENCES[function])
