"""Every block of the documentation runs and prints what the page says; every link leads somewhere."""

import logging
import re

import pytest

from tests.docs.pages import PAGES, README, ROOT, blocks, commands, matches, needs_kafka, run_page

LINKED = [*PAGES, README, ROOT / "CONTRIBUTING.md"]
WITH_BLOCKS = [page for page in PAGES if any(block.kind in {"python", "console"} for block in blocks(page))]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def name_of(page):
    return str(page.relative_to(ROOT))


@pytest.fixture(autouse=True)
def _no_url(monkeypatch):
    monkeypatch.delenv("HEADRACE_URL", raising=False)


@pytest.mark.parametrize("page", [page for page in WITH_BLOCKS if not needs_kafka(page)], ids=name_of)
def test_blocks_run(page, tmp_path):
    assert run_page(page, tmp_path) > 0
    assert not logging.getLogger("headrace.worker").disabled, "left to the tests that follow"


@pytest.mark.parametrize("page", [page for page in WITH_BLOCKS if needs_kafka(page)], ids=name_of)
def test_blocks_run_on_kafka(page, tmp_path, kafka_address, kafka_installed):
    (tmp_path / ".servers").symlink_to(kafka_installed.parents[1])  # a page may start a server of its own
    assert run_page(page, tmp_path, kafka=kafka_address) > 0
    assert not logging.getLogger("headrace.worker").disabled, "left to the tests that follow"


def test_commands_of_the_readme_run(tmp_path):
    assert run_page(README, tmp_path, kinds=("console",)) > 0


@pytest.mark.parametrize("page", LINKED, ids=name_of)
def test_links_lead_somewhere(page):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{name_of(page)}: {target}"
        if anchor:
            assert anchor in anchors(found), f"{name_of(page)}: {target}"


def anchors(page):
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_stands_in_the_index():
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / target).resolve() for target in LINK.findall(index.read_text(encoding="utf-8"))}
    assert {page for page in PAGES if page != index} <= linked


@pytest.mark.parametrize(
    ("expected", "out", "same"),
    [
        ("a\n", "a\n", True),
        ("a\n", "b\n", False),
        ("a\n", "a\nb\n", False),
        ("", "a\n", False),
        ("", "", True),
        ("a … c\n", "a b c   \n", True),
        ("a … c\n", "a\nb c\n", False),
        ("a\n…\n", "a\nb\nc\n", True),
        ("a.c\n", "abc\n", False),
    ],
)
def test_what_a_page_says_is_compared(expected, out, same):
    assert matches(expected, out) is same


def test_commands_are_told_from_what_they_print():
    assert commands("$ a b\none\n> two\n$ c\n> d\n") == [["a b", "one\n> two\n"], ["c\nd", ""]]
