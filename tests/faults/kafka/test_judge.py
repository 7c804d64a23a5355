"""The judge of the members finds what was planted: each line below is of one defect, and of no other."""

import pytest

from tests.faults.kafka.journal import held_by, judge

PUBLISHED = {0: {0: b"a", 1: b"b", 2: b"a"}, 1: {5: b"c"}}
GOOD = "S 0 0 a|S 0 1 b|F 0 1 b|F 0 0 a|C 0 2 -|A 0 2 -|S 0 2 a|F 0 2 a|S 1 5 c|F 1 5 c|C 0 3 -|C 1 6 -"


def told(folder, *members, deaths=(), whole=True):
    """What the judge says of these members; their lines are written by turns, `-` for none."""
    for number, text in enumerate(members):
        lines = [f"{10 * at + number} {line}\n" for at, line in enumerate(text.split("|")) if line != "-"]
        (folder / f"m{number}.journal").write_text("".join(lines))
    return judge(folder, PUBLISHED, dict(deaths), whole=whole)


def test_all_is_well(tmp_path):
    verdict = told(tmp_path, GOOD)
    assert verdict.wrong == []
    assert (verdict.starts, verdict.finishes, verdict.commits, verdict.again) == (4, 4, 3, 0)


@pytest.mark.parametrize(
    ("lines", "word"),
    [
        ("S 0 0 a|S 0 1 b|F 0 1 b|C 0 2 -", "while 0 was not done"),
        ("S 0 0 a|F 0 0 a|S 0 1 b|F 0 1 b|C 0 2 -|C 0 1 -", "went back"),
        ("S 0 0 a|F 0 0 a|C 0 1 -|A 0 1 -|S 0 0 a|F 0 0 a", "below the commit"),
        ("S 0 0 a|S 0 2 a", "twice at once"),
        ("S 0 2 a|F 0 2 a|S 0 0 a|F 0 0 a", "out of order"),
        ("S 0 7 a|F 0 7 a", "never published"),
    ],
)
def test_a_planted_defect(tmp_path, lines, word):
    verdict = told(tmp_path, lines, whole=False)
    assert len(verdict.wrong) == 1
    assert word in verdict.wrong[0]


def test_what_is_missing(tmp_path):
    assert "1 were never handled: [(1, 5)]" in told(tmp_path, GOOD.replace("|S 1 5 c|F 1 5 c", "")).wrong[-1]


def test_a_killed_member_runs_nothing_any_more(tmp_path):
    lines = "S 0 0 a|F 0 0 a|S 0 2 a", "-|-|-|S 0 0 a|F 0 0 a|S 0 2 a|F 0 2 a"
    assert "twice at once" in told(tmp_path, *lines, whole=False).wrong[0]
    verdict = told(tmp_path, *lines, deaths={"m0": 25}, whole=False)
    assert verdict.wrong == []
    assert (verdict.again_of, verdict.again_in) == ({"m0": 1}, {0: 1})


def test_who_held_what(tmp_path):
    told(tmp_path, "B 0 0 -|B 1 5 -|S 0 0 a", "-|-|-|-|B 1 5 -", whole=False)
    assert [held_by(tmp_path, "m0", at) for at in (0, 15, 50)] == [{0}, {0, 1}, {0}]
