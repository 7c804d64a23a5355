"""What is known and not mended: each fails, and as soon as one does not, its entry must go."""

import pytest

from tests.differential.defects import DEFECTS
from tests.differential.engines import compare

OPEN = [
    pytest.param(one.program, id=name, marks=pytest.mark.xfail(strict=True, reason=f"{one.room}: {one.what}"))
    for name, one in DEFECTS.items()
]


@pytest.mark.servers
@pytest.mark.parametrize("program", OPEN)
def test_open_defect(program, url):
    compare(url, program, patience=0.3, tolerant=False)
